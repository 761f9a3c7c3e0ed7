"""What was read of a truth, and how its images and labels met those of a table."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from tagllm_cli.evaluation.entries import Comparison
from tagllm_cli.evaluation.metrics import Evaluation
from tagllm_cli.evaluation.truth.base import Truth
from tagllm_cli.evaluation.truth.label_sets import LabelSets
from tagllm_cli.text import shortened

_EXAMPLES = 3
_FEW_IMAGES = 20
_FILE_NAME_ONLY = (
    "folders or formats of the images differ: they were matched by file name alone, so look at the examples"
)


@dataclass(frozen=True, slots=True)
class TruthSummary:
    """What was read of the truth, and how its images met those of the table.

    `found` of its `images` are in the table, the share `overlap`. `matched` are examples as (id in the table, key in
    the truth), the others examples of what only one side has. Of the `human_labels` of the images found, `lost` are of
    labels that the vocabulary lacks.
    """

    path: Path
    dialect: str
    images: int
    labels: int
    found: int
    overlap: float
    human_labels: int
    lost: int
    matched: tuple[tuple[str, str], ...]
    only_in_truth: tuple[str, ...]
    only_in_table: tuple[str, ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]

    @classmethod
    def of(cls, path: Path, truth: Truth, comparison: Comparison) -> TruthSummary:
        """Return the summary of a truth as it was matched."""
        images, known = comparison.images, comparison.names.in_vocabulary
        sets, matched = LabelSets.of(truth.labels), set(images.keys.values())
        is_found = np.fromiter((key in matched for key in sets), bool, len(sets))[sets.images]
        is_lost = np.fromiter((name not in known for name in sets.names), bool, len(sets.names))[sets.labels]
        return cls(
            *(path, truth.dialect, len(truth.labels), len(truth.names), len(images.keys), images.overlap),
            *(int(is_found.sum()), int((is_found & is_lost).sum())),
            tuple(islice(images.keys.items(), _EXAMPLES)),
            images.not_in_table[:_EXAMPLES],
            images.not_in_truth[:_EXAMPLES],
            truth.notes,
            (*truth.warnings, _FILE_NAME_ONLY) if images.by_file_name else truth.warnings,
        )

    @property
    def lines(self) -> list[str]:
        """What was read, in a line, then the examples."""
        what = f"{self.path}: {self.dialect}; {self.images:,} images, {self.labels:,} labels"
        found = f"found in the table: {self.found:,} of {self.images:,} images"
        pairs = [image if image == key else f"{image} = {key}" for image, key in self.matched]
        examples = {
            "matched, for example": pairs,
            "only in the truth, for example": self.only_in_truth,
            "only in the table, for example": self.only_in_table,
        }
        return [
            f"{what}; {found}",
            *(f"{side}: {', '.join(names)}" for side, names in examples.items() if names),
            *self.notes,
        ]

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain JSON values."""
        return {
            "path": str(self.path),
            "dialect": self.dialect,
            "images": self.images,
            "labels": self.labels,
            "found": self.found,
            "overlap": round(self.overlap, 6),
            "human_labels": self.human_labels,
            "lost": self.lost,
            "matched": [{"table": image, "truth": key} for image, key in self.matched],
            "only_in_truth": list(self.only_in_truth),
            "only_in_table": list(self.only_in_table),
            "notes": list(self.notes),
            "warnings": list(self.warnings),
        }


def not_judged(found: Evaluation) -> list[str]:
    """Return a sentence about the pairs that the figures leave out, none where there are none."""
    if not found.unjudged:
        return []
    pairs = found.images * len(found.labels)
    return [f"pairs of image and label that are not judged and count in no figure: {found.unjudged:,} of {pairs:,}"]


def limits_of(found: Evaluation) -> list[str]:
    """Return what a truth is too small or too one-sided for, a sentence each."""
    lines = []
    if found.judges_no_absence:
        lines.append(
            "the truth judges no label absent, so that only recall means anything: write 0 where one is absent"
        )
    if found.images < _FEW_IMAGES:
        lines.append(f"only {found.images:,} images were compared: no figure says much")
    if not any(label.support for label in found.labels):
        lines.append("no image that was compared has a label in the truth: recall and F1 mean nothing")
    return lines


def doubts(found: Evaluation, truth: TruthSummary) -> list[str]:
    """Return what is missing from the figures or makes them doubtful, a sentence each."""
    counted = {
        "images of the table that the truth lacks": found.images_not_in_truth,
        "images of the truth that the table lacks": found.images_not_in_table,
        "images that failed and were left out": found.failed,
        "images that are pending and were left out": found.pending,
        "images with failed requests": found.partial,
    }
    lines = [*truth.warnings, *(f"{what}: {count:,}" for what, count in counted.items() if count), *limits_of(found)]
    if found.labels_not_in_vocabulary:
        lost = f"{truth.lost:,} of {truth.human_labels:,} human labels"
        names = shortened(found.labels_not_in_vocabulary, 8)
        lines.append(f"labels of the truth that the vocabulary lacks: {names} ({lost})")
    if found.labels_not_in_truth:
        lines.append(f"labels of the vocabulary that the truth lacks: {shortened(found.labels_not_in_truth, 8)}")
    return lines
