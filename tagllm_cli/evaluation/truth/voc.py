"""Pascal VOC: a folder of XML files, one per image, with a name per object."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from tagllm_cli.evaluation.truth.base import Collector, Dialect, Truth, TruthFile
from tagllm_cli.evaluation.truth.markup import without_declarations


@dataclass(frozen=True, slots=True)
class _Annotation:
    """One file: two names for its image, and its objects with whether each is difficult."""

    written: str  # `folder` and `filename` as the file has them
    own: str  # the path of the XML file, without its ending
    objects: tuple[tuple[str, bool], ...]


def recognizes(file: TruthFile) -> bool:
    """Return whether there is XML: one file, or a folder with some."""
    return file.start.startswith("<") or (file.is_folder and next(file.path.rglob("*.xml"), None) is not None)


def read(file: TruthFile) -> Truth:
    """Read the files below a folder. A label of which only difficult objects are there is not judged."""
    paths = sorted(file.path.rglob("*.xml")) if file.is_folder else [file.path]
    annotations = [_parsed(file, path) for path in paths]
    written, own = ([getattr(each, name) for each in annotations] for name in ("written", "own"))
    index = file.table.image_index if file.table else None
    # Tools copy files without renaming the image in them; then the name of the XML file is the right one.
    is_stale = bool(index and index.share(own) > index.share(written)) or not all(written)
    found = Collector()
    for key, each in zip(own if is_stale else written, annotations, strict=True):
        found.add(key)
        found.add(key, (name for name, is_difficult in each.objects if is_difficult), present=None)
        found.add(key, (name for name, is_difficult in each.objects if not is_difficult))
    notes = ["images are named like their XML files: the table does not have most names in them"] if is_stale else []
    return found.truth(f"Pascal VOC XML, {len(paths):,} files", notes=notes)


def _parsed(file: TruthFile, path: Path) -> _Annotation:
    where = TruthFile(path)
    try:
        root = ElementTree.fromstring(without_declarations(where, path.read_bytes()))
    except (ElementTree.ParseError, ValueError) as error:
        raise where.error(f"not XML: {error}") from error
    if root.tag != "annotation":
        hint = "Name a folder of Pascal VOC XML files, each of which is an <annotation>."
        raise where.error(f"this XML is no Pascal VOC annotation, but <{root.tag}>", hint)
    parts = (_text(root, "folder"), _text(root, "filename"))
    below = path.relative_to(file.path) if file.is_folder else Path(path.name)
    objects = tuple((name, _text(each, "difficult") == "1") for each in root.iter("object") for name in _names(each))
    return _Annotation("/".join(filter(None, parts)) if parts[1] else "", below.with_suffix("").as_posix(), objects)


def _names(element: ElementTree.Element) -> Iterator[str]:
    if name := _text(element, "name"):
        yield name


def _text(element: ElementTree.Element, tag: str) -> str:
    return (element.findtext(tag) or "").strip()


DIALECT = Dialect("Pascal VOC XML", recognizes, read)
