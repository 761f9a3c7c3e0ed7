"""Parts of an answer under their headings: "Visible: ...", "Not visible: ...", "Categories: ..."."""

from __future__ import annotations

import re
from enum import Enum

from tagllm_cli.labeling.answers.sentences import Reading
from tagllm_cli.labeling.answers.words import NEGATION


class Polarity(Enum):
    """What a heading says of the names under it."""

    SEEN = "seen"
    NEUTRAL = "neutral"
    ABSENT = "absent"


_ABSENT = re.compile(r"\b(?:absent|missing|unseen|invisible|undetected|excluded|false)\b", re.IGNORECASE)
_SEEN = re.compile(
    r"\b(?:answer|visible|present|seen?|show[ns]?|detect\w*|found|identif\w*|contain\w*|appear\w*|recogni[sz]\w*|observ\w*"
    r"|includ\w*|result|output|response|final|depict\w*|spot\w*|true)\b",
    re.IGNORECASE,
)


def polarity(heading: str) -> Polarity:
    """Return what a heading or a key says of the names under it.

    >>> polarity("Not visible"), polarity("The visible categories are"), polarity("Animals")
    (<Polarity.ABSENT: 'absent'>, <Polarity.SEEN: 'seen'>, <Polarity.NEUTRAL: 'neutral'>)
    """
    if NEGATION.search(heading) or _ABSENT.search(heading):
        return Polarity.ABSENT
    return Polarity.SEEN if _SEEN.search(heading) else Polarity.NEUTRAL


class Sections:
    """What stands under headings of each kind."""

    def __init__(self) -> None:
        self._parts: dict[Polarity, Reading] = {}

    def open(self, kind: Polarity) -> None:
        """Note that there is such a heading, also where nothing stands under it."""
        self._parts.setdefault(kind, Reading())

    def add(self, kind: Polarity, part: Reading) -> None:
        """Add what a part under a heading of this kind says."""
        self.open(kind)
        if kind is Polarity.ABSENT:
            part = Reading(denied=part.found + part.denied)
        self._parts[kind].add(part)

    def united(self) -> Reading:
        """Return what all parts say together.

        Under a neutral heading may stand the question's own list: it does not count where it holds all that is seen and
        there is a heading for what is seen.
        """
        neutral = self._parts.get(Polarity.NEUTRAL, Reading())
        seen = self._parts.get(Polarity.SEEN)
        absent = self._parts.get(Polarity.ABSENT, Reading())
        if seen is not None and len(set(neutral.found)) > 1 and set(neutral.found) >= set(seen.found + absent.denied):
            neutral = Reading(denied=neutral.denied)
        reading = Reading()
        for part in (seen or Reading(), neutral, absent):
            reading.add(part)
        return reading

    def is_open(self, kind: Polarity) -> bool:
        """Return whether there was a heading of this kind."""
        return kind in self._parts
