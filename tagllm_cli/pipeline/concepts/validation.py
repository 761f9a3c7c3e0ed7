"""Validation of a card: the bare question and the card's question on the same images; a card that helps is kept.

With ground truth a card must correct more decisions than it breaks, and lose at most MAX_LOST of the yes that were
right, and of the no. Without it a card must change no decision to yes where the label was never proposed; must not
decide all proposed images alike where the bare question told them apart, nor reverse all of them, nor leave the model
without a yes or no. A card that changes no decision is not needed. Images without the label prove nothing against it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tagllm_cli.labeling.templates import Template
from tagllm_cli.labeling.yes_no import YesNoQuestion, ask_yes_no
from tagllm_cli.pipeline.concepts.cached_model import CachedModel, UnansweredError, gather_limited
from tagllm_cli.pipeline.concepts.validation_set import ValidationExample, ValidationSet
from tagllm_cli.records import Decision, DecodedImage, ImageInfo, Response
from tagllm_cli.sources.base import ReadFailure
from tagllm_cli.sources.decode import decode
from tagllm_cli.vocabulary.cards import Card, Wording

MAX_DISPUTED = 8
MAX_LOST = 0.1  # share of the right decisions that a card may turn wrong
_MAX_IMAGES = 64  # at once, over all labels; they are decoded in memory


@dataclass(frozen=True, slots=True)
class Trial:
    """One image's two decisions, the bare name's and the card's: True is yes, None neither yes nor no, never right.

    `proposed` and `present` are those of the `ValidationExample`.
    """

    uri: str
    bare: bool | None
    card: bool | None
    proposed: bool | None = None
    present: bool | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of a card's validation.

    `gain` is decisions corrected minus decisions broken, `errors` the remaining wrong ones; None without ground truth.
    `disputed` are images whose decision changes, up to MAX_DISPUTED.
    """

    kept: bool
    why: str
    gain: int | None = None
    errors: int | None = None
    disputed: tuple[str, ...] = ()


def judge(trials: Sequence[Trial]) -> Verdict:
    """Decide about a card, by ground truth where there is any. Without trials it is kept."""
    changed = [trial for trial in trials if trial.bare != trial.card]
    disputed = tuple(map(_dispute, changed[:MAX_DISPUTED]))
    known = [trial for trial in trials if trial.present is not None]
    kept, why = _by_truth(known) if known else _without_truth(trials)
    gain = errors = None
    if known:
        errors = sum(trial.card != trial.present for trial in known)
        gain = sum(trial.bare != trial.present for trial in known) - errors
    return Verdict(kept, why, gain, errors, disputed)


def _by_truth(trials: Sequence[Trial]) -> tuple[bool, str]:
    changed = [trial for trial in trials if trial.bare != trial.card]
    if not changed:
        return False, f"not needed: it changes no decision on {len(trials)} images"
    corrected = sum(trial.card == trial.present for trial in changed)
    broken = sum(trial.bare == trial.present for trial in changed)
    counts = f"corrects {corrected} and breaks {broken} of {len(trials)} decisions"
    if corrected <= broken:
        return False, counts
    for answer in (True, False):
        right = [trial for trial in trials if trial.bare == trial.present == answer]
        lost = sum(trial.card != answer for trial in right)
        if lost > MAX_LOST * len(right):
            return False, f"{counts}, among them {lost} of {len(right)} that were rightly {_word(answer)}"
    return True, counts


def _without_truth(trials: Sequence[Trial]) -> tuple[bool, str]:
    sides: dict[bool, list[Trial]] = {True: [], False: []}
    for trial in trials:
        sides[bool(trial.bare if trial.proposed is None else trial.proposed)].append(trial)
    proposed, others = sides[True], sides[False]
    silenced = sum(trial.card is None and trial.bare is not None for trial in trials)
    if silenced > MAX_LOST * len(trials):
        return False, f"leaves the model without a yes or no on {silenced} of {len(trials)} images"
    added = sum(bool(trial.card and not trial.bare) for trial in others)
    if added:
        return False, f"says yes to {added} of {len(others)} images where the label was never proposed"
    if not proposed:
        return True, "not seen on any image, so judged by its text" if trials else "judged by its text"
    changed = sum(trial.bare != trial.card for trial in proposed)
    if not changed:
        return False, f"not needed: it changes no decision on {len(trials)} images"
    bare, said = {bool(trial.bare) for trial in proposed}, {bool(trial.card) for trial in proposed}
    if len(said) == 1 and (len(bare) == 2 or changed == len(proposed)):
        return False, f"says {_word(said.pop())} to all {len(proposed)} proposed images"
    if changed == len(proposed):
        return False, f"reverses the decision on all {len(proposed)} proposed images"
    return True, f"changes {changed} of {len(proposed)} decisions where it was proposed, and none elsewhere"


def _dispute(trial: Trial) -> str:
    truth = "" if trial.present is None else f", the truth says {_word(trial.present)}"
    return f"{trial.uri}: {_word(trial.bare)} -> {_word(trial.card)}{truth}"


def _word(answer: bool | None) -> str:
    return {True: "yes", False: "no", None: "neither"}[answer]


class Validator:
    """Asks the VLM about a label's validation images, with and without a card."""

    def __init__(
        self, validation_set: ValidationSet, vlm: CachedModel, templates: Mapping[str, Template], max_pixels: int
    ) -> None:
        self._validation_set, self._vlm, self._max_pixels = validation_set, vlm, max_pixels
        self._templates = templates
        self._semaphore = asyncio.Semaphore(_MAX_IMAGES)

    async def compare(self, name: str, wording: Wording) -> list[Trial]:
        """Return both decisions on each of the label's validation images that can be read and asked about.

        Raises UnansweredError where there are images and none could be decided.
        """
        examples = self._validation_set.samples.get(name, ())
        card = wording.card(name)

        async def one(example: ValidationExample) -> Trial | str:
            async with self._semaphore:
                return await self._trial(example, card)

        found = await gather_limited(one, examples, _MAX_IMAGES)
        trials = [each for each in found if isinstance(each, Trial)]
        if examples and not trials:
            raise UnansweredError(f"no image could be asked about; the first: {found[0]}")
        return trials

    async def _trial(self, example: ValidationExample, card: Card) -> Trial | str:
        """Return the decisions, or why there are none."""
        opened = await asyncio.to_thread(self._open, example)
        if isinstance(opened, str):
            return opened
        info, decoded_image = opened
        questions = [ask_yes_no(self._templates, card.name, each) for each in (None, card)]
        asked = [question.request for question in questions]
        responses = await self._vlm.ask_all(asked, decoded_image, info.fingerprint)
        failed = [response.failure for response in responses if response.failure is not None]
        if failed:
            return str(failed[0])
        first, second = (_decision(question, response) for question, response in zip(questions, responses, strict=True))
        return Trial(example.image.uri, first, second, example.proposed, example.present)

    def _open(self, example: ValidationExample) -> tuple[ImageInfo, DecodedImage] | str:
        try:
            data = self._validation_set.source.read(example.image)
        except ReadFailure as failure:
            return f"{example.image.uri}: {failure.message}"
        info, decoded_image = decode(data, self._max_pixels)
        return f"{example.image.uri}: {info.failure}" if decoded_image is None else (info, decoded_image)


def _decision(question: YesNoQuestion, response: Response) -> bool | None:
    """Return whether a decision is yes; None where the mass on yes and no is too small."""
    decision = question.verdict(response).decision
    return None if decision is Decision.UNKNOWN else decision is Decision.YES
