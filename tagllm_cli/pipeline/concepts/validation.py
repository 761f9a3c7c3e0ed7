"""The try-out: the bare question and the card's question on the same pictures; the card stays only if it helps.

With people's labels a card must correct more decisions than it breaks, and lose at most `Limits.lost` (a tenth) of the
yes answers that were right, and as many of the no answers. Without them nobody knows what is right; then a card must
leave every no alone where the label was never proposed, and must not say the same to every proposed picture where the
bare question told them apart, nor turn all of them, nor leave the model without a yes or no. A card that changes no
decision is not needed. Pictures that do not show the label at all prove nothing against a card.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tagllm_cli.labeling.templates import Template
from tagllm_cli.labeling.yes_no import YesNoQuestion, ask_yes_no
from tagllm_cli.pipeline.concepts.cached_model import Respondent, UnansweredError, together
from tagllm_cli.pipeline.concepts.validation_set import Exhibit, Gallery
from tagllm_cli.records import Decision, DecodedImage, ImageInfo, Response
from tagllm_cli.sources.decode import decode
from tagllm_cli.sources.registry import ReadFailure
from tagllm_cli.vocabulary.cards import Card, Wording

MOST_DISPUTED = 8
_PICTURES_AT_ONCE = 64  # over all labels; they are decoded in memory


@dataclass(frozen=True, slots=True)
class Limits:
    """What a card may cost: `lost` is the share, in [0, 1], of the decisions that were right and may become wrong."""

    lost: float = 0.1


@dataclass(frozen=True, slots=True)
class Trial:
    """One picture's two decisions, the bare name's and the card's: True is yes, None neither yes nor no, never right.

    `proposed` and `present` are those of the Exhibit.
    """

    uri: str
    bare: bool | None
    card: bool | None
    proposed: bool | None = None
    present: bool | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a card on the pictures.

    `gain` is decisions corrected less decisions broken, `errors` what is still wrong; None where nobody knows what is
    right. `disputed` are the pictures whose decision changes, at most 8.
    """

    kept: bool
    why: str
    gain: int | None = None
    errors: int | None = None
    disputed: tuple[str, ...] = ()


def judge(trials: Sequence[Trial], limits: Limits = Limits()) -> Verdict:
    """Decide about a card, by people's labels where there are any; `trials` may be empty: then it stays."""
    changed = [trial for trial in trials if trial.bare != trial.card]
    disputed = tuple(map(_dispute, changed[:MOST_DISPUTED]))
    known = [trial for trial in trials if trial.present is not None]
    kept, why = _by_truth(known, limits) if known else _by_restraint(trials, limits)
    gain = errors = None
    if known:
        errors = sum(trial.card != trial.present for trial in known)
        gain = sum(trial.bare != trial.present for trial in known) - errors
    return Verdict(kept, why, gain, errors, disputed)


def _by_truth(trials: Sequence[Trial], limits: Limits) -> tuple[bool, str]:
    changed = [trial for trial in trials if trial.bare != trial.card]
    if not changed:
        return False, f"not needed: it changes no decision on {len(trials)} pictures"
    corrected = sum(trial.card == trial.present for trial in changed)
    broken = sum(trial.bare == trial.present for trial in changed)
    counts = f"corrects {corrected} and breaks {broken} of {len(trials)} decisions"
    if corrected <= broken:
        return False, counts
    for answer in (True, False):
        right = [trial for trial in trials if trial.bare == trial.present == answer]
        lost = sum(trial.card != answer for trial in right)
        if lost > limits.lost * len(right):
            return False, f"{counts}, among them {lost} of {len(right)} that were rightly {_word(answer)}"
    return True, counts


