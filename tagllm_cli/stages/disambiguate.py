"""Label disambiguation by concept alignment: each candidate is asked about alone, with what the dataset means by it.

The decision comes from the log-probabilities of the first answer token, unguided, so that a model's doubt about the
question itself stays visible as mass outside yes and no. Source: TagLLM (Xie et al., arXiv 2602.20972).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tagllm_cli.answers import YesNo, render_names, yes_no
from tagllm_cli.cards import Card
from tagllm_cli.plan import Plan
from tagllm_cli.preflight import complain_about_yes_no
from tagllm_cli.prompts import Template
from tagllm_cli.schema import Decision, LabelEntry, Reply, Request, Row, Status, Subject

TOP_LOGPROBS = 20


@dataclass(frozen=True, slots=True)
class Thresholds:
    """When a probability decides: `yes` above `threshold`; `unknown` below `min_mass` on yes and no. Both in [0, 1]."""

    threshold: float = 0.5
    min_mass: float = 0.5


class Disambiguate:
    """The stage under a pinned plan; `cards` maps a label name to its concept card (no card: the bare question)."""

    def __init__(self, plan: Plan, cards: Mapping[str, Card], thresholds: Thresholds = Thresholds()) -> None:
        self._plan = plan
        self._thresholds = thresholds
        self._position = {name: index for index, name in enumerate(plan.vocabulary.names)}
        self._templates: dict[Request, Template] = {}
        self._requests = {name: self._ask(name, cards.get(name)) for name in plan.vocabulary.names}

    def _ask(self, name: str, card: Card | None) -> Request:
        rendered = render_names([name])
        if card is None or not card.description:
            template = self._plan.templates["verify"]
            request = template.request(TOP_LOGPROBS, name=rendered)
        else:
            template = self._plan.templates["verify_card"]
            similar = render_names(card.similar)
            request = template.request(TOP_LOGPROBS, name=rendered, description=card.description, similar=similar)
        self._templates[request] = template
        return request

    def _live(self, subject: Subject) -> list[LabelEntry]:
        entries = [entry for entry in subject.proposed or () if entry.name in self._position]
        return sorted(entries, key=lambda entry: self._position[entry.name])

    def requests(self, subject: Subject) -> Sequence[Request]:
        """Return one request for each candidate that the vocabulary still has."""
        return tuple(dict.fromkeys(self._requests[entry.name] for entry in self._live(subject)))

    def row(self, subject: Subject, replies: Sequence[Reply | None]) -> Row:
        """Decide every candidate; a request that failed leaves its label `unknown`."""
        seen = subject.seen
        if seen is not None and seen.failure is not None:
            return Row.of(subject, Status.FAILED, str(seen.failure))
        answered = dict(zip(self.requests(subject), replies, strict=True))
        if seen is None or subject.proposed is None or None in answered.values():
            return Row.of(subject, Status.PENDING)
        failures = [reply.failure for reply in answered.values() if reply is not None and reply.failure is not None]
        if failures and len(failures) == len(answered):
            return Row.of(
                subject, Status.FAILED, f"request_failed: all {len(answered)} requests failed, the first: {failures[0]}"
            )
        labels = tuple(self._decide(entry, answered) for entry in self._live(subject))
        if failures:
            error = f"request_failed: {len(failures)} of {len(answered)} requests failed, the first: {failures[0]}"
            return Row.of(subject, Status.PARTIAL, error, labels, ())
        return Row.of(subject, Status.OK, None, labels, ())

    def _decide(self, entry: LabelEntry, answered: Mapping[Request, Reply | None]) -> LabelEntry:
        request = self._requests[entry.name]
        reply = answered[request]
        if reply is None or reply.failure is not None:
            return replace(entry, decision=Decision.UNKNOWN)
        verdict = self._verdict(request, reply)
        score = entry.score if verdict.probability is None else verdict.probability
        return replace(
            entry, decision=verdict.decision, probability=verdict.probability, mass=verdict.mass, score=score
        )

    def _verdict(self, request: Request, reply: Reply) -> YesNo:
        template, limits = self._templates[request], self._thresholds
        return yes_no(
            reply.first_logprobs, template.yes, template.no, min_mass=limits.min_mass, threshold=limits.threshold
        )

    def complaint(self, replies: Sequence[tuple[Request, Reply]]) -> str | None:
        """Judge a first sample: the probability must fall on yes and no."""
        answers = [(request, reply) for request, reply in replies if reply.failure is None]
        masses = [self._verdict(request, reply).mass for request, reply in answers]
        tokens = [reply.first_logprobs for _, reply in answers]
        return complain_about_yes_no(tokens, masses, [reply.text for _, reply in answers])
