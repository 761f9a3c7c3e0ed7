"""A dataset for FiftyOne, which `fiftyone.Dataset.from_dir(dataset_type=fiftyone.types.FiftyOneDataset)` reads.

The labels are Classifications in the field `tagllm`, each with its confidence, the undecided ones in `tagllm_unknown`.
A label that people decided has the tag `human` and no confidence: it is not the model's. Samples carry `image_id` and
`fingerprint`, by which `tagllm import` finds them again, and the split as a tag. `filepath` is where the image lies;
copies lie in `data`.

The files are in the form that FiftyOne read before 0.8, and still does: fields are found out from the samples, so it
depends on no version.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tagllm_cli.export.base import Example, Examples, ExportSettings, ExportSummary, Format
from tagllm_cli.export.folders import is_marked, mark_folder
from tagllm_cli.export.images import placed
from tagllm_cli.export.json_list import JsonList
from tagllm_cli.export.provenance import human_decisions, model_version
from tagllm_cli.store.atomic import replacing

if TYPE_CHECKING:
    from tagllm_cli.store.table import Table

NAME = "fiftyone"
SAMPLES, METADATA, DATA = "samples.json", "metadata.json", "data"
FIELD, UNKNOWN_FIELD, HUMAN = "tagllm", "tagllm_unknown", "human"


def export(table: Table, out: Path, settings: ExportSettings) -> ExportSummary:
    """Write the folder. Images are named where they are unless `settings.images` says otherwise."""
    examples = Examples(table, settings)
    names = [label.name for label in examples.vocabulary]
    mode = settings.images or ("copy" if table.info.source.kind in ("tar", "parquet") else "reference")
    info = {"tagllm": {"model_version": model_version(table.info)}, "classes": {FIELD: names, UNKNOWN_FIELD: names}}
    metadata = {"name": table.info.vocabulary.name, "media_type": "image", "info": info}
    with replacing(out, is_ours=_is_ours) as new:
        new.mkdir(parents=True)
        (new / METADATA).write_text(f"{json.dumps(metadata)}\n", encoding="ascii")
        with (new / SAMPLES).open("w", encoding="ascii") as file:
            samples = JsonList(file, '{"samples": ')
            for example, name in placed(examples, table, replace(settings, images=mode), lambda _: new / DATA):
                samples.add(_sample(example, name if mode == "reference" else f"{DATA}/{name}", names))
            samples.end("}")
        mark_folder(new, NAME)
    return examples.summary([out / SAMPLES, out / METADATA])


def _sample(example: Example, path: str, names: list[str]) -> dict[str, Any]:
    row = example.row
    people = example.human
    labels = [
        _classification(names[place], place in people, None if place in people else score)
        for place, score in zip(example.labels, example.scores, strict=True)
    ]
    unknown = [_classification(names[place], place in people) for place in example.unknown]
    return {
        "filepath": path,
        "tags": [example.split] if example.split else [],
        "metadata": {"_cls": "ImageMetadata", "width": row.width, "height": row.height},
        "image_id": row.image_id,
        "fingerprint": row.fingerprint.hex(),
        "human": [f"{decision}: {name}" for name, decision in human_decisions(example, names).items()],
        FIELD: _classifications(labels),
        UNKNOWN_FIELD: _classifications(unknown),
    }


def _classifications(labels: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {"_cls": "Classifications", "classifications": labels}


def _classification(label: str, is_human: bool, confidence: float | None = None) -> dict[str, Any]:
    tags = [HUMAN] if is_human else []
    return {"_cls": "Classification", "label": label, "confidence": confidence, "tags": tags}


_is_ours = is_marked(NAME)
FORMAT = Format(
    NAME,
    "a dataset for FiftyOne, labels as Classifications with confidence",
    export,
    _is_ours,
    lays_out_splits=True,
    holds_images=True,
    holds_unknown=True,
)
