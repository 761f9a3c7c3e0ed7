"""Reading a sentence: the labels that it says are seen or not seen, or that it cannot be read with confidence.

A label counts only where its neighbors leave no doubt that the thing itself is meant ("a dog on the grass", not "a dog
house" or "a painting of a dog"), and where no word of the clause weakens it ("might", "like", "except").
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from tagllm_cli.labeling.answers import words
from tagllm_cli.labeling.answers.lexicon import TOKEN, Lexicon
from tagllm_cli.vocabulary.forms import folded

MAX_TOKENS = 120  # of a sentence; what is longer is not a short answer
_CONTRASTS = frozenset(["but", "however", "although", "though", "whereas", "yet", "while"])
_STOPS = frozenset(",;:.!?()\"'*`\u2013\u2014-")


@dataclass(slots=True)
class Reading:
    """What a part of an answer says: labels seen, labels not seen, texts that are no label.

    `doubtful` are labels within such a text: "fluffy cat" may be a cat, "hot dog" is no dog.
    """

    found: list[str] = field(default_factory=list)
    denied: list[str] = field(default_factory=list)
    unmatched: list[str] = field(default_factory=list)
    doubtful: list[str] = field(default_factory=list)

    def add(self, other: Reading) -> None:
        """Take in what another part says."""
        self.found += other.found
        self.denied += other.denied
        self.unmatched += other.unmatched
        self.doubtful += other.doubtful


@dataclass(frozen=True, slots=True)
class _Mention:
    start: int
    end: int
    name: str


class Sentence:
    """One sentence cut into tokens, with the labels that it mentions."""

    def __init__(self, text: str, lexicon: Lexicon) -> None:
        line = folded(text.replace("*", " ").replace("`", " "))
        spans = [match.span() for match in TOKEN.finditer(line)]
        self._tokens = [line[start:end] for start, end in spans]
        found = [_Mention(*each) for each in lexicon.mentions(line, spans)]
        starts = {mention.start for mention in found}
        # "an orange cat": a color before a name is no fruit.
        self._mentions = [m for m in found if not (m.end in starts and self._tokens[m.start] in words.ADJECTIVES)]
        self.names = {mention.name for mention in self._mentions} | lexicon.unspaced_mentions(line)
        self.is_unspaced = bool(self.names) and not self._mentions

    @property
    def is_names_only(self) -> bool:
        """Whether it is nothing but names, one after the other."""
        return bool(self._mentions) and sum(m.end - m.start for m in self._mentions) == len(self._tokens)

    @property
    def is_compound(self) -> bool:
        """Whether it is two names that may be one name of something else: "carrot cake"."""
        return self.is_names_only and len(self._mentions) == 2

    @property
    def is_negated(self) -> bool:
        """Whether a word outside of the names negates something."""
        inside = {index for mention in self._mentions for index in range(mention.start, mention.end)}
        return any(_negates(token) for index, token in enumerate(self._tokens) if index not in inside)

    @property
    def is_talk(self) -> bool:
        """Whether it has words that no name has: it is a sentence or a part of one, and no item of a list."""
        inside = {index for mention in self._mentions for index in range(mention.start, mention.end)}
        return any(token in words.TALK for index, token in enumerate(self._tokens) if index not in inside)

    def read(self, strict: bool = True) -> Reading | None:
        """Return what the sentence says about labels; None where that is not clear.

        Not `strict`: a label that may be a part of another name ("hot dog") is passed over.
        """
        if self.is_names_only and not self.is_compound:
            return Reading([mention.name for mention in self._mentions])
        if self.is_unspaced or len(self._tokens) > MAX_TOKENS:
            return None
        reading = Reading()
        starts = {mention.start: mention for mention in self._mentions}
        clause: list[_Mention] = []
        first = index = 0
        while index <= len(self._tokens):
            if index == len(self._tokens) or self._tokens[index] in _CONTRASTS | {";"}:
                said = self._clause(first, index, clause, strict)
                if said is None:
                    return None
                reading.add(said)
                first, clause = index + 1, []
            elif index in starts:
                clause.append(starts[index])
                index = starts[index].end - 1
            index += 1
        return reading

    def _clause(self, first: int, end: int, mentions: Sequence[_Mention], strict: bool) -> Reading | None:
        if not mentions:
            return Reading()
        inside = {index for mention in mentions for index in range(mention.start, mention.end)}
        outside = [index for index in range(first, end) if index not in inside]
        negations = [index for index in outside if _negates(self._tokens[index])]
        if any(self._tokens[index] in words.DOUBT for index in outside):
            return None
        if any(self._is_verbal(index) for index in negations):
            # "cats are visible, dogs are not": which verb belongs to which name is not decided here.
            affirmed = [index for index in outside if self._is_affirmative(index)]
            return None if affirmed else Reading(denied=[mention.name for mention in mentions])
        reading = Reading()
        for mention in mentions:
            seen = self._is_seen(mention, negations, mentions[0])
            if seen and not self._is_meant(mention, first, end, bool(negations)):
                if strict:
                    return None
                continue
            if seen is None:
                return None
            (reading.found if seen else reading.denied).append(mention.name)
        return reading

    def _is_verbal(self, index: int) -> bool:
        token = self._tokens[index]
        before = self._tokens[index - 1] if index else ""
        return token.endswith("n't") or token in ("cannot", "never") or (token == "not" and before in words.AUXILIARIES)

    def _is_affirmative(self, index: int) -> bool:
        before, after = self._tokens[max(0, index - 1) : index], self._tokens[index + 1 : index + 2]
        return self._tokens[index] in words.FINITE and after != ["not"] and before not in (["nor"], ["neither"])

    def _is_seen(self, mention: _Mention, negations: Sequence[int], foremost: _Mention) -> bool | None:
        """Return whether a name stands outside the reach of "no", "neither", "0"; None where that is not clear."""
        before = [index for index in negations if index < mention.start]
        if not before:
            return True
        between = self._tokens[before[-1] + 1 : mention.start]
        if any(token in words.FINITE or token in words.PREPOSITIONS - {"from"} for token in between):
            return None
        if not {",", "and", "&"}.intersection(between):
            return False
        last = between[-1]
        if last in words.NUMERALS or last.isdecimal() or {"only", "just"}.intersection(between):
            return True  # "0 cats, 1 dog", "no cats, only a dog"
        # "cat, no dog, bird": no bird, or a bird? "no dog, bird or cow" leaves no doubt.
        alternatives = {"or", "nor"}.intersection(self._tokens[before[0] :])
        return None if foremost.start < before[0] and not alternatives else False

    def _is_meant(self, mention: _Mention, first: int, end: int, is_negated: bool) -> bool:
        """Return whether the words before and after a name leave it what it is."""
        return self._may_precede(mention, first, is_negated) and self._may_follow(mention, end)

    def _may_precede(self, mention: _Mention, first: int, is_negated: bool) -> bool:
        index, is_determined = mention.start - 1, False
        while index >= first and (
            self._tokens[index] in words.DETERMINERS | words.ADJECTIVES or self._tokens[index].isdecimal()
        ):
            is_determined |= self._tokens[index] in words.DETERMINERS or self._tokens[index].isdecimal()
            index -= 1
        if index < first:
            return True
        token = self._tokens[index]
        if token == "or" and not is_negated:
            return False
        if token in words.CONJUNCTIONS:
            return is_determined or self._ends_a_name(index) or self._are_plurals(index, mention)
        if token == "of":
            return index > first and (self._tokens[index - 1] in words.BEFORE_OF or self._ends_a_name(index))
        if token in _STOPS or token in words.PREPOSITIONS or token in words.VERBS:
            return True
        return is_determined and (token.endswith(("ing", "ed")) or self._ends_a_name(index + 1))

    def _ends_a_name(self, index: int) -> bool:
        index -= self._tokens[index - 1] == ","
        return any(mention.end == index for mention in self._mentions)

    def _are_plurals(self, index: int, mention: _Mention) -> bool:
        return index > 0 and self._tokens[index - 1].endswith("s") and self._tokens[mention.end - 1].endswith("s")

    def _may_follow(self, mention: _Mention, end: int) -> bool:
        if mention.end >= end:
            return True
        token = self._tokens[mention.end]
        return (
            token in _STOPS
            or token in words.PREPOSITIONS
            or token in words.VERBS
            or token in words.CONJUNCTIONS
            or token
            in ("of", "that", "too", "also", "only", "each", "both", "visible", "here", "there", "close", "without")
            or token.endswith(("ing", "ed"))
        )


def _negates(token: str) -> bool:
    return token in words.NEGATIVE or token.endswith("n't")


_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')*_]*\s+(?=[\"'(*_A-Z\u00c0-\u00de])|(?<=\u3002)")


def cut_sentences(line: str) -> list[str]:
    """Return the sentences of a line."""
    return [part for part in _SENTENCE_END.split(line) if part.strip()]