def _by_restraint(trials: Sequence[Trial], limits: Limits) -> tuple[bool, str]:
    sides: dict[bool, list[Trial]] = {True: [], False: []}
    for trial in trials:
        sides[bool(trial.bare if trial.proposed is None else trial.proposed)].append(trial)
    proposed, others = sides[True], sides[False]
    silenced = sum(trial.card is None and trial.bare is not None for trial in trials)
    if silenced > limits.lost * len(trials):
        return False, f"leaves the model without a yes or no on {silenced} of {len(trials)} pictures"
    intruding = sum(bool(trial.card and not trial.bare) for trial in others)
    if intruding:
        return False, f"says yes to {intruding} of {len(others)} pictures where the label was never proposed"
    if not proposed:
        return True, "not seen on any picture, so judged by its text" if trials else "judged by its text"
    changed = sum(trial.bare != trial.card for trial in proposed)
    if not changed:
        return False, f"not needed: it changes no decision on {len(trials)} pictures"
    bare, said = {bool(trial.bare) for trial in proposed}, {bool(trial.card) for trial in proposed}
    if len(said) == 1 and (len(bare) == 2 or changed == len(proposed)):
        return False, f"says {_word(said.pop())} to all {len(proposed)} proposed pictures"
    if changed == len(proposed):
        return False, f"turns the decision on all {len(proposed)} proposed pictures"
    return True, f"changes {changed} of {len(proposed)} decisions where it was proposed, and none elsewhere"


def _dispute(trial: Trial) -> str:
    people = "" if trial.present is None else f", people say {_word(trial.present)}"
    return f"{trial.uri}: {_word(trial.bare)} -> {_word(trial.card)}{people}"


def _word(answer: bool | None) -> str:
    return {True: "yes", False: "no", None: "neither"}[answer]


class TryOut:
    """Asks about a label's pictures; answers come from the record where they are there."""

    def __init__(self, gallery: Gallery, seer: Respondent, templates: Mapping[str, Template], max_pixels: int) -> None:
        self._gallery, self._seer, self._max_pixels = gallery, seer, max_pixels
        self._templates = templates
        self._room = asyncio.Semaphore(_PICTURES_AT_ONCE)

    async def trials(self, name: str, wording: Wording) -> list[Trial]:
        """Return both decisions on each of the label's pictures that can be read and asked about.

        Raises UnansweredError where there are pictures and nothing at all could be said about any of them.
        """
        exhibits = self._gallery.samples.get(name, ())
        card = wording.card(name)

        async def one(exhibit: Exhibit) -> Trial | str:
            async with self._room:
                return await self._trial(exhibit, card)

        found = await together(one, exhibits, _PICTURES_AT_ONCE)
        trials = [each for each in found if isinstance(each, Trial)]
        if exhibits and not trials:
            raise UnansweredError(f"no picture could be tried; the first: {found[0]}")
        return trials

    async def _trial(self, exhibit: Exhibit, card: Card) -> Trial | str:
        """Return the decisions, or why there are none."""
        opened = await asyncio.to_thread(self._open, exhibit)
        if isinstance(opened, str):
            return opened
        info, decoded_image = opened
        questions = [ask_yes_no(self._templates, card.name, each) for each in (None, card)]
        asked = [question.request for question in questions]
        responses = await self._seer.answer(asked, decoded_image, info.fingerprint)
        failed = [response.failure for response in responses if response.failure is not None]
        if failed:
            return str(failed[0])
        first, second = (_decision(question, response) for question, response in zip(questions, responses, strict=True))
        return Trial(exhibit.image.uri, first, second, exhibit.proposed, exhibit.present)

    def _open(self, exhibit: Exhibit) -> tuple[ImageInfo, DecodedImage] | str:
        try:
            data = self._gallery.source.read(exhibit.image)
        except ReadFailure as failure:
            return f"{exhibit.image.uri}: {failure.message}"
        info, decoded_image = decode(data, self._max_pixels)
        return f"{exhibit.image.uri}: {info.failure}" if decoded_image is None else (info, decoded_image)


def _decision(question: YesNoQuestion, response: Response) -> bool | None:
    """Return whether a decision is yes; None where there is little mass on yes and no together."""
    decision = question.verdict(response).decision
    return None if decision is Decision.UNKNOWN else decision is Decision.YES
