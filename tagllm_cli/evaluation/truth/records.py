"""JSON with an object per image: JSON Lines (ours, Hugging Face's `metadata.jsonl`), a list, or names to labels.

    {"file_name": "a/1.jpg", "labels": ["cat", "dog"]}       {"a/1.jpg": ["cat", "dog"], "a/2.jpg": []}

Labels are a text, a list of texts, objects with a name, or an object of marks (`{"cat": 1, "dog": 0}`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from tagllm_cli.evaluation.truth.base import Collector, Dialect, Truth, TruthFile, united
from tagllm_cli.evaluation.truth.cells import Cut, choose_cut, mark, names_in
from tagllm_cli.evaluation.truth.columns import image_column, label_column, no_label_column
from tagllm_cli.evaluation.truth.sheet import SAMPLE_LINES

_UNKNOWN = "unknown"  # our own export lists undecided labels under this key


def recognizes(file: TruthFile) -> bool:
    """Return whether this is JSON: other dialects of JSON were asked before."""
    return file.is_json


def read(file: TruthFile) -> Truth:
    """Read the labels of each image; images whose labels are null are left out. Raises UsageError for other JSON."""
    if isinstance(file.document, dict) and _maps_images(file):
        records: list[dict[str, Any]] = [{"image": key, "labels": value} for key, value in file.document.items()]
        return _read(file, "JSON, image names to labels", lambda: enumerate(records, 1))
    if file.is_json_lines:
        return _read(file, "JSON Lines", file.json_lines)
    listed = [file.document] if isinstance(file.document, dict) else file.document
    return _read(file, "JSON, a list of images", lambda: enumerate(listed, 1))


def _maps_images(file: TruthFile) -> bool:
    values = list(file.document.values())
    if not all(isinstance(value, (list, str, dict)) for value in values):
        return False
    share = file.table.image_index.share(islice(file.document, SAMPLE_LINES)) if file.table else 0.0
    return share > 0 or (file.table is None and all(isinstance(value, list) for value in values))


def _read(file: TruthFile, dialect: str, records: Any) -> Truth:
    keys, image, label = _fields(file, records())
    texts = {value for _, record in records() if isinstance(value := record.get(label), str)}
    cut = choose_cut(file, texts, label, several=True)
    found = Collector()
    skipped = judged = repeated = 0
    for line, record in records():
        value, key = record.get(label), _image_name(record.get(image))
        if not key:
            raise file.error(f"there is no image under {image!r}", line=line)
        repeated += key in found
        if value is None:
            skipped += 1
        elif isinstance(value, Mapping) and value and _is_marks(value):
            judged += 1
            for name, said in value.items():
                found.add(key, [str(name)], mark(_as_text(said)))
        else:
            found.add(key, _names(file, value, cut, label, line))
        if _UNKNOWN in keys and value is not None:
            found.add(key, _names(file, record.get(_UNKNOWN) or [], cut, _UNKNOWN, line), present=None)
    notes = [f"images whose labels are null, left out: {skipped:,}"] if skipped else []
    return found.truth(f"{dialect} ({image}, {label})", federated=judged > 0, notes=notes, warnings=united(repeated))


def _fields(file: TruthFile, records: Iterator[tuple[int, Any]]) -> tuple[list[str], str, str]:
    """Return all keys, that of the image and that of its labels."""
    sample: list[dict[str, Any]] = []
    for line, record in records:
        if not isinstance(record, dict):
            hint = "Known JSON: COCO instances, Label Studio, or an object per image with `file_name` and `labels`."
            raise file.error("this JSON has no object per image", hint, line=line)
        if len(sample) < SAMPLE_LINES:
            sample.append(record)
    if not sample:
        raise file.error("it says nothing about any image")
    keys = list(dict.fromkeys(key for record in sample for key in record))
    texts = [[_text_of(record.get(key)) for key in keys] for record in sample]
    image = image_column(file, keys, texts)
    label = label_column(file, keys, texts, [image, *(number for number, key in enumerate(keys) if key == _UNKNOWN)])
    if label is None:
        raise no_label_column(file, keys)
    return keys, keys[image], keys[label]


def _text_of(value: Any) -> str:
    if isinstance(value, str):
        return value
    name = _image_name(value) if isinstance(value, dict) and "path" in value else ""
    return name or ("" if value is None else json.dumps(value, ensure_ascii=False))


def _image_name(value: Any) -> str:
    if isinstance(value, dict):  # `datasets` writes images as {"bytes": ..., "path": ...}
        value = value.get("path") or value.get("file_name")
    return "" if value is None else str(value).strip()


def _names(file: TruthFile, value: Any, cut: Cut, label: str, line: int) -> Iterable[str]:
    if isinstance(value, str):
        return cut(value)
    try:
        names = names_in(value)
    except ValueError as error:
        raise file.error(f"under {label!r}: {error}", 'Write label names, as ["cat", "dog"].', line=line) from error
    numbers = [name for name in names if name.lstrip("-").isdecimal()]
    if numbers and (file.table is None or not any(map(file.table.knows, numbers))):
        message = f"the labels under {label!r} are numbers, such as {numbers[0]}, and not names"
        raise file.error(message, "Write the names of the classes instead of their numbers.", line=line)
    return names


def _as_text(value: Any) -> str:
    return "" if value is None else str(value)


def _is_marks(value: Mapping[str, Any]) -> bool:
    def is_mark(each: Any) -> bool:
        try:
            mark(_as_text(each))
        except KeyError:
            return False
        return each is None or isinstance(each, (bool, int, float))

    return all(map(is_mark, value.values()))


DIALECT = Dialect("JSON with an object per image", recognizes, read)
