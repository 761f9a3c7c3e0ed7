"""Label Studio: its JSON, JSON-MIN and CSV exports, and the JSON of versions before 1.0.

A finished annotation is what a person says, also where it began as a prediction: it was submitted. Predictions and
drafts say nothing, skipped and rejected annotations neither. Each annotator is a person of their own. Of an export of
ours, `data` has the image's id and fingerprint, and the control `unclear` holds the labels that cannot be told.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tagllm_cli.errors import UsageError
from tagllm_cli.evaluation.human_labels.base import UNKNOWN, YES, HumanLabels, Reader
from tagllm_cli.evaluation.human_labels.readers.gather import Annotation, count, gathered
from tagllm_cli.evaluation.human_labels.readers.times import microseconds
from tagllm_cli.evaluation.truth import label_studio as truth
from tagllm_cli.evaluation.truth.base import TruthFile
from tagllm_cli.evaluation.truth.cells import list_in

UNCLEAR = "unclear"
_WHAT_TO_DO = "Export the project from Label Studio as JSON, once somebody has submitted annotations."
_FORM = "Label Studio JSON"
_OUR_COLUMNS = frozenset([UNCLEAR, "scores", "human", "fingerprint"])  # of what we export, besides the image's names


def recognizes(file: TruthFile) -> bool:
    """Return whether this is a list of tasks, annotated or not, or JSON-MIN, or Label Studio's CSV."""
    if file.is_folder:
        return False
    if not file.is_json:
        return truth.recognizes_csv(file)
    tasks = file.document
    first = tasks[0] if isinstance(tasks, list) and tasks else None
    parts = ("annotations", "completions", "predictions")
    return isinstance(first, dict) and (
        "annotation_id" in first or (isinstance(first.get("data"), dict) and any(part in first for part in parts))
    )


def read(file: TruthFile) -> HumanLabels:
    """Read the annotations of an export. Raises UsageError for a damaged one, and for one without any annotation."""
    if not file.is_json:
        header = file.sheet.header
        rows = [dict(zip(header, cells, strict=True)) for _, cells in file.sheet.lines()]
        return _from_rows(file, rows, "Label Studio CSV")
    tasks = truth.tasks_of(file)
    if "annotation_id" in tasks[0]:
        rows = [{key: truth.text_or_value(value) for key, value in task.items()} for task in tasks]
        return _from_rows(file, rows, "Label Studio JSON-MIN")
    return _from_tasks(file, tasks)


def _from_tasks(file: TruthFile, tasks: Iterable[Mapping[str, Any]]) -> HumanLabels:
    annotations: list[Annotation] = []
    waiting = skipped = rejected = drafts = old = 0
    for task in tasks:
        found = _objects(file, task.get("annotations") or task.get("completions") or ())
        old += "completions" in task
        drafts += len(task.get("drafts") or ())
        skipped += sum(map(_is_skipped, found))
        rejected += sum(map(_is_rejected, found))
        done = [each for each in found if not (_is_skipped(each) or _is_rejected(each))]
        waiting += not done
        if done:
            image, fingerprint = _image(file, task.get("data") or {})
            annotations += [_annotation(file, each, image, fingerprint) for each in done]
    if not annotations:
        raise file.error("no task of this Label Studio file has an annotation that was submitted", _WHAT_TO_DO)
    notes = [
        *count(waiting, "tasks without an annotation"),
        *count(skipped, "annotations that were skipped"),
        *count(rejected, "annotations that a reviewer rejected"),
        *count(drafts, "drafts, which nobody submitted"),
    ]
    return gathered(annotations, f"{_FORM} of a version before 1.0" if old else _FORM, notes=notes)


def _annotation(file: TruthFile, found: Mapping[str, Any], image: str, fingerprint: str) -> Annotation:
    when = microseconds(found.get("updated_at") or found.get("created_at"))
    said: list[tuple[str, str]] = []
    wanted = file.options.label_column
    for region in _objects(file, found.get("result") or ()):
        control = region.get("from_name")
        if wanted is None or control in (wanted, UNCLEAR):
            decision = UNKNOWN if control == UNCLEAR else YES
            said += [(name, decision) for name in truth.labels_of(file, [region])]
    return Annotation(image, _person(found.get("completed_by")), when, fingerprint, said)


def _objects(file: TruthFile, values: Any) -> list[dict[str, Any]]:
    if not isinstance(values, (list, tuple)) or any(not isinstance(each, dict) for each in values):
        raise file.error("an annotation of this Label Studio file is not as Label Studio writes it", _WHAT_TO_DO)
    return list(values)


def _image(file: TruthFile, data: Mapping[str, Any]) -> tuple[str, str]:
    ours, fingerprint = data.get("image_id"), data.get("fingerprint")
    if isinstance(ours, str) and isinstance(fingerprint, str):
        return ours, fingerprint
    return truth.image_of(file, dict(data)), ""


def _person(value: Any) -> str:
    """Return who completed an annotation: an id in a project's export, an object where the API was asked for users."""
    if isinstance(value, dict):
        value = next((value[key] for key in ("email", "username", "id") if value.get(key) not in (None, "")), None)
    return str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else ""


def _is_skipped(annotation: Mapping[str, Any]) -> bool:
    return bool(annotation.get("was_cancelled") or annotation.get("skipped"))


def _is_rejected(annotation: Mapping[str, Any]) -> bool:
    reviews = annotation.get("reviews")
    last = reviews[-1] if isinstance(reviews, list) and reviews else None
    return isinstance(last, dict) and last.get("accepted") is False


def _from_rows(file: TruthFile, rows: list[dict[str, Any]], form: str) -> HumanLabels:
    """Read JSON-MIN or CSV: a row per annotation. Skipped ones are no part of them."""
    if not rows:
        raise UsageError(f"{file.path} has no annotations", _WHAT_TO_DO)
    plain = [{key: value for key, value in row.items() if key not in _OUR_COLUMNS} for row in rows]
    _, _, answers = truth.answers_in(file, plain)
    return gathered(list(_answered(rows, answers)), form)


def _answered(rows: Iterable[Mapping[str, Any]], answers: Iterable[truth.Answer]) -> Iterator[Annotation]:
    for row, (image, labels) in zip(rows, answers, strict=True):
        is_ours = bool(row.get("image_id") and row.get("fingerprint"))
        when = microseconds(row.get("updated_at") or row.get("created_at"))
        said = [(name, YES) for name in labels]
        if is_ours and (unclear := str(row.get(UNCLEAR) or "")):
            said += [(name, UNKNOWN) for name in list_in(unclear) or [unclear]]
        image, fingerprint = (row["image_id"], str(row["fingerprint"])) if is_ours else (image, "")
        yield Annotation(image, str(row.get("annotator") or ""), when, fingerprint, said)


READER = Reader("Label Studio", recognizes, read)
