"""FiftyOne: a dataset exported as FiftyOneDataset (samples.json), or FiftyOneImageClassificationDataset (labels.json).

A label without a confidence is what a person says; one with a confidence is a model's, and is kept. The tags `yes`,
`no` and `unknown` of a label decide about it: tagging is what is at hand in FiftyOne's App. Where samples are tagged
`checked`, only those were gone through. In an export of ours, the field `tagllm_unknown` holds what cannot be told, and
labels tagged `human` are what people had decided before.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tagllm_cli.errors import UsageError
from tagllm_cli.evaluation.human_labels.base import UNKNOWN, YES, HumanLabels, Reader
from tagllm_cli.evaluation.human_labels.readers.gather import DECISIONS, Annotation, count, gathered
from tagllm_cli.evaluation.human_labels.readers.times import microseconds
from tagllm_cli.evaluation.truth.base import TruthFile
from tagllm_cli.text import shortened

FIELD, UNKNOWN_FIELD, HUMAN, CHECKED = "tagllm", "tagllm_unknown", "human", "checked"
SAMPLES, LABELS, METADATA, MANIFEST = "samples.json", "labels.json", "metadata.json", "data.json"
_CLASSES = ("Classification", "Classifications")
_START = re.compile(r'\{\s*"(samples|classes|labels)"\s*:')
_HINT = "Export the dataset from FiftyOne with dataset_type=fiftyone.types.FiftyOneDataset."

_Label = Mapping[str, Any]


def recognizes(file: TruthFile) -> bool:
    """Return whether this is samples.json or labels.json, or a folder with one of them."""
    if file.is_folder:
        return _inner(file) is not None
    document = file.document
    return isinstance(document, dict) and (_are_samples(document) or _are_labels(document))


def read(file: TruthFile) -> HumanLabels:
    """Read the labels of one field. Raises UsageError where there are several, none, or a damaged file."""
    file = _inner(file) or file
    document = file.document
    if isinstance(document, dict) and _are_samples(document):
        return _from_samples(file, document["samples"])
    if isinstance(document, dict) and _are_labels(document):
        return _from_labels(file, document)
    raise file.error("these are not the labels of a FiftyOne dataset", _HINT)


def _inner(file: TruthFile) -> TruthFile | None:
    """Return the file of a folder that holds the labels, None where there is none; it is not read for that."""
    for name in (SAMPLES, LABELS) if file.is_folder else ():
        inner = TruthFile(file.path / name, file.options, file.table)
        if inner.path.is_file() and _START.match(inner.start):
            return inner
    return None


def _are_samples(document: Mapping[str, Any]) -> bool:
    samples = document.get("samples")
    return isinstance(samples, list) and all(isinstance(each, dict) and "filepath" in each for each in samples[:1])


def _are_labels(document: Mapping[str, Any]) -> bool:
    return document.keys() == {"classes", "labels"} and isinstance(document["labels"], dict)


def _from_samples(file: TruthFile, samples: list[Any]) -> HumanLabels:
    if any(not isinstance(each, dict) or not isinstance(each.get("filepath"), str) for each in samples):
        raise file.error("a sample of this FiftyOne dataset has no filepath", _HINT)
    name = _field(file, samples)
    marked = any(CHECKED in _tags(each) for each in samples)
    annotations: list[Annotation] = []
    for sample in samples:
        found = _labels(file, sample.get(name))
        unclear = _labels(file, sample.get(UNKNOWN_FIELD))
        if found is not None or unclear is not None:
            annotation = _of_sample(sample)
            annotation.is_checked = CHECKED in _tags(sample) if marked else found is not None
            _add(annotation, found or (), YES)
            _add(annotation, unclear or (), UNKNOWN)
            annotations.append(annotation)
    notes = count(len(samples) - len(annotations), f"samples without a value in {name!r}")
    if marked:
        notes += count(sum(not each.is_checked for each in annotations), f"samples that are not tagged {CHECKED!r}")
    return gathered(
        annotations,
        f"FiftyOne dataset, field {name!r}",
        names=_classes(file, name),
        notes=notes,
        warnings=_untouched(annotations),
    )


def _untouched(annotations: Iterable[Annotation]) -> list[str]:
    return [] if any(each.said for each in annotations) else ["nobody has set, tagged or changed a label in this file"]


def _field(file: TruthFile, samples: Iterable[Mapping[str, Any]]) -> str:
    """Return the field that holds people's labels: what `--label-column` names, else the only one besides ours."""
    fields: dict[str, None] = {}
    for sample in samples:
        fields.update((key, None) for key, value in sample.items() if _class(value) in _CLASSES)
    fields.pop(UNKNOWN_FIELD, None)
    wanted = file.options.label_column
    if wanted is not None and wanted not in fields:
        raise file.error(f"no field {wanted!r} holds classifications", f"There are {shortened([*fields]) or 'none'}.")
    if wanted is None and len(fields) > 1:
        hint = "Name the one that people corrected with --label-column."
        raise file.error(f"several fields hold classifications: {shortened([*fields])}", hint)
    if not fields:
        raise file.error("no field of this FiftyOne dataset holds classifications", _HINT)
    return wanted or next(iter(fields))


