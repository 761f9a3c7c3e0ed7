"""A folder for Label Studio: `tasks.json` to import, with the labels as predictions, and `config.xml` for the project.

A task's `data` has the URL of the image, its `image_id` and `fingerprint`, by which `tagllm import` finds it again,
`scores` by label, and `human`, what people have decided about the image before. The prediction has the labels in one
result, since a control of choices takes one, and the undecided labels in that of the control `unclear`; its score is
the lowest of its labels, so that sorting by it puts doubtful images first. Where people decided, their labels are in
it, too, and `model_version` ends in `+ people`: it is no prediction of the model's alone.

An image is named by `/data/local-files/?d=` and its path below the folder that holds the source's (Label Studio's
document root), by its URL where it has one, or below the URL that `root` gives. Copies lie in `images` in the folder.
Tasks are written in files of a size that Label Studio takes in one import.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from tagllm_cli.export.base import Example, Examples, ExportSettings, ExportSummary, Format
from tagllm_cli.export.folders import is_marked, mark_folder
from tagllm_cli.export.images import placed
from tagllm_cli.export.json_list import JsonList
from tagllm_cli.export.markup import check_names, quoted
from tagllm_cli.export.provenance import human_decisions, model_version
from tagllm_cli.store.atomic import replacing
from tagllm_cli.vocabulary.model import Label

if TYPE_CHECKING:
    from tagllm_cli.store.table import Table

NAME = "label-studio"
TASKS, CONFIG, IMAGES = "tasks.json", "config.xml", "images"
LABELS, UNCLEAR = "labels", "unclear"
FILE_TASKS, FILE_CHARACTERS = 50_000, 100 << 20
WITH_PEOPLE = " + people"
_LOCAL = "/data/local-files/?d="
_ALL_SHOWN = 30  # choices; more of them are searched in a list


def export(table: Table, out: Path, settings: ExportSettings) -> ExportSummary:
    """Write the folder. Raises UsageError for label names that XML cannot hold."""
    examples = Examples(table, settings)
    check_names([label.name for label in examples.vocabulary])
    version = model_version(table.info)
    names = [label.name for label in examples.vocabulary]
    with replacing(out, is_ours=_is_ours) as new:
        new.mkdir(parents=True)
        (new / CONFIG).write_text(labeling_config(examples.vocabulary), encoding="utf-8")
        tasks = (
            _task(example, url, names, version) for example, url in _with_urls(examples, table, out, new, settings)
        )
        files = _write(new, tasks)
        mark_folder(new, NAME)
    return examples.summary([out / name for name in (*files, CONFIG)])


def labeling_config(labels: tuple[Label, ...]) -> str:
    """Return the labeling config of a project: choices, several of them at a time, and those that cannot be told."""
    layout = "inline" if len(labels) <= _ALL_SHOWN else "select"
    choices = "".join(f"    <Choice value={quoted(label.name)}{_hint(label)}/>\n" for label in labels)
    unclear = "".join(f"    <Choice value={quoted(label.name)}/>\n" for label in labels)
    return (
        '<View>\n  <Image name="image" value="$image" zoom="true"/>\n'
        '  <Header value="In the image"/>\n'
        f'  <Choices name="{LABELS}" toName="image" choice="multiple" layout="{layout}">\n{choices}  </Choices>\n'
        '  <Header value="Cannot be told"/>\n'
        f'  <Choices name="{UNCLEAR}" toName="image" choice="multiple" layout="select">\n{unclear}  </Choices>\n'
        "</View>\n"
    )


def _hint(label: Label) -> str:
    return f" hint={quoted(label.description)}" if label.description else ""


def _write(folder: Path, tasks: Iterator[dict[str, Any]]) -> list[str]:
    """Write the tasks into as many files as they need; return the names."""
    names: list[str] = []
    task = next(tasks, None)
    while task is not None or not names:
        names.append(TASKS if not names else f"tasks-{len(names) + 1}.json")
        with ExitStack() as stack:
            listed = JsonList(stack.enter_context((folder / names[-1]).open("w", encoding="ascii")))
            size = 0
            while task is not None and listed.length < FILE_TASKS and size < FILE_CHARACTERS:
                size += listed.add(task)
                task = next(tasks, None)
            listed.end()
    return names


def _task(example: Example, url: str, names: list[str], version: str) -> dict[str, Any]:
    row = example.row
    scores = {names[place]: score for place, score in zip(example.labels, example.scores, strict=True)}
    controls = {LABELS: [*scores], UNCLEAR: [names[place] for place in example.unknown]}
    prediction: dict[str, Any] = {
        "model_version": f"{version}{WITH_PEOPLE if example.human else ''}",
        "result": [_result(control, chosen) for control, chosen in controls.items() if chosen],
    }
    if scores:
        prediction["score"] = min(scores.values())
    data = {
        "image": url,
        "image_id": row.image_id,
        "fingerprint": row.fingerprint.hex(),
        "scores": scores,
        "human": human_decisions(example, names),
    }
    return {"data": data, "predictions": [prediction]}


def _result(control: str, chosen: list[str]) -> dict[str, Any]:
    value = {"choices": chosen}
    return {"id": control, "from_name": control, "to_name": "image", "type": "choices", "value": value}


def _with_urls(
    examples: Examples, table: Table, out: Path, new: Path, settings: ExportSettings
) -> Iterator[tuple[Example, str]]:
    """Yield the examples with what Label Studio loads their images from; copy or link the images where asked for."""
    mode = settings.images or ("copy" if table.info.source.kind in ("tar", "parquet") else "reference")
    if mode == "reference" and settings.root is not None and "://" in settings.root:
        for example, name in examples.with_file_names():
            yield example, name if "://" in name else f"{settings.root.rstrip('/')}/{quote(name)}"
        return
    above = os.path.dirname(os.path.abspath(settings.root or table.info.source.uri))
    for example, name in placed(examples, table, replace(settings, images=mode), lambda _: new / IMAGES):
        if mode != "reference":
            yield example, f"{_LOCAL}{quote(f'{out.name}/{IMAGES}/{name}')}"
        elif "://" in name:
            yield example, name
        else:
            below = os.path.relpath(name, above)
            yield example, f"{_LOCAL}{quote(name.lstrip('/') if below.startswith('..') else below)}"


_is_ours = is_marked(NAME)
FORMAT = Format(
    NAME,
    "Label Studio tasks with the labels as predictions, and the labeling config",
    export,
    _is_ours,
    holds_images=True,
    holds_unknown=True,
)
