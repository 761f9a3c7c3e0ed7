"""One label's way to a card in one round: a draft from the LLM, and every check that it has to survive."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tagllm_cli.labeling.answers.parse_json import UnusableAnswerError
from tagllm_cli.labeling.answers.parse_list import Lexicon, render_names
from tagllm_cli.labeling.templates import Template
from tagllm_cli.pipeline.concepts import llm_prompts as dialogue
from tagllm_cli.pipeline.concepts.cached_model import Respondent, UnansweredError
from tagllm_cli.pipeline.concepts.card_store import PERSON, CardBook
from tagllm_cli.pipeline.concepts.llm_prompts import Brief
from tagllm_cli.pipeline.concepts.validate_draft import Draft, validated
from tagllm_cli.pipeline.concepts.validation import TryOut, Verdict, judge
from tagllm_cli.pipeline.concepts.validation_set import Confusion
from tagllm_cli.vocabulary.cards import Attempt, Wording
from tagllm_cli.vocabulary.model import Vocabulary

UNDERSTOOD = "no card needed: to the model the bare name means the same"
_EARLIER_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Circle:
    """Who and what cards are written with.

    `seer` is the model that looks at pictures, `tryout` its pictures; None where there are none. `confusions` are the
    labels that it is known to confuse. `today` is the date in the history.
    """

    vocabulary: Vocabulary
    templates: Mapping[str, Template]
    llm: Respondent
    seer: Respondent | None = None
    tryout: TryOut | None = None
    confusions: Mapping[str, Confusion] = field(default_factory=dict)
    today: str = ""


class CardWriter:
    """Drafts and checks; what comes of it is returned, and recorded by others."""

    def __init__(self, circle: Circle, book: CardBook) -> None:
        self._circle, self._book = circle, book
        self._lexicon = Lexicon(circle.vocabulary)
        self._labels = {label.name: label for label in circle.vocabulary.labels}

    async def draft(self, name: str, overlaps: tuple[str, ...], number: int) -> Draft | Attempt | None:
        """Return a draft; an attempt where the answer was no use; None where the card that is there cannot be bettered.

        Raises UnansweredError where the LLM gave no answer.
        """
        current = self._book.wording_before(name, number)
        if current is not None and not await self._is_wrong_somewhere(name, current):
            return None
        reading = await self._reading(name)
        confusion = self._circle.confusions.get(name)
        earlier = [each for each in self._book.history(name) if each.round < number and each.author != PERSON]
        brief = Brief(
            self._labels[name],
            overlaps,
            reading,
            confusion.sentence(name) if confusion else "",
            tuple(earlier[-_EARLIER_SHOWN:]),
        )
        question = dialogue.ask_for_a_card(self._circle.templates["concept_draft"], self._circle.vocabulary, brief)
        response = await self._circle.llm.say(question)
        try:
            return validated(dialogue.read_card(response), name, self._lexicon, reading)
        except UnusableAnswerError as error:
            return self.attempt(Draft(name, Wording(), reading), number, kept=False, why=str(error))

    async def check(self, draft: Draft, number: int) -> Attempt:
        """Return what becomes of a draft: compared with the model's reading, named blindly, tried on pictures.

        Raises UnansweredError where a question got no answer.
        """
        name, current = draft.name, self._book.wording_before(draft.name, number)
        relation = await self._relation(draft)
        if relation == "same" and current is None and name not in self._circle.confusions:
            return self.attempt(draft, number, kept=False, why=UNDERSTOOD, relation=relation)
        mistaken = await self._mistaken(draft)
        if mistaken:
            return self.attempt(draft, number, kept=False, why=mistaken, relation=relation)
        verdict = await self._verdict(name, draft.wording)
        kept, why = verdict.kept, verdict.why
        if kept and current is not None:
            before = await self._verdict(name, current)
            if verdict.gain is None or before.gain is None or verdict.gain <= before.gain:
                kept, why = False, f"{why}, which is no better than the card that is there ({before.why})"
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
        """Return the entry of the history that a draft makes."""
        why = f"{why} ({draft.note})" if draft.note else why
        circle = self._circle
        return Attempt(
            number, circle.llm.name, draft.wording, kept, why, circle.today, draft.reading, relation, disputed
        )

    async def _is_wrong_somewhere(self, name: str, current: Wording) -> bool:
        """Tell whether pictures show that a card errs: only then another one can do better."""
        return bool((await self._verdict(name, current)).errors)

    async def _verdict(self, name: str, wording: Wording) -> Verdict:
        tryout = self._circle.tryout
        return judge([] if tryout is None else await tryout.trials(name, wording))

    async def _reading(self, name: str) -> str:
        """Return what the bare name means to the model that sees; "" where it does not say."""
        if self._circle.seer is None:
            return ""
        try:
            response = await self._circle.seer.say(self._circle.templates["meaning"].request(name=render_names([name])))
            return dialogue.read_meaning(response)
        except (UnansweredError, UnusableAnswerError):
            return ""

    async def _relation(self, draft: Draft) -> str:
        if not draft.reading:
            return ""
        template = self._circle.templates["concept_compare"]
        question = dialogue.ask_to_compare(template, draft.name, draft.wording, draft.reading)
        try:
            return dialogue.read_relation(await self._circle.llm.say(question))
        except UnusableAnswerError:
            return ""

    async def _mistaken(self, draft: Draft) -> str:
        """Return which label the description leads to instead of its own, as a reason against it; "" if to its own."""
        template = self._circle.templates["concept_name"]
        choice = dialogue.names_to_choose_from(self._circle.vocabulary, draft.name, draft.wording.similar)
        question = dialogue.ask_blindly(template, draft.wording, draft.name, choice)
        try:
            named = dialogue.read_naming(template, await self._circle.llm.say(question), self._lexicon)
        except UnusableAnswerError as error:
            return f"blind naming failed: {error}"
        if named == (draft.name,):
            return ""
        return f"blind naming: the description reads like {render_names(named) if named else 'none of the labels'}"
