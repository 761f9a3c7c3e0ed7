"""Forms that are one name, and what each name is to the labels that there are.

Forms are one name where they differ by an English ending (`vocabulary.forms`), by spaces, or by an adjective before a
name that also occurs without it. A name is another form of a label where it has a label's words in another order, or
nearly its letters; it is narrower than a label that its last words name.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tagllm_cli.evaluation.suggest.names import without_adjectives
from tagllm_cli.labeling.answers.parse_list import Lexicon
from tagllm_cli.vocabulary.forms import folded, inflected
from tagllm_cli.vocabulary.model import Vocabulary

CLOSE = 0.88  # of the letters, by difflib
_LEAST_LETTERS = 5  # goat is no boat


@dataclass(frozen=True, slots=True)
class Name:
    """A name with all its forms, the most frequent first; `count` texts said it."""

    name: str
    forms: tuple[str, ...]
    count: int


def fold(names: Mapping[str, int], lexicon: Lexicon) -> tuple[list[Name], Counter[str]]:
    """Return names with their forms united, the most frequent first, and texts that are a label with an adjective."""
    owner = {form: form for form in names}
    described: Counter[str] = Counter()

    def root(form: str) -> str:
        while owner[form] != form:
            owner[form] = owner[owner[form]]
            form = owner[form]
        return form

    for form in names:
        plain = without_adjectives(form)
        if plain and lexicon.find(plain) is not None:
            described[form] = names[form]
            continue
        for other in (*inflected(form), form.replace(" ", ""), form.replace(" & ", " and "), plain):
            if other in owner and other != form:
                owner[root(form)] = root(other)
    groups: dict[str, list[str]] = {}
    for form in names:
        if form not in described:
            groups.setdefault(root(form), []).append(form)
    found = [_named(forms, names) for forms in groups.values()]
    return sorted(found, key=lambda each: (-each.count, each.name)), described


def _named(forms: Iterable[str], names: Mapping[str, int]) -> Name:
    ordered = sorted(forms, key=lambda form: (-names[form], form))
    first = ordered[0]
    # A label's name is a singular where the singular is said, too.
    shorter = (form for form in ordered if form in set(inflected(first)) and len(form) < len(first))
    best = next(shorter, first) if first.endswith("s") else first
    if plain := without_adjectives(best):
        best = plain if plain in ordered else best
    return Name(best, tuple(ordered), sum(names[form] for form in ordered))


class Known:
    """The labels of a vocabulary and all that is said for them."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._lexicon = Lexicon(vocabulary)
        self._forms = {
            folded(form): label.name for label in vocabulary.labels for form in (label.name, *label.synonyms)
        }
        self._words = {" ".join(sorted(form.split())): name for form, name in self._forms.items() if " " in form}

    def same(self, name: Name) -> str | None:
        """Return the label that a name is another form of, None where it is a name of its own."""
        for form in name.forms:
            if (found := self._lexicon.find(form)) is not None:
                return found
            if (found := self._words.get(" ".join(sorted(form.split())))) is not None:
                return found
        if len(name.name) < _LEAST_LETTERS:
            return None
        close = difflib.get_close_matches(name.name, self._forms, n=1, cutoff=CLOSE)
        return self._forms[close[0]] if close and len(close[0]) >= _LEAST_LETTERS else None

    def broader(self, name: Name) -> str | None:
        """Return the label that the last words of a name mean: cup of "coffee cup"."""
        said = name.name.split()
        for start in range(1, len(said)):
            if (found := self._lexicon.find(" ".join(said[start:]))) is not None:
                return found
        return None
