"""A dataset for Datumaro in its own format: `annotations/SUBSET.json`, each label an annotation with its score.

The attributes `score` and `source` (`model` or `human`) tell where a label comes from. An item's attributes have the
image's `image_id` and `fingerprint`, and the labels that are `unknown`. Without splits, all is in the subset `default`.
Images are named by their paths; copies lie in `images/SUBSET`, where Datumaro looks for them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from tagllm_cli.export.base import Example, Examples, ExportSettings, ExportSummary, Format
from tagllm_cli.export.folders import is_marked, mark_folder
from tagllm_cli.export.images import placed
from tagllm_cli.export.json_list import JsonList
from tagllm_cli.export.provenance import model_version
from tagllm_cli.store.atomic import replacing
from tagllm_cli.vocabulary.model import Label

if TYPE_CHECKING:
    from tagllm_cli.store.table import Table

NAME = "datumaro"
ANNOTATIONS, IMAGES, SUBSET = "annotations", "images", "default"
_IMAGE = 2  # the number of Datumaro's MediaType.IMAGE


def export(table: Table, out: Path, settings: ExportSettings) -> ExportSummary:
    """Write the folder, a file per split. An item's id is its path without ending, with it where two come to one id."""
    examples = Examples(table, settings)
    head = _head(model_version(table.info), examples.vocabulary)
    subsets = [name for name, _ in settings.split] or [SUBSET]
    with replacing(out, is_ours=_is_ours) as new, ExitStack() as stack:
        folder = new / ANNOTATIONS
        folder.mkdir(parents=True)
        files = [stack.enter_context((folder / f"{name}.json").open("w", encoding="ascii")) for name in subsets]
        items = {name: JsonList(file, head) for name, file in zip(subsets, files, strict=True)}
        taken: set[int] = set()
        for example, name in _with_names(examples, table, new, settings):
            items[example.split or SUBSET].add(_item(example, name, examples.vocabulary, taken))
        for each in items.values():
            each.end("}")
        for file in files:
            file.close()
        mark_folder(new, NAME)
    return examples.summary([out / ANNOTATIONS / f"{name}.json" for name in subsets])


def _head(version: str, labels: Sequence[Label]) -> str:
    attributes: list[str] = []
    listed = [{"name": label.name, "parent": label.parent or "", "attributes": attributes} for label in labels]
    head = {
        "dm_format_version": "1.0",
        "media_type": _IMAGE,
        "infos": {"tagllm": version},
        "categories": {"label": {"labels": listed, "label_groups": [], "attributes": ["score", "source"]}},
    }
    return f'{json.dumps(head)[:-1]},\n"items": '


def _with_names(examples: Examples, table: Table, new: Path, settings: ExportSettings) -> Iterator[tuple[Example, str]]:
    if settings.images in ("copy", "link"):
        to = lambda example: new / IMAGES / (example.split or SUBSET)  # noqa: E731 (one line beside its only use)
        yield from placed(examples, table, replace(settings, images=settings.images), to)
    else:
        yield from examples.with_file_names()


def _item(example: Example, name: str, labels: Sequence[Label], taken: set[int]) -> dict[str, Any]:
    row = example.row
    stem = str(PurePosixPath(name).with_suffix("")) if PurePosixPath(name).name else name
    identity = name if hash((example.split, stem)) in taken else stem
    taken.update(hash((example.split, each)) for each in (stem, identity))
    annotations = [
        {
            "id": number,
            "type": "label",
            "attributes": {"score": score, "source": "human" if place in example.human else "model"},
            "group": 0,
            "label_id": place,
        }
        for number, (place, score) in enumerate(zip(example.labels, example.scores, strict=True))
    ]
    attributes: dict[str, Any] = {"image_id": row.image_id, "fingerprint": row.fingerprint.hex()}
    if example.unknown:
        attributes["unknown"] = [labels[place].name for place in example.unknown]
    image = {"path": name, "size": [row.height, row.width]}
    return {"id": identity, "annotations": annotations, "attr": attributes, "image": image}


_is_ours = is_marked(NAME)
FORMAT = Format(
    NAME,
    "a dataset in Datumaro's own format, a JSON file per split",
    export,
    _is_ours,
    lays_out_splits=True,
    holds_unknown=True,
    images=("copy", "link"),
)
