"""One label in one round: a draft from the LLM, and the checks that it must pass to become a card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tagllm_cli.labeling.answers.parse_json import UnusableAnswerError
from tagllm_cli.labeling.answers.parse_list import Lexicon, render_names
from tagllm_cli.labeling.templates import Template
from tagllm_cli.pipeline.concepts import llm_prompts
from tagllm_cli.pipeline.concepts.cached_model import CachedModel, UnansweredError
from tagllm_cli.pipeline.concepts.card_store import HUMAN, CardStore
from tagllm_cli.pipeline.concepts.llm_prompts import LabelFacts
from tagllm_cli.pipeline.concepts.validate_draft import Draft, check_draft
from tagllm_cli.pipeline.concepts.validation import Validator, Verdict, judge
from tagllm_cli.pipeline.concepts.validation_set import Confusion
from tagllm_cli.vocabulary.cards import Attempt, Wording
from tagllm_cli.vocabulary.model import Vocabulary

UNDERSTOOD = "no card needed: to the model the bare name means the same"
_EARLIER_SHOWN = 3


@dataclass(frozen=True, slots=True)
class CalibrationContext:
    """Models, templates and validation images of a calibration.

    `vlm` is the multimodal model; `validator` asks it about images, None without any. `confusions` are the labels that
    it is known to confuse. `today` is the date in the history.
    """

    vocabulary: Vocabulary
    templates: Mapping[str, Template]
    llm: CachedModel
    vlm: CachedModel | None = None
    validator: Validator | None = None
    confusions: Mapping[str, Confusion] = field(default_factory=dict)
    today: str = ""


class CardWriter:
    """Drafts cards and checks drafts; the caller records the outcome."""

    def __init__(self, context: CalibrationContext, store: CardStore) -> None:
        self._context, self._store = context, store
        self._lexicon = Lexicon(context.vocabulary)
        self._labels = {label.name: label for label in context.vocabulary.labels}

    async def draft(self, name: str, overlaps: tuple[str, ...], number: int) -> Draft | Attempt | None:
        """Return a draft; a failed attempt where the response was unusable; None where the present card has no errors.

        Raises UnansweredError where a request failed.
        """
        current = self._store.wording_before(name, number)
        if current is not None and not await self._has_errors(name, current):
            return None
        reading = await self._reading(name)
        confusion = self._context.confusions.get(name)
        earlier = [each for each in self._store.history(name) if each.round < number and each.author != HUMAN]
        facts = LabelFacts(
            self._labels[name],
            overlaps,
            reading,
            confusion.sentence(name) if confusion else "",
            tuple(earlier[-_EARLIER_SHOWN:]),
        )
        question = llm_prompts.ask_for_a_card(self._context.templates["concept_draft"], self._context.vocabulary, facts)
        response = await self._context.llm.ask(question)
        try:
            return check_draft(llm_prompts.read_card(response), name, self._lexicon, reading)
        except UnusableAnswerError as error:
            return self.attempt(Draft(name, Wording(), reading), number, kept=False, why=str(error))

    async def check(self, draft: Draft, number: int) -> Attempt:
        """Return the outcome of a draft: compared with the model's reading, round-trip checked, validated on images.

        Raises UnansweredError where a request failed.
        """
        name, current = draft.name, self._store.wording_before(draft.name, number)
        relation = await self._relation(draft)
        if relation == "same" and current is None and name not in self._context.confusions:
            return self.attempt(draft, number, kept=False, why=UNDERSTOOD, relation=relation)
        failed = await self._round_trip(draft)
        if failed:
            return self.attempt(draft, number, kept=False, why=failed, relation=relation)
        verdict = await self._verdict(name, draft.wording)
        kept, why = verdict.kept, verdict.why
        if kept and current is not None:
            before = await self._verdict(name, current)
            if verdict.gain is None or before.gain is None or verdict.gain <= before.gain:
                kept, why = False, f"{why}, which is no better than the present card ({before.why})"
        return self.attempt(draft, number, kept=kept, why=why, relation=relation, disputed=verdict.disputed)

    def attempt(
        self,
        draft: Draft,
        number: int,
        *,
        kept: bool,
        why: str,
        relation: str = "",
        disputed: tuple[str, ...] = (),
    ) -> Attempt:
        """Return a draft's entry in the history."""
        why = f"{why} ({draft.note})" if draft.note else why
        context = self._context
        return Attempt(
            number, context.llm.name, draft.wording, kept, why, context.today, draft.reading, relation, disputed
        )

    async def _has_errors(self, name: str, current: Wording) -> bool:
        """Return whether a card decides wrongly on any validation image: only then can another one do better."""
        return bool((await self._verdict(name, current)).errors)

    async def _verdict(self, name: str, wording: Wording) -> Verdict:
        validator = self._context.validator
        return judge([] if validator is None else await validator.compare(name, wording))

    async def _reading(self, name: str) -> str:
        """Return what the bare name means to the VLM; "" where it does not say."""
        if self._context.vlm is None:
            return ""
        try:
            response = await self._context.vlm.ask(
                self._context.templates["meaning"].request(name=render_names([name]))
            )
            return llm_prompts.read_meaning(response)
        except (UnansweredError, UnusableAnswerError):
            return ""

    async def _relation(self, draft: Draft) -> str:
        if not draft.reading:
            return ""
        template = self._context.templates["concept_compare"]
        question = llm_prompts.ask_to_compare(template, draft.name, draft.wording, draft.reading)
        try:
            return llm_prompts.read_relation(await self._context.llm.ask(question))
        except UnusableAnswerError:
            return ""

    async def _round_trip(self, draft: Draft) -> str:
        """Return why a description does not lead back to its own label; "" where it does."""
        template = self._context.templates["concept_name"]
        choice = llm_prompts.round_trip_choices(self._context.vocabulary, draft.name, draft.wording.similar)
        question = llm_prompts.ask_round_trip(template, draft.wording, draft.name, choice)
        try:
            named = llm_prompts.read_naming(template, await self._context.llm.ask(question), self._lexicon)
        except UnusableAnswerError as error:
            return f"round-trip check failed: {error}"
        if named == (draft.name,):
            return ""
        return f"round-trip check: the description reads like {render_names(named) if named else 'none of the labels'}"
