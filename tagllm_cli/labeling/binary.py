"""Candidate generation by one yes/no question per label: exhaustive, precise and slow. A baseline of group-wise asking.

Each question is exactly the one that `disambiguate` asks without a concept card.
"""

from __future__ import annotations

from collections.abc import Sequence

from tagllm_cli.labeling.plan import Plan
from tagllm_cli.labeling.rows import RowContent, make_row, why_failed
from tagllm_cli.labeling.thresholds import Thresholds
from tagllm_cli.labeling.yes_no import YesNoQuestions
from tagllm_cli.records import Decision, Item, LabelEntry, Request, Response, Row


class Binary:
    """The stage under a pinned plan of strategy `binary`."""

    def __init__(self, plan: Plan, thresholds: Thresholds = Thresholds()) -> None:  # noqa: B008 (frozen)
        self._arms = tuple(plan.arms)
        self._questions = YesNoQuestions(plan, {}, thresholds)
        self._requests = tuple(dict.fromkeys(self._questions.requests.values()))

    def requests(self, item: Item) -> Sequence[Request]:
        """Return one request for every label; the same for each image."""
        return self._requests

    def row(self, item: Item, responses: Sequence[Response | None]) -> Row:
        """List every label with its probability: decision null for a candidate, `no`, or `unknown` where it failed."""
        return make_row(item, responses, self._read)

    def _read(self, responses: Sequence[Response]) -> RowContent:
        answers = dict(zip(self._requests, responses, strict=True))
        asked = self._questions.requests.items()
        return tuple(self._entry(name, answers[request]) for name, request in asked), ()

    def _entry(self, name: str, response: Response) -> LabelEntry:
        if why_failed(response):
            return LabelEntry(name, Decision.UNKNOWN)
        said = self._questions.verdict(name, response)
        if said.decision is Decision.YES:
            return LabelEntry(name, None, said.probability, said.mass, said.probability or 0.0, self._arms)
        return LabelEntry(name, said.decision, said.probability, said.mass, said.probability or 0.0)

    def complaint(self, responses: Sequence[tuple[Request, Response]]) -> str | None:
        """Judge a first sample: the probability must fall on yes and no."""
        return self._questions.complaint(responses)
