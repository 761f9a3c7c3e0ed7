"""Captions for trainers of image generators (LoRA): `image.txt` with the labels as tags beside each image.

The rules are those of kohya-ss sd-scripts (`library/train_util.py`: `read_caption`, `process_caption`): a caption has
the image's name but for the ending, in UTF-8; its first line counts, and an empty file is an error; tags are cut at the
separator and stripped; the first `keep_tokens` of them stay in front when they are shuffled, so that the prefix comes
first. sd-scripts reads one folder without those below it, hence `flat`. OneTrainer and ai-toolkit read the same files.

`captions.jsonl` in the folder says what was written. `tagllm import` compares the captions with it, so that only what
people changed counts.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, TextIO

from tagllm_cli.errors import UsageError
from tagllm_cli.export.base import Example, Examples, ExportSettings, ExportSummary, Format, Option
from tagllm_cli.export.folders import MARK, is_marked, mark_folder
from tagllm_cli.export.names import distinct, path_name
from tagllm_cli.store.atomic import replacing
from tagllm_cli.text import shortened

if TYPE_CHECKING:
    from tagllm_cli.store.table import Table
    from tagllm_cli.vocabulary.model import Label

RECORD = "captions.jsonl"
ENDING = ".txt"
OPTIONS = {
    "separator": Option("stands between two tags", ", "),
    "prefix": Option("first tag of every caption, for example a trigger word", ""),
    "order": Option("order of the labels", "probability", ("probability", "vocabulary", "alphabetical")),
    "underscores": Option("write labels with _ for spaces", "no", ("yes", "no")),
    "escape": Option(r"write ( and ) as \( and \), for weighted captions", "no", ("yes", "no")),
    "flat": Option("all images in one folder, as sd-scripts reads them", "yes", ("yes", "no")),
}
_is_marked = is_marked("captions")


def _is_ours(path: Path) -> bool:
    """Return whether this is an earlier export. Raises UsageError where somebody edited captions in it."""
    edited = [str(each["caption"]) for each in _lines(path) if not _is_as_written(path, each)]
    if edited:
        message = f"captions in {path} were edited: {shortened(edited)}"
        raise UsageError(message, f"Take them over with `tagllm import TABLE {path}`, then move the folder away.")
    return _is_marked(path)


def _lines(path: Path) -> Iterator[dict[str, str]]:
    if not (path / MARK).is_file():
        return
    with contextlib.suppress(OSError, ValueError, StopIteration), (path / RECORD).open(encoding="utf-8") as record:
        next(record)
        yield from map(json.loads, record)


def _is_as_written(path: Path, line: Mapping[str, str]) -> bool:
    with contextlib.suppress(FileNotFoundError):  # somebody deleted it
        return (path / line["caption"]).read_bytes() == f"{line['text']}\n".encode()
    return False


def export(table: Table, out: Path, settings: ExportSettings) -> ExportSummary:
    """Write a folder of images with captions, per split where there are any; `reference` writes the captions alone."""
    examples = Examples(table, settings)
    tags = _tags(examples.vocabulary, settings.format_options)
    caption = _caption_of(tags, settings.format_options)
    with replacing(out, is_ours=_is_ours) as new:
        new.mkdir()
        with (new / RECORD).open("w", encoding="utf-8") as record:
            _write_head(record, tags, examples.vocabulary, settings.format_options)
            for example, name in _named(examples, table, settings, new):
                path = PurePosixPath(example.split, name).with_suffix(ENDING)
                text = caption(example)
                (new / path).parent.mkdir(parents=True, exist_ok=True)
                (new / path).write_text(f"{text}\n", encoding="utf-8", newline="\n")
                line = {"caption": str(path), "image": example.row.image_id, "text": text}
                record.write(f"{json.dumps(line, ensure_ascii=False)}\n")
        mark_folder(new, "captions")
    return examples.summary([out / RECORD])


def _tags(vocabulary: Sequence[Label], options: Mapping[str, str]) -> list[str]:
    """Return the tag of each label: its name with spaces for what ends a tag. Raises UsageError where two are alike."""
    separator = options["separator"]
    if not separator or separator != "".join(separator.splitlines()):
        raise UsageError(f"--option separator={separator!r} cannot stand between tags of a line", "For example ', '.")
    mark = separator.strip()
    label_of: dict[str, str] = {}
    for label in vocabulary:
        tag = " ".join((label.name.replace(mark, " ") if mark else label.name).split())
        if options["underscores"] == "yes" or not mark:
            tag = tag.replace(" ", "_")
        if options["escape"] == "yes":
            tag = tag.replace("(", r"\(").replace(")", r"\)")
        if not tag or tag in label_of:
            other = f"{label_of[tag]!r}" if tag else "nothing"
            message = f"the label {label.name!r} is written like {other} in a caption: {tag!r}"
            raise UsageError(message, "Choose another --option separator=..., or leave one out with --labels.")
        label_of[tag] = label.name
    return list(label_of)


def _caption_of(tags: Sequence[str], options: Mapping[str, str]) -> Callable[[Example], str]:
    prefix = [" ".join(options["prefix"].split())] if options["prefix"].strip() else []

    def caption(example: Example) -> str:
        scored = list(zip(example.labels, example.scores, strict=True))
        if options["order"] == "probability":
            scored.sort(key=lambda pair: (-pair[1], pair[0]))
        chosen = [tags[place] for place, _ in scored]
        if options["order"] == "alphabetical":
            chosen.sort(key=lambda tag: (tag.casefold(), tag))
        return options["separator"].join([*prefix, *chosen])

    return caption


def _write_head(record: TextIO, tags: Sequence[str], vocabulary: Sequence[Label], options: Mapping[str, str]) -> None:
    names = {tag: label.name for tag, label in zip(tags, vocabulary, strict=True)}
    head = {"tagllm_captions": 1, "separator": options["separator"], "prefix": options["prefix"], "tags": names}
    record.write(f"{json.dumps(head, ensure_ascii=False)}\n")


def _named(examples: Examples, table: Table, settings: ExportSettings, new: Path) -> Iterator[tuple[Example, str]]:
    """Yield the examples with the names of their images in their folders; no two have the same caption."""
    from tagllm_cli.export.images import placed

    taken: set[str] = set()
    named: Iterator[tuple[Example, str]]
    if settings.images == "reference":
        named = ((example, path_name(name)) for example, name in examples.with_file_names())
    else:
        flat = settings.format_options["flat"] == "yes"
        named = placed(examples, table, settings, lambda example: new / example.split, flat=flat)
    for example, name in named:
        key = str(PurePosixPath(example.split, name).with_suffix("")).casefold()
        unique = name if key not in taken else distinct(name, example.row.image_id)
        if unique != name and settings.images == "reference":  # whose image stays where it is
            examples.drop(example, "shared_caption")
            continue
        if unique != name:
            folder = new / example.split
            (folder / name).rename(folder / unique)
        taken.add(str(PurePosixPath(example.split, unique).with_suffix("")).casefold())
        yield example, unique


FORMAT = Format(
    "captions",
    "captions for LoRA trainers: a text file of tags beside each image",
    export,
    _is_ours,
    lays_out_splits=True,
    holds_images=True,
    options=OPTIONS,
)
