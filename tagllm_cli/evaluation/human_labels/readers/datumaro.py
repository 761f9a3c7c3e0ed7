"""Datumaro: a dataset in its own format, a JSON file per subset in a folder `annotations`, or one of these files.

An annotation without a `score` is what a person says; one with a score is a model's, and is kept. The attribute
`decision` (`yes`, `no`, `unknown`) decides about its label. Boxes and masks count for the label that they have.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tagllm_cli.evaluation.human_labels.base import UNKNOWN, YES, HumanLabels, Reader
from tagllm_cli.evaluation.human_labels.readers.gather import DECISIONS, Annotation, gathered
from tagllm_cli.evaluation.truth.base import TruthFile

FOLDER = "annotations"
_VERSION = '"dm_format_version"'  # older versions of Datumaro do not write it
_HINT = 'Export the dataset in the format "Datumaro" again.'


def recognizes(file: TruthFile) -> bool:
    """Return whether this is a JSON file with categories and items, or a folder with such files."""
    if file.is_folder:
        return any(_VERSION in part.start or _is_subset(part) for part in _inner(file))
    return _is_subset(file)


def read(file: TruthFile) -> HumanLabels:
    """Read the annotations of all subsets. Raises UsageError for damaged files."""
    names: dict[str, None] = {}
    annotations: list[Annotation] = []
    for part in _inner(file) if file.is_folder else [file]:
        if _is_subset(part):
            labels = _labels(part)
            names.update(dict.fromkeys(labels))
            annotations += _annotations(part, labels)
    untouched = not any(each.said for each in annotations)
    warnings = ["nobody has set or changed an annotation in this file"] if untouched else []
    return gathered(annotations, "Datumaro JSON", names=tuple(names) or None, warnings=warnings)


def _inner(file: TruthFile) -> Iterator[TruthFile]:
    folder = file.path / FOLDER
    for path in sorted((folder if folder.is_dir() else file.path).glob("*.json")):
        yield TruthFile(path, file.options, file.table)


def _is_subset(file: TruthFile) -> bool:
    document = file.document
    return (
        isinstance(document, dict)
        and isinstance(document.get("items"), list)
        and isinstance(document.get("categories"), dict)
    )


def _labels(file: TruthFile) -> list[str]:
    category = file.document["categories"].get("label")
    labels = category.get("labels") if isinstance(category, dict) else []
    if not isinstance(labels, list) or any(not isinstance(each, dict) or "name" not in each for each in labels):
        raise file.error("the labels of this Datumaro file are not as Datumaro writes them", _HINT)
    return [str(each["name"]) for each in labels]


def _annotations(file: TruthFile, labels: list[str]) -> Iterator[Annotation]:
    for item in file.document["items"]:
        if not isinstance(item, dict) or not isinstance(item.get("id"), str):
            raise file.error("an item of this Datumaro file has no id", _HINT)
        found = _of_item(item)
        for each in item.get("annotations") or ():
            number = each.get("label_id") if isinstance(each, dict) else None
            if number is None:  # a caption
                continue
            if not isinstance(number, int) or not 0 <= number < len(labels):
                raise file.error(f"an item has the label {number!r}, and there are {len(labels)} labels", _HINT)
            _add(found, labels[number], each.get("attributes") or {})
        yield found


def _of_item(item: Mapping[str, Any]) -> Annotation:
    attributes = item.get("attr") if isinstance(item.get("attr"), dict) else {}
    assert isinstance(attributes, dict)
    ours, fingerprint = attributes.get("image_id"), attributes.get("fingerprint")
    if isinstance(ours, str) and isinstance(fingerprint, str):
        found = Annotation(ours, fingerprint=fingerprint)
    else:
        image = item.get("image")
        path = image.get("path") if isinstance(image, dict) else None
        # `id` has no ending, and `path` may be the bare file name: the id says where it lies.
        found = Annotation(f"{item['id']}{Path(path).suffix}" if isinstance(path, str) and path else item["id"])
    found.kept += [(str(name), UNKNOWN) for name in attributes.get("unknown") or ()]
    return found


def _add(found: Annotation, label: str, attributes: Mapping[str, Any]) -> None:
    decision = attributes.get("decision")
    if decision in DECISIONS:
        found.said.append((label, str(decision)))
    elif attributes.get("score") is None:
        found.said.append((label, YES))
    else:
        found.kept.append((label, YES))


READER = Reader("Datumaro", recognizes, read)
