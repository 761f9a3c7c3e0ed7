"""Hugging Face `imagefolder`: image files with a `metadata.jsonl`, in a folder per split.

`datasets.load_dataset("imagefolder", data_dir=OUT)` opens it, and so does `load_dataset(OUT)`, where the card names the
splits. A line of `metadata.jsonl` has `file_name`, `image_id`, `labels`, `scores` (of `labels`) and `unknown`. The last
is a list as JSON text: `datasets` guesses the type of a column from each split, and of empty lists it knows none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING

from tagllm_cli.export.base import Example, Examples, ExportSettings, ExportSummary, Format, export_card
from tagllm_cli.export.folders import CARD, is_marked, mark_folder, put_folder_card
from tagllm_cli.export.images import placed
from tagllm_cli.store.atomic import replacing

if TYPE_CHECKING:
    from tagllm_cli.store.table import Table

_NAME = "imagefolder"
_METADATA = "metadata.jsonl"
_is_ours = is_marked(_NAME, keeps_card=True)


def export(table: Table, out: Path, settings: ExportSettings) -> ExportSummary:
    """Write the folder, image by image. Raises as `images.placed` does."""
    examples = Examples(table, settings)
    names = [label.name for label in examples.vocabulary]
    splits = [name for name, _ in settings.split] or [""]
    with replacing(out, is_ours=_is_ours) as new:
        for split in splits:
            (new / split).mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            lines = {split: stack.enter_context(_opened(new / split / _METADATA)) for split in splits}
            for example, name in placed(examples, table, settings, lambda example: new / example.split):
                lines[example.split].write(_line(example, name, names))
        summary = examples.summary([out / split / _METADATA for split in splits])
        card = export_card(table, summary, settings, _data_files(splits))
        kept = put_folder_card(out / CARD, new / CARD, card)
        mark_folder(new, _NAME, keeps_card=True)
    return replace(summary, card=out / CARD, card_kept=kept)


FORMAT = Format(
    _NAME,
    "image files with metadata.jsonl, for Hugging Face datasets",
    export,
    _is_ours,
    lays_out_splits=True,
    holds_unknown=True,
    images=("copy", "link"),
)


def _opened(path: Path) -> IO[str]:
    return path.open("w", encoding="utf-8")


def _data_files(splits: list[str]) -> Mapping[str, str]:
    return {split: f"{split}/**" for split in splits} if splits != [""] else {}


def _line(example: Example, name: str, names: list[str]) -> str:
    line = {
        "file_name": name,
        "image_id": example.row.image_id,
        "labels": [names[label] for label in example.labels],
        "scores": example.scores,
        "unknown": json.dumps([names[label] for label in example.unknown], ensure_ascii=False),
    }
    return f"{json.dumps(line, ensure_ascii=False)}\n"
