"""Rounds of calibration: which labels are calibrated, in which order, and when to stop.

What a round asks about a label depends on the vocabulary, the images and that label's history before the round, and on
nothing else: a round that was interrupted sends the same requests again, and finds the responses recorded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from tagllm_cli.labeling.answers.parse_json import UnusableAnswerError
from tagllm_cli.labeling.answers.parse_list import Lexicon
from tagllm_cli.pipeline.concepts import llm_prompts
from tagllm_cli.pipeline.concepts.cached_model import UnansweredError, gather_limited
from tagllm_cli.pipeline.concepts.calibrate_label import UNDERSTOOD, CalibrationContext, CardWriter
from tagllm_cli.pipeline.concepts.card_store import HUMAN, CardStore
from tagllm_cli.pipeline.concepts.validate_draft import Draft
from tagllm_cli.pipeline.progress import Reporter
from tagllm_cli.vocabulary.cards import Attempt
from tagllm_cli.vocabulary.forms import folded
from tagllm_cli.vocabulary.model import Label

_AT_ONCE = 16  # labels, and chunks of the vocabulary

Overlaps = Mapping[str, tuple[str, ...]]


class Rounds:
    """Rounds over one card store, which records every outcome as soon as it is known.

    Args:
        context: models, templates, validation images.
        store: the cards; those that a human decided about are left alone.
        reporter: told about every label.
        only: calibrate these labels, whether or not they are found ambiguous.
        waits: cards that pass wait for review.
    """

    def __init__(
        self,
        context: CalibrationContext,
        store: CardStore,
        reporter: Reporter,
        *,
        only: tuple[str, ...] = (),
        waits: bool = False,
    ) -> None:
        self._context, self._store, self._reporter = context, store, reporter
        self._only, self._waits = only, waits
        self._writer = CardWriter(context, store)
        self._lexicon = Lexicon(context.vocabulary)
        self.unanswered: set[str] = set()  # labels of the last round with a failed request
        self.unsearched: set[str] = set()  # labels of the last round whose search request failed
        self.calibrated: set[str] = set()

    async def run(self, first: int, limit: int) -> int:
        """Run up to `limit` rounds, `first`, `first + 1`, ..., and return how many ran.

        A round that keeps no card and brings no new draft is the last.
        """
        for number in range(first, first + limit):
            self.unanswered, self.unsearched = set(), set()
            overlaps = await self._find(number)
            targets = self._targets(number, overlaps)
            self.calibrated.update(targets)
            await self._write(number, targets, overlaps)
            if not has_new_outcome([self._store.history(name) for name in self._context.vocabulary.names], number):
                return number - first + 1
        return limit

    async def _find(self, number: int) -> Overlaps:
        """Return the ambiguous labels, each with those that it may overlap."""
        if self._only:
            return dict.fromkeys(self._only, ())
        found = {name: confusion.causes for name, confusion in self._context.confusions.items()}
        chunks = [
            labels
            for labels in llm_prompts.split_labels(self._context.vocabulary)
            if not all(self._store.is_settled(label.name) for label in labels)
        ]
        for answer in await gather_limited(lambda labels: self._search(number, labels), chunks, _AT_ONCE):
            for name, others in answer.items():
                found[name] = tuple(dict.fromkeys((*others, *found.get(name, ()))))
        return found

    async def _search(self, number: int, labels: Sequence[Label]) -> Overlaps:
        """Ask the LLM about some labels; an unusable response is a warning."""
        context = self._context
        before = {label.name: self._store.wording_before(label.name, number) for label in labels}
        known = {name: wording for name, wording in before.items() if wording is not None}
        question = llm_prompts.ask_what_is_ambiguous(
            context.templates["concept_find"], context.vocabulary, labels, known
        )
        try:
            return llm_prompts.read_ambiguous(await context.llm.ask(question), self._lexicon)
        except (UnansweredError, UnusableAnswerError) as error:
            if isinstance(error, UnansweredError):
                self.unsearched.update(label.name for label in labels)
            which = f"{labels[0].name} to {labels[-1].name}"
            self._reporter.warn(f"round {number}: no ambiguous names are known among {which}: {error}")
            return {}

    def _targets(self, number: int, overlaps: Overlaps) -> list[str]:
        """Return the labels still to be calibrated in this round, in the vocabulary's order."""
        store, targets = self._store, []
        for name in self._context.vocabulary.names:
            history = store.history(name)
            before = [attempt for attempt in history if attempt.round < number]
            failed = bool(before) and store.wording_before(name, number) is None
            is_open = (name in overlaps or (failed and not self._only)) and len(before) == len(history)
            waits = name in store.proposed and not self._waits
            settled = _is_understood(before) and name not in self._context.confusions
            if is_open and not settled and not waits and not store.is_settled(name):
                targets.append(name)
        return targets

    async def _write(self, number: int, targets: Sequence[str], overlaps: Overlaps) -> None:
        """Draft every target's card, then check the drafts, when it is known which descriptions are duplicates."""

        async def draft(name: str) -> Draft | None:
            try:
                found = await self._writer.draft(name, overlaps.get(name, ()), number)
            except UnansweredError as error:
                self._record_unanswered(name, number, error)
                return None
            if isinstance(found, Attempt):
                self._record(name, found)
                return None
            return found

        drafts = [each for each in await gather_limited(draft, targets, _AT_ONCE) if each is not None]
        uses = self._description_uses(number, drafts)

        async def check(found: Draft) -> None:
            try:
                if uses[folded(found.wording.description)] > 1:
                    why = "another label has the same description"
                    attempt = self._writer.attempt(found, number, kept=False, why=why)
                else:
                    attempt = await self._writer.check(found, number)
                self._record(found.name, attempt)
            except UnansweredError as error:
                self._record_unanswered(found.name, number, error)

        await gather_limited(check, drafts, _AT_ONCE)

    def _description_uses(self, number: int, drafts: Sequence[Draft]) -> Counter[str]:
        """Count the labels of each folded description, over earlier cards and this round's drafts."""
        found: dict[str, set[str]] = {each.name: {each.wording.description} for each in drafts}
        for name in self._context.vocabulary.names:
            tried = {attempt.wording.description for attempt in self._store.history(name) if attempt.round == number}
            before = self._store.wording_before(name, number)
            found.setdefault(name, set()).update(tried, {before.description} if before is not None else ())
        return Counter(form for texts in found.values() for form in set(map(folded, texts)) if form)

    def _record(self, name: str, attempt: Attempt) -> None:
        self._store.record(name, attempt, waits=self._waits)
        outcome = "a card" if attempt.kept else "no new card" if name in self._store.cards else "no card"
        self._reporter.note(f"round {attempt.round}: {name}: {outcome}: {attempt.why}")

    def _record_unanswered(self, name: str, number: int, error: UnansweredError) -> None:
        self.unanswered.add(name)
        self._store.record_unanswered(name, f"no answer: {error}", number)
        self._reporter.warn(f"round {number}: {name}: no answer: {error}")


def has_new_outcome(histories: Sequence[Sequence[Attempt]], number: int) -> bool:
    """Return whether round `number` kept a card, or failed with a draft or for a reason that is new to its label."""
    for history in histories:
        ours = [attempt for attempt in history if attempt.author != HUMAN]
        before = {(attempt.wording, attempt.why) for attempt in ours if attempt.round < number}
        now = [attempt for attempt in ours if attempt.round == number]
        if any(each.kept or (not _is_understood(now) and (each.wording, each.why) not in before) for each in now):
            return True
    return False


def _is_understood(history: Sequence[Attempt]) -> bool:
    """Return whether the last attempt found that the bare name means to the model what the dataset means."""
    return bool(history) and not history[-1].kept and history[-1].why.startswith(UNDERSTOOD)