def _class(value: Any) -> str:
    return str(value.get("_cls", "")) if isinstance(value, dict) else ""


def _labels(file: TruthFile, value: Any) -> list[_Label] | None:
    """Return the labels in a field, None where it has no value: then nobody looked."""
    kind = _class(value)
    if kind not in _CLASSES:
        return None
    found = value.get("classifications") if kind == "Classifications" else [value]
    found = [] if found is None else found
    if not isinstance(found, list) or any(not isinstance(each, dict) for each in found):
        raise file.error("the labels of a sample are not as FiftyOne writes them", _HINT)
    return [each for each in found if isinstance(each.get("label"), str)]


def _tags(value: Mapping[str, Any]) -> list[Any]:
    tags = value.get("tags")
    return tags if isinstance(tags, list) else []


def _of_sample(sample: Mapping[str, Any]) -> Annotation:
    ours, fingerprint = sample.get("image_id"), sample.get("fingerprint")
    is_ours = isinstance(ours, str) and isinstance(fingerprint, str)
    changed = sample.get("last_modified_at")
    when = changed.get("$date") if isinstance(changed, dict) else None
    when = when / 1000 if isinstance(when, (int, float)) else when  # milliseconds, in older versions
    image, seen = (str(ours), str(fingerprint)) if is_ours else (sample["filepath"], "")
    return Annotation(image, when=microseconds(when), fingerprint=seen)


def _add(annotation: Annotation, labels: Iterable[_Label], decision: str) -> None:
    """Sort labels into what a person says and what was left as a program wrote it."""
    for each in labels:
        tags = _tags(each)
        said = next((tag for tag in DECISIONS if tag in tags), None)
        is_kept = each.get("confidence") is not None or HUMAN in tags or decision == UNKNOWN
        if said is not None or not is_kept:
            annotation.said.append((each["label"], said or decision))
        else:
            annotation.kept.append((each["label"], decision))


def _classes(file: TruthFile, name: str) -> tuple[str, ...] | None:
    """Return the classes that the dataset lists for a field, None where it lists none."""
    beside = TruthFile(file.path.with_name(METADATA))
    document = beside.document if beside.path.is_file() else None
    if not isinstance(document, dict):
        return None
    # Below 0.8 and in what we write, `classes` lie in `info`.
    parts = [part for part in (document, document.get("info")) if isinstance(part, dict)]
    lists = [classes.get(name) for part in parts if isinstance(classes := part.get("classes"), dict)]
    lists += [part.get("default_classes") for part in parts]
    return next((tuple(map(str, each)) for each in lists if isinstance(each, list) and each), None)


def _from_labels(file: TruthFile, document: Mapping[str, Any]) -> HumanLabels:
    classes = document["classes"] if isinstance(document["classes"], list) else None
    names = tuple(map(str, classes)) if classes else None
    paths = _manifest(file)
    annotations: list[Annotation] = []
    empty = 0
    for image, value in document["labels"].items():
        if value is None:  # FiftyOne writes this for an image without labels, and for one that nobody looked at
            empty += 1
            continue
        annotation = Annotation(paths.get(image, image))
        _add(annotation, _classifications(file, value, names), YES)
        annotations.append(annotation)
    notes = count(empty, "images without labels, of which the file does not say whether anybody looked")
    warnings = _untouched(annotations)
    if not any(each.kept for each in annotations):
        warnings.append("no label in this file has a confidence: all are taken for people's, also what a model said")
    return gathered(annotations, "FiftyOne image classification", names=names, notes=notes, warnings=warnings)


def _manifest(file: TruthFile) -> Mapping[str, str]:
    """Return the path of each image by its key, as far as the file beside says it: keys have no endings."""
    beside = TruthFile(file.path.with_name(MANIFEST))
    document = beside.document if beside.path.is_file() else None
    return {key: value for key, value in document.items() if isinstance(value, str)} if document else {}


def _classifications(file: TruthFile, value: Any, names: tuple[str, ...] | None) -> Iterator[_Label]:
    for each in value if isinstance(value, list) else [value]:
        label = each if isinstance(each, dict) else {"label": each}
        name = label.get("label")
        if isinstance(name, int) and not isinstance(name, bool) and names and 0 <= name < len(names):
            name = names[name]
        if not isinstance(name, str):
            raise UsageError(f"{file.path}: {name!r} is no label and no number of one", _HINT)
        attributes = label.get("attributes")
        tags = attributes.get("tags") if isinstance(attributes, dict) else None
        yield {**label, "label": name, "tags": tags or label.get("tags")}


READER = Reader("FiftyOne", recognizes, read)
