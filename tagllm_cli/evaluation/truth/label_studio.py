"""Label Studio: its JSON, JSON-MIN and CSV exports. Where annotators disagree about a label, it is not judged."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from tagllm_cli.evaluation.truth.base import Dialect, Truth, TruthFile
from tagllm_cli.evaluation.truth.cells import choose_cut, names_in
from tagllm_cli.evaluation.truth.columns import image_column, label_column, no_label_column, squashed

_OWN_COLUMNS = frozenset(["annotation_id", "annotator", "created_at", "updated_at", "id", "lead_time", "agreement"])
_LISTS = ("choices", "taxonomy")  # besides rectanglelabels, polygonlabels, brushlabels, labels, ...

# How a task or row names its image, and the labels that were chosen.
Answer = tuple[str, Collection[str]]


def recognizes_json(file: TruthFile) -> bool:
    """Return whether this is a list of tasks with annotations, or of what JSON-MIN makes of them."""
    tasks = file.document
    first = tasks[0] if isinstance(tasks, list) and tasks else None
    return isinstance(first, dict) and (("data" in first and "annotations" in first) or "annotation_id" in first)


def tasks_of(file: TruthFile) -> list[dict[str, Any]]:
    """Return the tasks of an export. Raises UsageError where one of them is something else."""
    tasks: list[dict[str, Any]] = file.document
    if any(not isinstance(task, dict) for task in tasks):
        raise file.error("a task of this Label Studio export is no object")
    return tasks


def read_json(file: TruthFile) -> Truth:
    """Read one label set per annotation; tasks without any are left out."""
    tasks = tasks_of(file)
    if "annotation_id" in tasks[0]:
        return _from_rows(file, [{key: text_or_value(value) for key, value in task.items()} for task in tasks])
    answers: list[Answer] = []
    waiting = 0
    for task in tasks:
        done = [each for each in task.get("annotations") or () if not each.get("was_cancelled")]
        waiting += not done
        if done:
            key = image_of(file, task.get("data") or {})
            answers += [(key, labels_of(file, each.get("result") or ())) for each in done]
    return _agreed(answers, "Label Studio JSON", [f"tasks without an annotation: {waiting:,}"] if waiting else [])


def image_of(file: TruthFile, data: dict[str, Any]) -> str:
    """Return how a task names its image. Raises UsageError where nothing in its `data` does."""
    keys = [key for key, value in data.items() if isinstance(value, str)]
    if not keys:
        raise file.error("a task of this Label Studio export has no image in its `data`")
    return str(data[keys[image_column(file, keys, [[data[key] for key in keys]]) if len(keys) > 1 else 0]])


def labels_of(file: TruthFile, result: Iterable[dict[str, Any]]) -> list[str]:
    """Return the labels that the regions of an annotation name. Raises UsageError for a region without any."""
    names: list[str] = []
    for region in result:
        kind, value = region.get("type", ""), region.get("value") or {}
        if kind in _LISTS or kind.endswith("labels"):
            chosen = value.get(kind) or ()
            # A choice of a taxonomy is a path, whose last part is the label.
            chosen = [path[-1] if isinstance(path, list) and path else path for path in chosen]
            try:
                names += names_in(chosen)
            except ValueError as error:
                raise file.error(f"an annotation of type {kind!r}: {error}") from error
    return names


def recognizes_csv(file: TruthFile) -> bool:
    """Return whether the header is that of Label Studio's CSV export."""
    return (
        file.is_text
        and "annotation_id" in file.sheet.header
        and bool({"lead_time", "annotator"} & {*file.sheet.header})
    )


def read_csv(file: TruthFile) -> Truth:
    """Read a label set per line; a line is an annotation."""
    header = file.sheet.header
    return _from_rows(file, [dict(zip(header, cells, strict=True)) for _, cells in file.sheet.lines()])


def _from_rows(file: TruthFile, rows: Sequence[dict[str, Any]]) -> Truth:
    """Read lines or objects that have the image under one key and what was chosen under another."""
    image, label, answers = answers_in(file, rows)
    return _agreed(answers, f"Label Studio ({image}, {label})", [])


def answers_in(file: TruthFile, rows: Sequence[dict[str, Any]]) -> tuple[str, str, list[Answer]]:
    """Return the keys of the image and of the labels, and what each row says. Raises UsageError where it is not clear.

    A row is an annotation; the answers are in the order of the rows.
    """
    header = list(dict.fromkeys(key for row in rows for key in row))
    texts = [[str(row.get(key) or "") for key in header] for row in rows]
    own = [number for number, name in enumerate(header) if name in _OWN_COLUMNS]
    image = image_column(file, header, texts)
    label = label_column(file, header, texts, [*own, image])
    if label is None:
        rest = [number for number, name in enumerate(header) if number not in (*own, image) and squashed(name)]
        if len(rest) != 1:
            raise no_label_column(file, header)
        label = rest[0]
    cut = choose_cut(file, {row[label] for row in texts}, header[label], several=True)
    return header[image], header[label], [(row[image], cut(row[label])) for row in texts]


def text_or_value(value: Any) -> Any:
    """Return a value as it stands in a cell: lists and objects as JSON."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else value


def _agreed(answers: Iterable[Answer], dialect: str, notes: Iterable[str]) -> Truth:
    by_image: defaultdict[str, list[frozenset[str]]] = defaultdict(list)
    names: dict[str, None] = {}
    for key, labels in answers:
        by_image[key].append(frozenset(labels))
        names.update(dict.fromkeys(labels))
    present = {key: frozenset.intersection(*sets) for key, sets in by_image.items()}
    disputed = {key: frozenset.union(*sets) - present[key] for key, sets in by_image.items()}
    count = sum(map(len, disputed.values()))
    return Truth(
        present,
        tuple(names),
        exhaustive=False,
        unknown={key: labels for key, labels in disputed.items() if labels},
        dialect=dialect,
        notes=tuple(notes),
        warnings=(f"pairs on which annotators disagree, and that are not judged: {count:,}",) if count else (),
    )


JSON_DIALECT = Dialect("Label Studio JSON", recognizes_json, read_json)
CSV_DIALECT = Dialect("Label Studio CSV", recognizes_csv, read_csv)
