"""Pairs of labels that mean nearly the same, so that one image may rightly have either."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations

from tagllm_cli.vocabulary.forms import folded
from tagllm_cli.vocabulary.model import Vocabulary


def related_labels(vocabulary: Vocabulary, names: Sequence[str]) -> list[tuple[int, int]]:
    """Return pairs of positions in `names`, the smaller first: similar labels, shared names, a label and its parent.

    Names and synonyms are compared folded. Siblings under one parent are not related: they share no images by name.

    >>> from tagllm_cli.vocabulary.model import Label
    >>> pets = Vocabulary("pets", (Label("cat"), Label("kitten", parent="cat"), Label("dog", similar=("kitten",))))
    >>> related_labels(pets, pets.names)
    [(0, 1), (1, 2)]
    """
    position = {name: number for number, name in enumerate(names)}
    found = {
        tuple(sorted((position[one], position[other])))
        for one, other in _pairs(vocabulary)
        if one != other
        if one in position and other in position
    }
    return sorted((first, second) for first, second in found)


def _pairs(vocabulary: Vocabulary) -> Iterator[tuple[str, str]]:
    own = {folded(label.name): label.name for label in vocabulary.labels}
    claims: defaultdict[str, list[str]] = defaultdict(list)
    for label in vocabulary.labels:
        for form in {folded(form) for form in (label.name, *label.synonyms)}:
            claims[form].append(label.name)
        others = (*label.similar, *([label.parent] if label.parent else []))
        yield from ((label.name, own[form]) for form in map(folded, others) if form in own)
    for several in claims.values():
        yield from combinations(several, 2)
