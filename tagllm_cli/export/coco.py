"""COCO instances JSON, for tools that read categories from it: an annotation per label, boxed by the whole image.

Images carry `file_name` (see `Examples.with_file_names`) and `image_id` (the table's id); annotations carry `score`.
A category's id is the label's permanent id plus 1 (0 is the background to many tools): it never moves, and the id of a
label that was removed is not used again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

from tagllm_cli.export.base import Example, Examples, ExportSettings, ExportSummary, Format
from tagllm_cli.store.atomic import replacing, starts_with

if TYPE_CHECKING:
    from tagllm_cli.store.table import Table

_is_ours = starts_with(b'{"info": {"description": "tagllm: ')


def export(table: Table, out: Path, settings: ExportSettings) -> ExportSummary:
    """Write one JSON file in ASCII. Memory does not grow with the table: annotations wait on disk for the images."""
    examples = Examples(table, settings)
    with (
        replacing(out, is_ours=_is_ours) as new,
        new.open("w", encoding="ascii") as file,
        TemporaryFile("w+", encoding="ascii", dir=new.parent) as annotations,
    ):
        file.write(_head(table.info.vocabulary.name, examples))
        written = 0
        for number, (example, name) in enumerate(examples.with_file_names(), 1):
            file.write(_item(_image(number, example, name), first=number == 1))
            for label, score in zip(example.labels, example.scores, strict=True):
                written += 1
                annotation = {"id": written, "image_id": number, "category_id": examples.ids[label] + 1, "score": score}
                annotations.write(_item({**annotation, **_box(example)}, first=written == 1))
        file.write('\n],\n"annotations": [')
        annotations.seek(0)
        shutil.copyfileobj(annotations, file)
        file.write("\n]}\n")
    return examples.summary([out])


FORMAT = Format("coco", "COCO instances JSON, each label boxed by the whole image", export, _is_ours)


def _head(vocabulary: str, examples: Examples) -> str:
    info = {"description": "tagllm: image-level labels, boxed by the whole image", "vocabulary": vocabulary}
    categories = [
        {"id": label_id + 1, "name": label.name, "supercategory": label.parent or ""}
        for label_id, label in zip(examples.ids, examples.vocabulary, strict=True)
    ]
    return f'{{"info": {json.dumps(info)},\n"licenses": [],\n"categories": {json.dumps(categories)},\n"images": ['


def _item(value: Mapping[str, Any], *, first: bool) -> str:
    return f"{'' if first else ','}\n{json.dumps(value)}"


def _image(number: int, example: Example, name: str) -> dict[str, Any]:
    row = example.row
    return {"id": number, "file_name": name, "width": row.width, "height": row.height, "image_id": row.image_id}


def _box(example: Example) -> dict[str, Any]:
    width, height = example.row.width, example.row.height
    return {"bbox": [0, 0, width, height], "area": width * height, "iscrowd": 0, "segmentation": []}
