"""Candidate generation by list questions: structured group-wise prompting, high recall in few requests.

The vocabulary is cut into groups, in one or several ways (arms). Each request shows the image and one group; the arms'
answers are united. Source: TagLLM (Xie et al., arXiv 2602.20972), section on structured group-wise prompting. Its
baselines ask one list question: about the whole vocabulary (`all`), or about anything at all (`open`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache

from tagllm_cli.labeling.answers.parse_list import Lexicon, Parsed, parse_names, render_names
from tagllm_cli.labeling.answers.sanity_check import ListAnswers, complain_about_lists
from tagllm_cli.labeling.plan import STRATEGIES, Plan
from tagllm_cli.labeling.rows import RowContent, make_row, unreadable, why_failed
from tagllm_cli.records import Decision, Item, LabelEntry, Request, Response, Row
from tagllm_cli.vocabulary.model import Label, Vocabulary

TRUNCATED = "length"


class Candidates:
    """The stage under a pinned plan whose questions are answered with a list, that is, of any strategy but `binary`.

    `min_votes` is the number of arms that must propose a label.
    """

    def __init__(self, plan: Plan, min_votes: int = 1) -> None:
        self._plan = plan
        self._min_votes = min_votes
        self._template = plan.templates[STRATEGIES[plan.strategy]]
        self._names_labels = plan.strategy != "open"
        self._lexicon = Lexicon(plan.vocabulary)
        self._names = frozenset(plan.vocabulary.names)
        asked = dict.fromkeys(name for groups in plan.arms.values() for group in groups for name in group.names)
        removed = tuple(Label(name) for name in asked if name not in self._names)
        self._removed = Lexicon(Vocabulary("removed", removed))
        # Many images get the same answer.
        self._parse = lru_cache(maxsize=4096)(self._read)
        self._position = {name: index for index, name in enumerate(plan.vocabulary.names)}

    def __reduce__(self) -> tuple[type[Candidates], tuple[Plan, int]]:
        """Travel to other processes without what was cached."""
        return Candidates, (self._plan, self._min_votes)

    @cached_property
    def _askers(self) -> Mapping[Request, tuple[tuple[str, str, frozenset[str]], ...]]:
        """Map each distinct request to the (arm, group id, live names) that cite it: an equal group is asked once."""
        askers: dict[Request, tuple[tuple[str, str, frozenset[str]], ...]] = {}
        for arm, groups in self._plan.arms.items():
            for group in groups:
                live = self._names.intersection(group.names)
                if live or not self._names_labels:
                    request = self._ask(group.names)
                    askers[request] = (*askers.get(request, ()), (arm, group.id, live))
        return askers

    def _ask(self, names: Sequence[str]) -> Request:
        if not self._names_labels:
            return self._template.request()
        return self._template.request(labels=render_names(names, self._template.none))

    @cached_property
    def _requests(self) -> tuple[Request, ...]:
        return tuple(self._askers)

    def requests(self, item: Item) -> Sequence[Request]:
        """Return one request for every distinct group of every arm; the same for each image."""
        return self._requests

    def row(self, item: Item, responses: Sequence[Response | None]) -> Row:
        """Unite the arms' answers into candidates; without a usable answer a group's unproposed labels are `unknown`.

        Not usable is one that failed, was cut off, or is in no form that can be read. A label that an answer leaves in
        doubt ("fluffy cat") is `unknown` as well.
        """
        return make_row(item, responses, self._unite, self._why_failed)

    def _unite(self, responses: Sequence[Response]) -> RowContent:
        arms: dict[str, dict[str, None]] = {}
        groups: dict[str, dict[str, None]] = {}
        doubtful: set[str] = set()
        unmatched: dict[str, None] = {}
        for request, response in zip(self._requests, responses, strict=True):
            askers = self._askers[request]
            if self._why_failed(response):
                doubtful.update(*(names for _, _, names in askers))
                continue
            parsed = self._parse(response.text)
            # A removed label is still in the question: naming it is no news from outside the vocabulary.
            unmatched.update(dict.fromkeys(text for text in parsed.unmatched if self._removed.find(text) is None))
            doubtful.update(parsed.doubtful)
            for name in parsed.labels:
                for arm, group, _ in askers:
                    arms.setdefault(name, {})[arm] = None
                    groups.setdefault(name, {})[group] = None
        proposed = {name for name, voters in arms.items() if len(voters) >= self._min_votes}
        entries = tuple(
            LabelEntry(
                name,
                None if name in proposed else Decision.UNKNOWN,
                score=len(arms.get(name, ())) / len(self._plan.arms),
                arms=tuple(arms.get(name, ())),
                groups=tuple(groups.get(name, ())),
            )
            for name in sorted(proposed | doubtful, key=self._position.__getitem__)
        )
        return entries, tuple(unmatched)

    def _read(self, text: str) -> Parsed:
        return parse_names(text, self._lexicon, self._template.none)

    def _why_failed(self, response: Response) -> str | None:
        if failed := why_failed(response):
            return failed
        # A list that was cut off is not a short list: what would have followed is unknown.
        if response.finish == TRUNCATED:
            return "truncated: the answer was cut off"
        return None if self._parse(response.text).readable else unreadable(response.text)

    def complaint(self, responses: Sequence[tuple[Request, Response]]) -> str | None:
        """Judge a first sample: answers must end, be readable, and keep to the names in the question.

        Where the question names none (`open`), most that is seen may well be outside the vocabulary.
        """
        answers = [response for _, response in responses if response.failure is None]
        whole = [response.text for response in answers if response.finish != TRUNCATED]
        parsed = [self._parse(text) for text in whole]
        return complain_about_lists(
            ListAnswers(
                texts=tuple(response.text for response in answers),
                truncated=len(answers) - len(whole),
                mapped=sum(len(each.labels) for each in parsed),
                unmatched=sum(len(each.unmatched) for each in parsed if each.readable),
                unreadable=[text for text, each in zip(whole, parsed, strict=True) if not each.readable],
                names_given=self._names_labels,
            )
        )
