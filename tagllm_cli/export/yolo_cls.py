"""YOLO classification folders: `train/cat/1.jpg`, as Ultralytics and torchvision's `ImageFolder` read them.

This layout has one label per image. Images with none or with several are left out and counted; `--labels` narrows the
vocabulary to labels that exclude one another. Folders are named like labels, as far as file systems can (`names.csv`
has both). Ultralytics wants `train`, and `val` or `test`: without --split everything is in `train`.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tagllm_cli.export.base import Example, Examples, ExportSettings, ExportSummary, Format
from tagllm_cli.export.folders import is_marked, mark_folder
from tagllm_cli.export.names import folder_names
from tagllm_cli.store.atomic import replacing
from tagllm_cli.text import defused

if TYPE_CHECKING:
    from tagllm_cli.store.table import Table

NAMES = "names.csv"
DEFAULT_SPLIT = "train"
_is_ours = is_marked("yolo-cls")


class _SingleLabels(Examples):
    """The examples that have one label; the others are counted as left out."""

    def __iter__(self) -> Iterator[Example]:
        for example in super().__iter__():
            if len(example.labels) == 1:
                yield example
            else:
                self.drop(example, "several_labels" if example.labels else "no_label")


def export(table: Table, out: Path, settings: ExportSettings) -> ExportSummary:
    """Write a folder per split with a folder per label that occurs; all splits have the same, so that numbers agree."""
    from tagllm_cli.export.images import placed

    examples = _SingleLabels(table, settings)
    folders = folder_names([label.name for label in examples.vocabulary])
    splits = [name for name, _ in settings.split] or [DEFAULT_SPLIT]
    used: set[int] = set()
    with replacing(out, is_ours=_is_ours) as new:
        for split in splits:
            (new / split).mkdir(parents=True)
        for example, _ in placed(
            examples,
            table,
            settings,
            lambda example: new / (example.split or DEFAULT_SPLIT) / folders[example.labels[0]],
            flat=True,
        ):
            used.add(example.labels[0])
        # Readers number the folders that they find: one that is missing in `val` would move the numbers after it.
        for split in splits:
            for place in used:
                (new / split / folders[place]).mkdir(exist_ok=True)
        _write_names(new / NAMES, [(folders[place], examples.vocabulary[place].name) for place in sorted(used)])
        mark_folder(new, FORMAT.name)
    summary = examples.summary([out / NAMES])
    return replace(summary, notes=[*summary.notes, *_notes(summary)])


def _write_names(path: Path, names: Sequence[tuple[str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("folder", "label"))
        writer.writerows((folder, defused(label)) for folder, label in names)


def _notes(summary: ExportSummary) -> Iterator[str]:
    count = summary.left_out.get("several_labels", 0)
    if count:
        yield (
            f"YOLO classification has one label per image: {count:,} images with several were left out; --labels "
            "narrows the labels to those that exclude one another"
        )


FORMAT = Format(
    "yolo-cls",
    "YOLO classification folders, for images with a single label",
    export,
    _is_ours,
    lays_out_splits=True,
    images=("copy", "link"),
)
