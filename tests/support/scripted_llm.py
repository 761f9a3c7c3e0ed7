"""A chat-completions server on loopback that plays an LLM which writes concept cards, by script.

    with ScriptedLLM({"mouse": [card("mouse", "a small grey rodent with round ears")]}) as server:
        ...  # server.url, server.drafts("mouse")

It finds the labels ambiguous that it has a script for, gives each of them its next scripted answer for every draft
(the last one again and again), and names a blind description honestly, by the words in it.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tests.support.faulty_proxy import FaultyProxy, Received, completion

HANGS = "(hangs)"  # as an answer: none ever comes
REFUSES = "I'm sorry, but I can't help with that."

_LISTED = re.compile(r"^- (.+?)(?: \(|:|$)", re.MULTILINE)
_LABEL = re.compile(r"^Label: (.+?)(?: \(category: |\.$)", re.MULTILINE)


def card(name: str, description: str, similar: Sequence[str] = (), **more: Sequence[str]) -> str:
    """A draft as a well-behaved LLM answers it: JSON in a fence."""
    value = {"label": name, "description": description, "similar": list(similar), **more}
    return f"Here is the card:\n```json\n{json.dumps(value)}\n```"


def kind_of(text: str) -> str:
    """Which question this is: find, draft, compare or name."""
    marks = {"misunderstood": "find", "concept card": "draft", "Compared with": "compare", "Which of these": "name"}
    return next(kind for mark, kind in marks.items() if mark in text)


class ScriptedLLM(FaultyProxy):
    """The server; a context manager.

    Args:
        scripts: the answers to each label's drafts, in order.
        words: what a description says about which label: the first label with one of its words in it is named.
        find: the answer to every search for ambiguous names; None: the labels that have a script.
        relation: the answer to every comparison.
        refuses: the kind of question that it refuses to answer.
    """

    def __init__(
        self,
        scripts: Mapping[str, Sequence[str]],
        words: Mapping[str, Sequence[str]] | None = None,
        *,
        find: str | None = None,
        relation: str = "broader",
        refuses: str = "",
    ) -> None:
        super().__init__(answer=self._answer_to, models=("scripted-llm",))
        self._scripts, self._words, self._found = scripts, words or {}, find
        self._relation, self._refuses = relation, refuses
        self._turns: dict[str, int] = {}

    def __enter__(self) -> ScriptedLLM:
        super().__enter__()
        return self

    def asked(self, kind: str) -> list[str]:
        """The questions of one kind as they arrived."""
        return [text for text in map(_text, self.questions) if kind_of(text) == kind]

    def drafts(self, name: str) -> list[str]:
        """The questions for one label's card."""
        return [text for text in self.asked("draft") if _label(text) == name]

    def say(self, text: str) -> str:
        """The answer to a question."""
        kind = kind_of(text)
        answers = {"find": self._find, "draft": self._draft, "compare": lambda text: self._relation, "name": self._name}
        return REFUSES if kind == self._refuses else answers[kind](text)

    def _answer_to(self, question: Any) -> dict[str, Any]:
        return completion(self.say(str(question["messages"][-1]["content"])))

    async def _real(self, info: Received) -> Any:
        if info.number and kind_of(text := _text(info)) == "draft" and self._turn(_label(text)) == HANGS:
            await asyncio.Event().wait()
        return await super()._real(info)

    def _turn(self, name: str) -> str:
        script = self._scripts[name]
        return script[min(self._turns.get(name, 0), len(script) - 1)]

    def _find(self, text: str) -> str:
        listed = [name for name in _LISTED.findall(text) if name in self._scripts]
        return self._found or json.dumps([{"label": name, "overlaps": []} for name in listed])

    def _draft(self, text: str) -> str:
        name = _label(text)
        answer = self._turn(name)
        self._turns[name] = self._turns.get(name, 0) + 1
        return answer

    def _name(self, text: str) -> str:
        described, _, listed = text.partition("\nLabels: ")
        names = listed.split("\n")[0].split(", ")
        fits = [name for name in names if any(word in described for word in self._words.get(name, [name]))]
        return fits[0] if fits else "none"


def _text(info: Received) -> str:
    return str(info.json["messages"][-1]["content"])


def _label(text: str) -> str:
    found = _LABEL.search(text)
    assert found, text
    return found[1]
