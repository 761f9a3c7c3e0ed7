"""Label names as the vocabulary knows them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

from tagllm_cli.vocabulary.forms import folded
from tagllm_cli.vocabulary.model import Label, Vocabulary


class NameIndex:
    """The labels of a vocabulary by name, by folded name and by synonym."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.names = vocabulary.names
        self._exact = set(vocabulary.names)
        self._own = _forms(vocabulary, lambda label: (label.name,))
        self._synonyms = _forms(vocabulary, lambda label: label.synonyms)

    def find(self, name: str) -> str | None:
        """Return the label that `name` means: exactly, else folded, else by synonym. None where several claim it."""
        if name in self._exact:
            return name
        form = folded(name)
        claims = self._own.get(form) or self._synonyms.get(form, set())
        return next(iter(claims)) if len(claims) == 1 else None


def _forms(vocabulary: Vocabulary, forms_of: Callable[[Label], Iterable[str]]) -> dict[str, set[str]]:
    claims: defaultdict[str, set[str]] = defaultdict(set)
    for label in vocabulary.labels:
        for form in forms_of(label):
            claims[folded(form)].add(label.name)
    return dict(claims)
