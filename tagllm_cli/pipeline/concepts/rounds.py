"""The rounds: which labels are looked at, what becomes of them, and when it is enough.

What a round asks about a label depends on the vocabulary, the pictures and that label's history before the round, and
on nothing else: a round that was interrupted asks the same questions again, and finds the answers on record.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from tagllm_cli.labeling.answers.parse_json import UnusableAnswerError
from tagllm_cli.labeling.answers.parse_list import Lexicon
from tagllm_cli.pipeline.concepts import llm_prompts as dialogue
from tagllm_cli.pipeline.concepts.cached_model import UnansweredError, together
from tagllm_cli.pipeline.concepts.calibrate_label import UNDERSTOOD, CardWriter, Circle
from tagllm_cli.pipeline.concepts.card_store import PERSON, CardBook
from tagllm_cli.pipeline.concepts.validate_draft import Draft
from tagllm_cli.pipeline.progress import Reporter
from tagllm_cli.vocabulary.cards import Attempt
from tagllm_cli.vocabulary.forms import folded
from tagllm_cli.vocabulary.model import Label

_AT_ONCE = 16  # labels, and chunks of the vocabulary

Overlaps = Mapping[str, tuple[str, ...]]


class Rounds:
    """Rounds over one card book, where outcomes are, and on disk, as soon as they are known.

    Args:
        circle: with whom and what.
        book: the cards; those that are a person's affair are left alone.
        reporter: told about every label.
        only: look at these labels, found or not.
        waits: cards that pass wait for a person.
    """

    def __init__(
        self, circle: Circle, book: CardBook, reporter: Reporter, *, only: tuple[str, ...] = (), waits: bool = False
    ) -> None:
        self._circle, self._book, self._reporter = circle, book, reporter
        self._only, self._waits = only, waits
        self._writer = CardWriter(circle, book)
        self._lexicon = Lexicon(circle.vocabulary)
        self.unanswered: set[str] = set()  # labels of the last round about which a question got no answer
        self.unsearched: set[str] = set()  # labels of the last round that nobody said anything about
        self.tried: set[str] = set()

    async def run(self, first: int, most: int) -> int:
        """Go through rounds `first`, `first + 1`, ..., at most so many, and return how many there were.

        A round that keeps no card and brings no draft that was not heard before is the last.
        """
        for number in range(first, first + most):
            self.unanswered, self.unsearched = set(), set()
            overlaps = await self._find(number)
            targets = self._targets(number, overlaps)
            self.tried.update(targets)
            await self._write(number, targets, overlaps)
            if not brought_news([self._book.history(name) for name in self._circle.vocabulary.names], number):
                return number - first + 1
        return most

    async def _find(self, number: int) -> Overlaps:
        """Return the labels to look at, each with those that it may overlap with."""
        if self._only:
            return dict.fromkeys(self._only, ())
        found = {name: confusion.causes for name, confusion in self._circle.confusions.items()}
        chunks = [
            labels
            for labels in dialogue.chunks(self._circle.vocabulary)
            if not all(self._book.is_decided(label.name) for label in labels)
        ]
        for answer in await together(lambda labels: self._search(number, labels), chunks, _AT_ONCE):
            for name, others in answer.items():
                found[name] = tuple(dict.fromkeys((*others, *found.get(name, ()))))
        return found

    async def _search(self, number: int, labels: Sequence[Label]) -> Overlaps:
        """Ask the LLM about some labels; an answer that is no use is a warning, and the others go on."""
        circle = self._circle
        said = {label.name: self._book.wording_before(label.name, number) for label in labels}
        known = {name: wording for name, wording in said.items() if wording is not None}
        question = dialogue.ask_what_is_ambiguous(circle.templates["concept_find"], circle.vocabulary, labels, known)
        try:
            return dialogue.read_ambiguous(await circle.llm.say(question), self._lexicon)
        except (UnansweredError, UnusableAnswerError) as error:
            if isinstance(error, UnansweredError):
                self.unsearched.update(label.name for label in labels)
            which = f"{labels[0].name} to {labels[-1].name}"
            self._reporter.warn(f"round {number}: no ambiguous names are known among {which}: {error}")
            return {}

    def _targets(self, number: int, overlaps: Overlaps) -> list[str]:
        """Return the labels that are still to be looked at in this round, in the vocabulary's order."""
        book, targets = self._book, []
        for name in self._circle.vocabulary.names:
            history = book.history(name)
            before = [attempt for attempt in history if attempt.round < number]
            failed = bool(before) and book.wording_before(name, number) is None
            is_open = (name in overlaps or (failed and not self._only)) and len(before) == len(history)
            waits = name in book.proposed and not self._waits
            settled = _is_understood(before) and name not in self._circle.confusions
            if is_open and not settled and not waits and not book.is_decided(name):
                targets.append(name)
        return targets

    async def _write(self, number: int, targets: Sequence[str], overlaps: Overlaps) -> None:
        """Draft every target's card, then check the drafts: by then it is known which of them say the same."""

        async def draft(name: str) -> Draft | None:
            try:
                found = await self._writer.draft(name, overlaps.get(name, ()), number)
            except UnansweredError as error:
                self._leave(name, number, error)
                return None
            if isinstance(found, Attempt):
                self._record(name, found)
                return None
            return found

        drafts = [each for each in await together(draft, targets, _AT_ONCE) if each is not None]
        taken = self._taken(number, drafts)

        async def check(found: Draft) -> None:
            try:
                if taken[folded(found.wording.description)] > 1:
                    why = "another label has the same description"
                    attempt = self._writer.attempt(found, number, kept=False, why=why)
                else:
                    attempt = await self._writer.check(found, number)
                self._record(found.name, attempt)
            except UnansweredError as error:
                self._leave(found.name, number, error)

        await together(check, drafts, _AT_ONCE)

    def _taken(self, number: int, drafts: Sequence[Draft]) -> Counter[str]:
        """Count the labels that each description stands for: those of other labels' cards, and all of this round."""
        said: dict[str, set[str]] = {each.name: {each.wording.description} for each in drafts}
        for name in self._circle.vocabulary.names:
            tried = {attempt.wording.description for attempt in self._book.history(name) if attempt.round == number}
            before = self._book.wording_before(name, number)
            said.setdefault(name, set()).update(tried, {before.description} if before is not None else ())
        return Counter(form for texts in said.values() for form in set(map(folded, texts)) if form)

    def _record(self, name: str, attempt: Attempt) -> None:
        self._book.record(name, attempt, waits=self._waits)
        outcome = "a card" if attempt.kept else "no new card" if name in self._book.cards else "no card"
        self._reporter.note(f"round {attempt.round}: {name}: {outcome}: {attempt.why}")

    def _leave(self, name: str, number: int, error: UnansweredError) -> None:
        self.unanswered.add(name)
        self._book.leave(name, f"no answer: {error}", number)
        self._reporter.warn(f"round {number}: {name}: no answer: {error}")


def brought_news(histories: Sequence[Sequence[Attempt]], number: int) -> bool:
    """Tell whether round `number` kept a card, or failed with a draft or for a reason that is new to its label."""
    for history in histories:
        ours = [attempt for attempt in history if attempt.author != PERSON]
        before = {(attempt.wording, attempt.why) for attempt in ours if attempt.round < number}
        now = [attempt for attempt in ours if attempt.round == number]
        if any(each.kept or (not _is_understood(now) and (each.wording, each.why) not in before) for each in now):
            return True
    return False


def _is_understood(history: Sequence[Attempt]) -> bool:
    """Tell whether the last attempt found that the bare name means to the model what the dataset means."""
    return bool(history) and not history[-1].kept and history[-1].why.startswith(UNDERSTOOD)
