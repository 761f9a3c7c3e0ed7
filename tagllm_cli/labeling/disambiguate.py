"""Label disambiguation by concept alignment: each candidate is asked about alone, with what the dataset means by it.

Source: TagLLM (Xie et al., arXiv 2602.20972).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from tagllm_cli.labeling.plan import Plan
from tagllm_cli.labeling.rows import RowContent, make_row, why_failed
from tagllm_cli.labeling.thresholds import Thresholds
from tagllm_cli.labeling.yes_no import YesNoQuestions
from tagllm_cli.records import Decision, Item, LabelEntry, Request, Response, Row
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

    def _live(self, item: Item) -> list[LabelEntry]:
        entries = [entry for entry in item.proposed or () if entry.name in self._position]
        return sorted(entries, key=lambda entry: self._position[entry.name])

    def requests(self, item: Item) -> Sequence[Request]:
        """Return one request for each candidate that the vocabulary still has."""
        return tuple(dict.fromkeys(self._questions.requests[entry.name] for entry in self._live(item)))

    def row(self, item: Item, responses: Sequence[Response | None]) -> Row:
        """Decide every candidate; a request that failed leaves its label `unknown`."""

        def read(responses: Sequence[Response]) -> RowContent:
            answers = dict(zip(self.requests(item), responses, strict=True))
            return tuple(self._decide(entry, answers) for entry in self._live(item)), ()

        # Candidates that are pending themselves are not the same as no candidates.
        return make_row(item, [None] if item.proposed is None else responses, read)

    def _decide(self, entry: LabelEntry, answers: Mapping[Request, Response]) -> LabelEntry:
        response = answers[self._questions.requests[entry.name]]
        if why_failed(response):
            return replace(entry, decision=Decision.UNKNOWN)
        said = self._questions.verdict(entry.name, response)
        score = entry.score if said.probability is None else said.probability
        return replace(entry, decision=said.decision, probability=said.probability, mass=said.mass, score=score)

    def complaint(self, responses: Sequence[tuple[Request, Response]]) -> str | None:
        """Judge a first sample: the probability must fall on yes and no."""
        return self._questions.complaint(responses)
