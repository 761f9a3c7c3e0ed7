"""Folded and inflected forms of a label's name."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

_GAPS = re.compile(r"[\s_\u2010-\u2015-]+")


_AROUND_MARKS = re.compile(r" ?([,;/]) ?")


# English endings: a form may be written in the plural or in the singular of its last word.
_IRREGULAR = {
    "person": "people", "man": "men", "child": "children", "mouse": "mice", "goose": "geese", "tooth": "teeth",
    "foot": "feet", "knife": "knives", "wife": "wives", "life": "lives", "leaf": "leaves", "loaf": "loaves",
    "elf": "elves", "alf": "alves", "wolf": "wolves", "scarf": "scarves", "thief": "thieves", "cactus": "cacti",
}  # fmt: skip


_PLURAL_ENDINGS = [
    (re.compile(r"(?<=[b-df-hj-np-tv-z])y$"), "ies"),
    (re.compile(r"(?<=[sxz])$|(?<=[cs]h)$|(?<=o)$"), "es"),
    (re.compile(r"(?<=[^sxz])$"), "s"),
]


_SINGULAR_ENDINGS = [
    (re.compile(r"ies$"), "y"),
    (re.compile(r"(?<=[sxzo])es$|(?<=[cs]h)es$"), ""),
    (re.compile(r"(?<=..[^su])s$"), ""),
]


_NEVER_SINGULAR = {"glasses", "goods", "greens", "shorts"}  # two glasses are no pair of glasses


def folded(form: str) -> str:
    """Return a form of a name without what writers vary: case, width, hyphens, underscores, spaces.

    >>> folded("Hot-air  Balloon"), folded("Router / Modem")
    ('hot air balloon', 'router/modem')
    """
    if not form.isascii():
        form = unicodedata.normalize("NFKC", form).replace("\u2019", "'")
    return _AROUND_MARKS.sub(r"\1", _GAPS.sub(" ", form.casefold()).strip())


def inflected(form: str) -> Iterator[str]:
    """Yield the plurals and singulars that an English form may have, its last word changed; some may be no words.

    >>> sorted(inflected("wine glass")), sorted(inflected("mouse")), "cookie" in inflected("cookies")
    (['wine glasses'], ['mice', 'mouses'], True)
    """
    first, space, word = form.rpartition(" ")
    for singular, plural in _IRREGULAR.items():
        for one, other in ((singular, plural), (plural, singular)):
            if word.endswith(one):
                yield f"{first}{space}{word.removesuffix(one)}{other}"
    endings = _PLURAL_ENDINGS if word in _NEVER_SINGULAR else _PLURAL_ENDINGS + _SINGULAR_ENDINGS
    for ending, replacement in endings:
        if ending.search(word):
            yield f"{first}{space}{ending.sub(replacement, word)}"
