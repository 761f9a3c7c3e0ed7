"""COCO instances JSON, for tools that read categories from it: an annotation per label, boxed by the whole image.

Images carry `file_name` (see `Examples.with_file_names`) and `image_id` (the table's id); annotations carry `score`.
A category's id is the label's permanent id plus 1 (0 is the background to many tools): it never moves, and the id of a
label that was removed is not used again. With `unknown` = `keep` images carry `unknown_category_ids`, too.

The text of a line is put together here, with the C function of `json` for names: a dictionary and `json.dumps` for each
of some millions of lines take four times as long, and another package for JSON would be one more to install.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from json.encoder import encode_basestring_ascii
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

from tagllm_cli.errors import UsageError
from tagllm_cli.export.base import Examples, ExportSettings, ExportSummary, Format
from tagllm_cli.export.chunks import ImageRow
from tagllm_cli.store.atomic import replacing, starts_with

if TYPE_CHECKING:
    from tagllm_cli.store.table import Table

_BLOCK = 1 << 20  # characters
_END = "\n]}\n"
_begins_as_ours = starts_with(b'{"info": {"description": "tagllm: ')


def _is_ours(path: Path) -> bool:
    """Return whether this is an earlier export. Raises UsageError for one that another program wrote anew."""
    if not _begins_as_ours(path):
        return False
    with path.open("rb") as file:
        file.seek(-len(_END), os.SEEK_END)
        if file.read() == _END.encode():
            return True
    message = f"{path} holds an export that somebody changed, and is left as it is"
    raise UsageError(message, f"Move it away, after `tagllm import TABLE {path}` where labels were corrected in it.")


def export(table: Table, out: Path, settings: ExportSettings) -> ExportSummary:
    """Write one JSON file in ASCII. Memory does not grow with the table: annotations wait on disk for the images."""
    examples = Examples(table, settings)
    categories = [label_id + 1 for label_id in examples.ids]
    with (
        replacing(out, is_ours=_is_ours) as new,
        new.open("w", encoding="ascii") as file,
        TemporaryFile("w+", encoding="ascii", dir=new.parent) as annotations,
    ):
        file.write(_head(table.info.vocabulary.name, examples))
        written = 0
        for number, (example, name) in enumerate(examples.with_file_names(), 1):
            unknown = [categories[label] for label in example.unknown] if settings.unknown == "keep" else None
            file.write(f"{',' * (number > 1)}\n{_image(number, example.row, name, unknown)}")
            box = _box(example.row)
            for label, score in zip(example.labels, example.scores, strict=True):
                written += 1
                ids = f'"id": {written}, "image_id": {number}, "category_id": {categories[label]}'
                annotations.write(f'{"," * (written > 1)}\n{{{ids}, "score": {score}, {box}}}')
        file.write('\n],\n"annotations": [')
        annotations.seek(0)
        shutil.copyfileobj(annotations, file, _BLOCK)
        file.write(_END)
    return examples.summary([out])


FORMAT = Format(
    "coco", "COCO instances JSON, each label boxed by the whole image", export, _is_ours, holds_unknown=True
)


def _head(vocabulary: str, examples: Examples) -> str:
    info = {"description": "tagllm: image-level labels, boxed by the whole image", "vocabulary": vocabulary}
    categories = [
        {"id": label_id + 1, "name": label.name, "supercategory": label.parent or ""}
        for label_id, label in zip(examples.ids, examples.vocabulary, strict=True)
    ]
    return f'{{"info": {json.dumps(info)},\n"licenses": [],\n"categories": {json.dumps(categories)},\n"images": ['


def _image(number: int, row: ImageRow, name: str, unknown: Sequence[int] | None) -> str:
    more = "" if unknown is None else f', "unknown_category_ids": {list(unknown)}'
    return (
        f'{{"id": {number}, "file_name": {encode_basestring_ascii(name)}, "width": {row.width}, '
        f'"height": {row.height}, "image_id": {encode_basestring_ascii(row.image_id)}{more}}}'
    )


def _box(row: ImageRow) -> str:
    width, height = row.width, row.height
    return f'"bbox": [0, 0, {width}, {height}], "area": {width * height}, "iscrowd": 0, "segmentation": []'
