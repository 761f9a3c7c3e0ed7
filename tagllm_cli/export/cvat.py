"""A folder for CVAT: `annotations.xml` in "CVAT for images 1.1", a tag per label, and `labels.json` for the task.

`labels.json` is for the tab "Raw" of the label constructor: each label with its two attributes. `score` is the model's;
`decision` is `proposed`, or `unclear` for an undecided label, until somebody sets it to `yes`, `no` or `unknown`. Tags
that a person adds have `yes`. What people had decided before is `source="manual"`, the rest `auto` (newer versions of
CVAT write `file` for all that they imported, which is why `decision` says it once more).

CVAT finds an image by its path, so the task's images need the folders that they have below the source. Copies lie in
`images`: zipped, the folder is a dataset that a project imports.
"""

from __future__ import annotations

import colorsys
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from tagllm_cli.export.base import Example, Examples, ExportSettings, ExportSummary, Format
from tagllm_cli.export.folders import is_marked, mark_folder
from tagllm_cli.export.images import placed
from tagllm_cli.export.markup import check_names, escaped, fits, quoted
from tagllm_cli.records import digest16
from tagllm_cli.store.atomic import replacing

if TYPE_CHECKING:
    from tagllm_cli.store.table import Table

NAME = "cvat"
XML, LABELS, IMAGES = "annotations.xml", "labels.json", "images"
PROPOSED, UNCLEAR = "proposed", "unclear"
LONGEST_NAME = 64  # characters of a label that CVAT takes
_DECISIONS = ("yes", "no", "unknown", PROPOSED, UNCLEAR)
_ATTRIBUTES: Sequence[dict[str, Any]] = (
    # least, most, step
    {"name": "score", "input_type": "number", "default_value": "1", "values": ["0", "1", "0.000001"]},
    {"name": "decision", "input_type": "select", "default_value": "yes", "values": [*_DECISIONS]},
)


def export(table: Table, out: Path, settings: ExportSettings) -> ExportSummary:
    """Write the folder. Raises UsageError for label names that XML cannot hold."""
    examples = Examples(table, settings)
    names = [label.name for label in examples.vocabulary]
    check_names(names)
    labels = [_label(name) for name in names]
    with replacing(out, is_ours=_is_ours) as new:
        new.mkdir(parents=True)
        (new / LABELS).write_text(f"{json.dumps(labels, indent=1)}\n", encoding="ascii")
        with (new / XML).open("w", encoding="utf-8", newline="\n") as file:
            _write_head(file, table.info.vocabulary.name, labels)
            number = 0
            for example, name in _with_names(examples, table, new, settings):
                if fits(name):
                    file.write(_image(number, example, name, names))
                    number += 1
                else:
                    examples.drop(example, "bad_name")
            file.write("</annotations>\n")
        mark_folder(new, NAME)
    if long := [name for name in names if len(name) > LONGEST_NAME]:
        note = f"CVAT takes no label of more than {LONGEST_NAME} characters: {len(long):,} are longer"
        examples.notes = [*examples.notes, note]
    return examples.summary([out / XML, out / LABELS])


def _label(name: str) -> dict[str, Any]:
    """Return a label for CVAT's constructor; its color depends on its name alone."""
    hue = int.from_bytes(digest16(name.encode())[:2], "big") / 65536
    red, green, blue = (round(255 * part) for part in colorsys.hls_to_rgb(hue, 0.45, 0.7))
    attributes = [{**attribute, "mutable": False} for attribute in _ATTRIBUTES]
    return {"name": name, "color": f"#{red:02x}{green:02x}{blue:02x}", "type": "tag", "attributes": attributes}


def _with_names(examples: Examples, table: Table, new: Path, settings: ExportSettings) -> Iterator[tuple[Example, str]]:
    if settings.images in ("copy", "link"):
        yield from placed(examples, table, replace(settings, images=settings.images), lambda _: new / IMAGES)
    else:
        yield from examples.with_file_names()


def _write_head(file: TextIO, name: str, labels: Sequence[dict[str, Any]]) -> None:
    file.write(
        '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n<meta><task>'
        f"<name>{escaped(name)}</name><mode>annotation</mode>\n<labels>\n"
    )
    for label in labels:
        attributes = "".join(
            f"<attribute><name>{each['name']}</name><mutable>False</mutable><input_type>{each['input_type']}"
            f"</input_type><default_value>{each['default_value']}</default_value>"
            f"<values>{chr(10).join(each['values'])}</values></attribute>"
            for each in label["attributes"]
        )
        file.write(
            f"<label><name>{escaped(label['name'])}</name><color>{label['color']}</color><type>{label['type']}</type>"
            f"<attributes>{attributes}</attributes></label>\n"
        )
    file.write("</labels></task></meta>\n")


def _image(number: int, example: Example, name: str, names: Sequence[str]) -> str:
    row = example.row
    scores = dict(zip(example.labels, example.scores, strict=True))
    tags = "".join(
        f'<tag label={quoted(names[place])} source="{"manual" if place in example.human else "auto"}">'
        f'{_score(scores.get(place))}<attribute name="decision">{PROPOSED if place in scores else UNCLEAR}</attribute>'
        "</tag>\n"
        for place in sorted([*example.labels, *example.unknown])
    )
    size = f'width="{row.width}" height="{row.height}"'
    return f'<image id="{number}" name={quoted(name)} {size}>\n{tags}</image>\n'


def _score(score: float | None) -> str:
    return "" if score is None else f'<attribute name="score">{score}</attribute>'


_is_ours = is_marked(NAME)
FORMAT = Format(
    NAME,
    "CVAT for images XML, a tag per label, and the labels of the task",
    export,
    _is_ours,
    holds_unknown=True,
    images=("copy", "link"),
)
