"""What annotation tools export after somebody corrected an export of ours in them.

Each function takes the folder of our export, `changes` (`{image_id: {label: "yes" | "no" | "unknown"}}`) and where to
write, and returns the path of what the tool exports then. FiftyOne and Datumaro run themselves; what Label Studio and
CVAT write is put together as their own code does it (label_studio serializes tasks, CVAT dumps XML from its database).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import escape, quoteattr

import pytest

Changes = Mapping[str, Mapping[str, str]]

ANNOTATOR = "ann@example.org"
DECIDED = "2026-11-28T10:00:00.250000Z"
DECIDED_AT = 1_795_860_000_250_000  # the same, in microseconds since the epoch
_ROOT = Path(__file__).parents[2]


def label_studio_export(folder: Path, changes: Changes, out: Path, who: Any = ANNOTATOR) -> Path:
    """Label Studio's JSON export of a project with our tasks: those in `changes` were opened, corrected and submitted.

    Each annotation begins as the prediction. `who` is an email (an object, as with `expand`), or the id of a user.
    """
    tasks = json.loads((folder / "tasks.json").read_text())
    exported = [_task(number, task, changes, who) for number, task in enumerate(tasks, 1)]
    out.write_text(json.dumps(exported, ensure_ascii=False), encoding="utf-8")
    return out


def label_studio_annotation(result: list[dict[str, Any]], who: Any = ANNOTATOR, **other: Any) -> dict[str, Any]:
    """An annotation as Label Studio exports it."""
    person = {"id": 7, "email": who, "first_name": "", "last_name": ""} if isinstance(who, str) else who
    return {
        "id": 22,
        "completed_by": person,
        "result": result,
        "was_cancelled": False,
        "ground_truth": False,
        "created_at": "2026-11-28T09:59:00.000000Z",
        "updated_at": DECIDED,
        "draft_created_at": None,
        "lead_time": 8.65,
        "prediction": {},
        "result_count": 1,
        "unique_id": "3bc9da85-967f-47a1-bfa8-410206e54cf9",
        "import_id": None,
        "last_action": None,
        "task": 1,
        "project": 3,
        "updated_by": 7,
        "parent_prediction": 1,
        "parent_annotation": None,
        "last_created_by": None,
        **other,
    }


def _task(number: int, task: dict[str, Any], changes: Changes, who: Any) -> dict[str, Any]:
    decisions = changes.get(task["data"]["image_id"])
    annotations = []
    if decisions is not None:
        (prediction,) = task["predictions"]
        chosen = {each["from_name"]: list(each["value"]["choices"]) for each in prediction["result"]}
        for label, decision in decisions.items():
            for control, meant in (("labels", "yes"), ("unclear", "unknown")):
                kept = [name for name in chosen.get(control, []) if name != label]
                chosen[control] = [*kept, label] if decision == meant else kept
        result = [
            {
                "id": f"a1B{position}",
                "type": "choices",
                "value": {"choices": names},
                "origin": "prediction-changed",
                "to_name": "image",
                "from_name": control,
            }
            for position, (control, names) in enumerate(chosen.items())
            if names
        ]
        annotations = [label_studio_annotation(result, who)]
    return {
        "id": number,
        "annotations": annotations,
        "file_upload": "0a1b2c3d-tasks.json",
        "drafts": [],
        "predictions": task["predictions"],
        "data": task["data"],
        "meta": {},
        "created_at": "2026-11-28T09:00:00.000000Z",
        "updated_at": DECIDED,
        "inner_id": number,
        "total_annotations": len(annotations),
        "cancelled_annotations": 0,
        "total_predictions": 1,
        "comment_count": 0,
        "project": 3,
        "updated_by": 7,
        "comment_authors": [],
    }


def cvat_export(folder: Path, changes: Changes, out: Path, *, by_attribute: bool = False) -> Path:
    """CVAT's zip of a task into which our tags were uploaded, with the labels of our `labels.json`.

    CVAT forgets the `source` of what it imports and writes `file`. Of a label that is no more, the tag was deleted; or,
    with `by_attribute`, its attribute `decision` was set.
    """
    labels = json.loads((folder / "labels.json").read_text())
    root = ElementTree.parse(folder / "annotations.xml").getroot()
    images = [_image(image, changes.get(str(image.get("name")), {}), by_attribute) for image in root.iter("image")]
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("annotations.xml", cvat_xml([label["name"] for label in labels], "".join(images)))
    return out


def cvat_xml(labels: list[str], images: str, *, unit: str = "task", assignee: str = "ann", version: str = "1.1") -> str:
    """The XML of a task (or job) of CVAT with these labels and images."""
    listed = "".join(
        f"        <label>\n          <name>{escape(name)}</name>\n          <color>#24b353</color>\n"
        "          <type>tag</type>\n          <attributes>\n          </attributes>\n        </label>\n"
        for name in labels
    )
    people = f"<username>{assignee}</username>\n        <email>{assignee}@example.org</email>" if assignee else ""
    return (
        f'<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>{version}</version>\n  <meta>\n'
        f"    <{unit}>\n      <id>5</id>\n      <name>pets</name>\n      <size>4</size>\n"
        "      <mode>annotation</mode>\n      <overlap>0</overlap>\n      <bugtracker></bugtracker>\n"
        "      <created>2026-11-28 09:00:00.000000+00:00</created>\n"
        "      <updated>2026-11-28 10:00:00.250000+00:00</updated>\n      <subset>default</subset>\n"
        "      <start_frame>0</start_frame>\n      <stop_frame>3</stop_frame>\n      <frame_filter></frame_filter>\n"
        f"      <labels>\n{listed}      </labels>\n"
        "      <segments>\n        <segment>\n          <id>9</id>\n          <start>0</start>\n"
        "          <stop>3</stop>\n          <url>http://localhost:8080/api/jobs/9</url>\n        </segment>\n"
        "      </segments>\n      <owner>\n        <username>admin</username>\n        <email></email>\n"
        f"      </owner>\n      <assignee>{people}</assignee>\n    </{unit}>\n"
        f"    <dumped>2026-11-28 10:30:00.000000+00:00</dumped>\n  </meta>\n{images}</annotations>\n"
    )


def cvat_tag(label: str, source: str = "manual", **attributes: str) -> str:
    """A tag as CVAT writes it."""
    inner = "".join(
        f'      <attribute name="{name}">{escape(value)}</attribute>\n' for name, value in attributes.items()
    )
    return f'    <tag label={quoteattr(label)} source="{source}">\n{inner}    </tag>\n'


def cvat_image(number: int, name: str, tags: str, **other: str) -> str:
    """An image as CVAT writes it."""
    more = "".join(f' {key}="{value}"' for key, value in other.items())
    return f'  <image id="{number}" name={quoteattr(name)}{more} width="8" height="6">\n{tags}  </image>\n'


def _image(image: ElementTree.Element, decisions: Mapping[str, str], by_attribute: bool) -> str:
    tags = []
    for tag in image.iter("tag"):
        label = str(tag.get("label"))
        attributes = {str(each.get("name")): each.text or "" for each in tag.iter("attribute")}
        attributes.setdefault("score", "1")  # the default of the label's attribute
        decision = decisions.get(label)
        if decision == "no" and not by_attribute:
            continue
        attributes["decision"] = decision or attributes["decision"]
        tags.append(cvat_tag(label, "file", **attributes))
    there = {tag.get("label") for tag in image.iter("tag")}
    for label, decision in decisions.items():
        if label not in there and decision != "no":
            tags.append(cvat_tag(label, "manual", score="1", decision=decision))
    return cvat_image(int(image.get("id") or 0), str(image.get("name")), "".join(tags))


def fiftyone_session(folder: Path, changes: Changes, out: Path) -> dict[str, Any]:
    """Let FiftyOne open our export, change labels and export to `out`; return what it had read."""
    packages = Path(sysconfig.get_path("data")) / "fiftyone"
    if not packages.is_dir():
        install = f"pip install --no-deps --target {packages} -r .ci/fiftyone.lock"
        pytest.fail(f"FiftyOne is not installed: `make setup`, or {install}")
    home = out.parent / "home"
    home.mkdir(exist_ok=True)
    quiet = {"FIFTYONE_DO_NOT_TRACK": "true", "FIFTYONE_SHOW_PROGRESS_BARS": "false"}
    environment = {**os.environ, "HOME": str(home), "PYTHONPATH": str(packages), **quiet}
    script = Path(__file__).with_name("fiftyone_session.py")
    command = [sys.executable, str(script), str(folder), json.dumps(changes), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=_ROOT)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def fiftyone_export(folder: Path, changes: Changes, out: Path) -> Path:
    """FiftyOne's export of our dataset after labels were tagged in its App, or added."""
    fiftyone_session(folder, changes, out)
    return out


def datumaro_export(folder: Path, changes: Changes, out: Path) -> Path:
    """Datumaro's export of our dataset after a program set the attribute `decision` of labels, or added some."""
    from datumaro import Dataset, Label
    from datumaro.components.annotation import AnnotationType

    dataset = Dataset.import_from(str(folder), "datumaro")
    names = [each.name for each in dataset.categories()[AnnotationType.label].items]
    for item in dataset:
        decisions = changes.get(item.attributes["image_id"], {})
        for label, decision in decisions.items():
            found = [each for each in item.annotations if names[each.label] == label]
            for each in found:
                each.attributes["decision"] = decision
            if not found:
                item.annotations.append(Label(names.index(label), attributes={"decision": decision}))
        if decisions:
            dataset.put(item)
    dataset.export(str(out), "datumaro")
    return out
