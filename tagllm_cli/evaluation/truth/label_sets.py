"""Label sets of images as arrays: a million sets of Python would take gigabytes."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_SHIFT = 32  # a pair is image << 32 | label


def sorted_set(values: Array) -> Array:
    """Return the distinct values, sorted; many times as fast as the hash tables of `numpy.unique`."""
    ordered = np.sort(values)
    return np.asarray(ordered[np.diff(ordered, prepend=ordered[:1] - 1) != 0])


class LabelSets(Mapping[str, frozenset[str]]):
    """A mapping from image keys to sets of label names, 8 bytes a label.

    Args:
        keys: of the images, each once.
        names: of the labels, each once.
        images: positions in `keys`, parallel to `labels`, each pair once, in any order.
        labels: positions in `names`.
    """

    __slots__ = ("_positions", "_starts", "images", "labels", "names")

    def __init__(self, keys: Iterable[str], names: Sequence[str], images: Array, labels: Array) -> None:
        self._positions = {key: number for number, key in enumerate(keys)}
        self.names = names
        order = np.argsort(images, kind="stable")
        self.images, self.labels = images[order].astype(np.int32), labels[order].astype(np.int32)
        self._starts = np.searchsorted(self.images, np.arange(len(self._positions) + 1))

    @classmethod
    def of(cls, labels: Mapping[str, Collection[str]]) -> LabelSets:
        """Return any mapping as arrays."""
        if isinstance(labels, cls):
            return labels
        names = {name: number for number, name in enumerate(dict.fromkeys(n for each in labels.values() for n in each))}
        counts = np.fromiter(map(len, labels.values()), np.int64, len(labels))
        codes = np.fromiter((names[name] for each in labels.values() for name in each), np.int64)
        return cls(labels, tuple(names), np.repeat(np.arange(len(labels)), counts), codes)

    def __getitem__(self, key: str) -> frozenset[str]:
        number = self._positions[key]
        return frozenset(self.names[code] for code in self.labels[self._starts[number] : self._starts[number + 1]])

    def __iter__(self) -> Iterator[str]:
        return iter(self._positions)

    def __len__(self) -> int:
        return len(self._positions)

    def __contains__(self, key: object) -> bool:
        return key in self._positions

    def __repr__(self) -> str:
        return repr(dict(self))


class LabelPairs:
    """Gathers pairs of image and label, with keys and names in the order in which they come."""

    def __init__(self) -> None:
        self.keys: dict[str, int] = {}
        self.names: dict[str, int] = {}
        self._single: dict[bool | None, array[int]] = {said: array("q") for said in (True, False, None)}
        self._many: dict[bool | None, list[Array]] = {said: [] for said in (True, False, None)}

    def add(self, key: str, names: Iterable[str], present: bool | None) -> None:
        """Record an image, and labels that are in it (True), that are not (False), or that were not judged (None)."""
        image = self.keys.setdefault(key, len(self.keys)) << _SHIFT
        self._single[present].extend([image | self.names.setdefault(name, len(self.names)) for name in names])

    def add_many(self, keys: Iterable[str], names: Iterable[str], images: Array, labels: Array, marks: Array) -> None:
        """Record images, and pairs as positions in `keys` and `names`; `marks`: 1 present, 0 absent, -1 not judged."""
        own_keys = np.array([self.keys.setdefault(key, len(self.keys)) for key in keys], np.int64)
        own_names = np.array([self.names.setdefault(name, len(self.names)) for name in names], np.int64)
        for said, mark in ((True, 1), (False, 0), (None, -1)):
            which = np.flatnonzero(marks == mark)
            self._many[said].append(own_keys[images[which]] << _SHIFT | own_names[labels[which]])

    def pairs(self, said: bool | None) -> Array:
        """Return the pairs of which this was said, int64, sorted, each once."""
        return sorted_set(np.concatenate([np.array(self._single[said], np.int64), *self._many[said]]))

    def sets(self, pairs: Array, *, every_image: bool) -> LabelSets:
        """Return pairs as label sets of all images, or of those that have a label."""
        images, labels = pairs >> _SHIFT, pairs & ((1 << _SHIFT) - 1)
        names = tuple(self.names)
        if every_image:
            return LabelSets(self.keys, names, images, labels)
        keys = list(self.keys)
        some, images = np.unique(images, return_inverse=True)
        return LabelSets([keys[number] for number in some.tolist()], names, images, labels)
