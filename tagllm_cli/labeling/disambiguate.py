"""Label disambiguation by concept alignment: each candidate is asked about alone, with what the dataset means by it.

Source: TagLLM (Xie et al., arXiv 2602.20972).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from tagllm_cli.labeling.plan import Plan
from tagllm_cli.labeling.rows import Said, make_row, why_failed
from tagllm_cli.labeling.yes_no import Thresholds, YesNoQuestions
from tagllm_cli.records import Decision, LabelEntry, Reply, Request, Row, Subject
from tagllm_cli.vocabulary.cards import Card

__all__ = ["Disambiguate", "Thresholds"]


class Disambiguate:
    """The stage under a pinned plan; `cards` maps a label name to its concept card (no card: the bare question)."""

    def __init__(
        self,
        plan: Plan,
        cards: Mapping[str, Card],
        thresholds: Thresholds = Thresholds(),  # noqa: B008 (frozen)
    ) -> None:
        self._position = {name: index for index, name in enumerate(plan.vocabulary.names)}
        self._questions = YesNoQuestions(plan, cards, thresholds)

    def _live(self, subject: Subject) -> list[LabelEntry]:
        entries = [entry for entry in subject.proposed or () if entry.name in self._position]
        return sorted(entries, key=lambda entry: self._position[entry.name])

    def requests(self, subject: Subject) -> Sequence[Request]:
        """Return one request for each candidate that the vocabulary still has."""
        return tuple(dict.fromkeys(self._questions.requests[entry.name] for entry in self._live(subject)))

    def row(self, subject: Subject, replies: Sequence[Reply | None]) -> Row:
        """Decide every candidate; a request that failed leaves its label `unknown`."""

        def read(replies: Sequence[Reply]) -> Said:
            answers = dict(zip(self.requests(subject), replies, strict=True))
            return tuple(self._decide(entry, answers) for entry in self._live(subject)), ()

        # Candidates that are pending themselves are not the same as no candidates.
        return make_row(subject, [None] if subject.proposed is None else replies, read)

    def _decide(self, entry: LabelEntry, answers: Mapping[Request, Reply]) -> LabelEntry:
        request = self._questions.requests[entry.name]
        reply = answers[request]
        if why_failed(reply):
            return replace(entry, decision=Decision.UNKNOWN)
        said = self._questions.verdict(request, reply)
        score = entry.score if said.probability is None else said.probability
        return replace(entry, decision=said.decision, probability=said.probability, mass=said.mass, score=score)

    def complaint(self, replies: Sequence[tuple[Request, Reply]]) -> str | None:
        """Judge a first sample: the probability must fall on yes and no."""
        return self._questions.complaint(replies)
