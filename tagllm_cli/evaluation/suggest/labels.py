"""What tables tell about the labels that there are: which never occur, which come together, whose names collide."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tagllm_cli.evaluation.calibration import wilson
from tagllm_cli.labeling.groups.cooccurrence import PairCounts
from tagllm_cli.vocabulary.checks import problems_of
from tagllm_cli.vocabulary.forms import folded, inflected
from tagllm_cli.vocabulary.model import Vocabulary

MIN_IMAGES = 20  # of a label that is said to imply another one
MIN_SHARE = 0.9  # of them that have the other one: the lower end of the 95% interval
MIN_LIFT = 1.2  # how much more often than in all images; a label that most images have is implied by all others


@dataclass(frozen=True, slots=True)
class Implied:
    """Of `images` images with `label`, the share `share`, 95% within [low, high], has `implied`, too.

    `lift` is this share over that of all images. `both_ways`: the other implies this one as well, so that they always
    occur together. `is_parent`: it is the label's parent in the vocabulary.
    """

    label: str
    implied: str
    images: int
    share: float
    low: float
    high: float
    lift: float
    both_ways: bool
    is_parent: bool

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        numbers = {name: round(getattr(self, name), 4) for name in ("share", "low", "high", "lift")}
        told = {"label": self.label, "implied": self.implied, "images": self.images}
        return {**told, **numbers, "both_ways": self.both_ways, "is_parent": self.is_parent}


def implications(counts: PairCounts, vocabulary: Vocabulary, images: int) -> list[Implied]:
    """Return which labels imply others in a table of so many answered images, the surest first.

    Of a pair that always occurs together only one direction is listed: that of the rarer label.
    """
    names, parents = vocabulary.names, {label.name: label.parent for label in vocabulary.labels}
    alone = counts.alone
    holds: dict[tuple[int, int], Implied] = {}
    for one in np.flatnonzero(alone >= MIN_IMAGES).tolist():
        total = int(alone[one])
        for other in np.flatnonzero(counts.together[one] >= MIN_SHARE * total).tolist():
            share = int(counts.together[one, other]) / total
            low, high = wilson(share * total, total)
            lift = share / (int(alone[other]) / max(1, images))
            if low >= MIN_SHARE and lift >= MIN_LIFT:
                said = parents[names[one]] == names[other]
                holds[one, other] = Implied(names[one], names[other], total, share, low, high, lift, False, said)
    found = []
    for (one, other), each in holds.items():
        back = holds.get((other, one))
        if back is not None and (alone[one], one) > (alone[other], other):
            continue
        found.append(replace(each, both_ways=back is not None))
    return sorted(found, key=lambda each: (-each.low, each.label, each.implied))


def collisions(vocabulary: Vocabulary) -> list[str]:
    """Return which names cannot be told apart in an answer, a sentence each."""
    found = [each.message for each in problems_of(vocabulary, ()) if each.kind in ("alike", "colliding_synonym")]
    return [*found, *_inflected(vocabulary)]


def _inflected(vocabulary: Vocabulary) -> Iterator[str]:
    """Yield labels one of which is the plural of another, or of another one's synonym."""
    owners: dict[str, str] = {}
    for label in vocabulary.labels:
        for form in (label.name, *label.synonyms):
            owners.setdefault(folded(form), label.name)
    told = set()
    for form, name in owners.items():
        for other in inflected(form):
            owner = owners.get(other)
            if owner is not None and owner != name and frozenset((name, owner)) not in told:
                told.add(frozenset((name, owner)))
                yield f"{form!r} of {name!r} and {other!r} of {owner!r} are one word in the singular and the plural"
