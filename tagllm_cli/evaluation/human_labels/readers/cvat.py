"""CVAT: "CVAT for images 1.1", the XML, the zip that CVAT exports, or the folder that is in it.

Tags and shapes that a person made (`source` is `manual` or `semi-auto`) are what that person says. Those that came out
of a file or a model (`file`, `auto`) are kept: nobody touched them. A tag of an export of ours has an attribute
`decision`, which a person can set; `proposed` and `unclear` are what we wrote.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from xml.etree import ElementTree

from tagllm_cli.evaluation.human_labels.base import UNKNOWN, YES, HumanLabels, Reader
from tagllm_cli.evaluation.human_labels.readers.gather import DECISIONS, Annotation, count, gathered
from tagllm_cli.evaluation.human_labels.readers.times import microseconds
from tagllm_cli.evaluation.truth.base import TruthFile
from tagllm_cli.evaluation.truth.markup import without_declarations

DECISION, PROPOSED, UNCLEAR = "decision", "proposed", "unclear"
XML_NAME = "annotations.xml"
_ROOT = "annotations"
_BY_HAND = ("manual", "semi-auto")
_LARGEST = 2 << 30  # bytes of XML in a zip: more than a million images, less than a zip made to fill the memory
_HINT = 'Export the task or project from CVAT as "CVAT for images 1.1".'


@dataclass(slots=True)
class _Meta:
    """What `<meta>` says: the labels, and by a task's id ("" where there is one) who has it and when it changed."""

    names: dict[str, None] = field(default_factory=dict)
    people: dict[str, str] = field(default_factory=dict)
    times: dict[str, int] = field(default_factory=dict)


def recognizes(file: TruthFile) -> bool:
    """Return whether there is XML with `<annotations>` around it: a file, in a zip, or in a folder."""
    if file.is_folder:
        return (file.path / XML_NAME).is_file()
    if file.head.startswith(b"PK\x03\x04"):
        return _is_zip_with_xml(file.path)
    return f"<{_ROOT}" in file.start


def read(file: TruthFile) -> HumanLabels:
    """Read the XML. Raises UsageError for damaged or dangerous XML, video tracks, and versions other than 1.1."""
    data = without_declarations(file, _data(file))
    meta = _Meta()
    annotations: list[Annotation] = []
    version, tracks = "", 0
    try:
        for element in _parts(data):
            if element.tag == "version":
                version = (element.text or "").strip()
            elif element.tag == "meta":
                meta = _meta(element)
            elif element.tag == "track":
                tracks += 1
            else:
                annotations.append(_annotation(file, element, meta))
            element.clear()
    except (ElementTree.ParseError, ValueError) as error:
        raise file.error(f"not XML: {error}", "If it was cut off, export or download it again.") from error
    if version != "1.1":
        raise file.error(f"this CVAT XML is of version {version or '1.0'}, and 1.1 is read", _HINT)
    if tracks and not annotations:
        raise file.error("this CVAT XML holds tracks of a video, and no images", _HINT)
    untouched = not any(each.said for each in annotations)
    warnings = ["nobody has set or changed a tag in this file"] if untouched and annotations else []
    return gathered(
        annotations,
        "CVAT for images 1.1",
        names=tuple(meta.names) or None,
        notes=count(tracks, "tracks, which were not read"),
        warnings=warnings,
    )


def _is_zip_with_xml(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(Path(name).name == XML_NAME for name in archive.namelist())
    except zipfile.BadZipFile:
        return True  # truncated: `read` raises the error


def _data(file: TruthFile) -> bytes:
    if file.is_folder:
        return (file.path / XML_NAME).read_bytes()
    if not file.head.startswith(b"PK\x03\x04"):
        return file.path.read_bytes()
    try:
        with zipfile.ZipFile(file.path) as archive:
            found = [info for info in archive.infolist() if Path(info.filename).name == XML_NAME]
            if len(found) != 1:
                raise file.error(f"this zip holds {len(found)} files named {XML_NAME}", _HINT)
            if found[0].file_size > _LARGEST:
                raise file.error(f"{XML_NAME} in this zip has more than {_LARGEST >> 30} GiB", "Unzip it, and name it.")
            return archive.read(found[0])
    except (zipfile.BadZipFile, EOFError, RuntimeError) as error:  # cut off; encrypted
        raise file.error(f"not a zip that can be read: {error}", "Export or download it again.") from error


def _parts(data: bytes) -> Iterator[ElementTree.Element]:
    """Yield the version, the meta data and the images in their order, each with all that is in it."""
    depth = 0
    root: ElementTree.Element | None = None
    for event, element in ElementTree.iterparse(BytesIO(data), ("start", "end")):
        root = element if root is None else root
        depth += 1 if event == "start" else -1
        if event == "end" and depth == 1:
            if element.tag in ("version", "meta", "image", "track"):
                yield element
            root.remove(element)  # a project may hold millions


def _meta(element: ElementTree.Element) -> _Meta:
    meta = _Meta()
    for label in element.iter("label"):
        # Parts of a skeleton are no labels of images.
        if label.findtext("parent") is None and (name := label.findtext("name")):
            meta.names[name] = None
    dumped = microseconds(element.findtext("dumped"))
    units = [*element.iter("task"), *element.iter("job")]
    for unit in units:
        task = "" if len(units) == 1 else unit.findtext("id") or ""
        people = (unit.findtext(f"{role}/username") for role in ("assignee", "owner"))
        meta.people[task] = next((name.strip() for name in people if name and name.strip()), "")
        when = microseconds(unit.findtext("updated"))
        if (when := dumped if when is None else when) is not None:
            meta.times[task] = when
    if dumped is not None:
        meta.times.setdefault("", dumped)
    return meta


def _annotation(file: TruthFile, image: ElementTree.Element, meta: _Meta) -> Annotation:
    name = image.get("name")
    if not name:
        raise file.error("an <image> of this CVAT XML has no name", _HINT)
    task = image.get("task_id") or ""
    who = meta.people.get(task, meta.people.get("", ""))
    found = Annotation(name, who, meta.times.get(task, meta.times.get("")))
    for each in image:
        if (label := each.get("label")) is not None:
            decision = next((at.text or "" for at in each.iter("attribute") if at.get("name") == DECISION), "")
            if decision in DECISIONS:
                found.said.append((label, decision))
            elif decision not in (PROPOSED, UNCLEAR) and _source(each) in _BY_HAND:
                found.said.append((label, YES))
            else:
                found.kept.append((label, UNKNOWN if decision == UNCLEAR else YES))
    return found


def _source(element: ElementTree.Element) -> str:
    return (element.get("source") or element.get("annotation_type") or "manual").lower()  # the latter until 2020


READER = Reader("CVAT for images", recognizes, read)
