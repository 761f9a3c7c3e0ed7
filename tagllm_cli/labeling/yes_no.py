"""One yes/no question about one label, with what the dataset means by it, and the decision from its probabilities.

The decision comes from the log-probabilities of the first answer token, unguided, so that a model's doubt about the
question itself stays visible as mass outside yes and no.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tagllm_cli.labeling.answers.parse_list import render_names
from tagllm_cli.labeling.answers.parse_yes_no import YesNo, yes_no
from tagllm_cli.labeling.answers.sanity_check import complain_about_yes_no
from tagllm_cli.labeling.plan import Plan
from tagllm_cli.labeling.templates import Template
from tagllm_cli.labeling.thresholds import Thresholds
from tagllm_cli.records import Request, Response
from tagllm_cli.vocabulary.cards import Card

TOP_LOGPROBS = 20


@dataclass(frozen=True, slots=True)
class YesNoQuestion:
    """A question about one label, and the template with the forms of its answers."""

    request: Request
    template: Template

    def verdict(self, response: Response, threshold: float = 0.5, min_mass: float = 0.5) -> YesNo:
        """Return what an answer decides."""
        return yes_no(response.first_logprobs, self.template.yes, self.template.no, min_mass, threshold)


def ask_yes_no(templates: Mapping[str, Template], name: str, card: Card | None) -> YesNoQuestion:
    """Return the question about a label with what its card says; the bare one where that is nothing."""
    rendered = render_names([name])
    if card is None or not card.description:
        template = templates["verify"]
        return YesNoQuestion(template.request(TOP_LOGPROBS, name=rendered), template)
    template, similar = templates["verify_card"], render_names(card.similar)
    request = template.request(TOP_LOGPROBS, name=rendered, description=card.description, similar=similar)
    return YesNoQuestion(request, template)


class YesNoQuestions:
    """The question about each label of a plan's vocabulary; `cards` maps a label to its card (no card: bare)."""

    def __init__(self, plan: Plan, cards: Mapping[str, Card], thresholds: Thresholds) -> None:
        self._thresholds = thresholds
        self._questions = {name: ask_yes_no(plan.templates, name, cards.get(name)) for name in plan.vocabulary.names}
        self._templates = {question.request: question.template for question in self._questions.values()}
        self.requests: Mapping[str, Request] = {name: each.request for name, each in self._questions.items()}

    def verdict(self, name: str, response: Response) -> YesNo:
        """Return what an answer to the question about a label decides, by the label's own threshold."""
        limits = self._thresholds
        return self._questions[name].verdict(response, limits.of(name), limits.min_mass)

    def complaint(self, responses: Sequence[tuple[Request, Response]]) -> str | None:
        """Judge a first sample: the probability must fall on yes and no."""
        answers = [(request, response) for request, response in responses if response.failure is None]
        masses = [
            YesNoQuestion(request, self._templates[request]).verdict(response).mass for request, response in answers
        ]
        tokens = [response.first_logprobs for _, response in answers]
        return complain_about_yes_no(tokens, masses, [response.text for _, response in answers])
