"""Which image and which label of a file is which of the table: by name or by content, never by position."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tagllm_cli.errors import UsageError
from tagllm_cli.evaluation.human_labels.base import CheckedImage, HumanLabels, Statement
from tagllm_cli.evaluation.truth import Truth, match_images, paths
from tagllm_cli.evaluation.truth.names import NameIndex
from tagllm_cli.store.table import Table
from tagllm_cli.text import one_line, shortened

_FINGERPRINT_BYTES = 16
_BATCH = 65_536


@dataclass(frozen=True, slots=True)
class Target:
    """An image of the table; without a `fingerprint` it was never read, and nothing can be recorded about it."""

    image: str
    fingerprint: bytes


@dataclass(frozen=True, slots=True)
class Match:
    """A file's images and labels in a table, and those that the table lacks.

    Args:
        images: the table's images, by name in the file.
        by_content: the table's images, by fingerprint in the file.
        labels: names of the vocabulary, by name in the file.
        missing_images, missing_labels: of the file, in its order.
        unread: images of the table that were never read.
        by_file_name: all images lie in other folders, or have another file format.
    """

    images: Mapping[str, Target]
    by_content: Mapping[bytes, Target]
    labels: Mapping[str, str]
    missing_images: Sequence[str]
    missing_labels: Sequence[str]
    unread: Sequence[str]
    by_file_name: bool


class TableImages:
    """Names and fingerprints of a table's images."""

    def __init__(self, table: Table) -> None:
        self.table = table
        columns = ["image_id", "fingerprint"]
        batches = list(table.batches(_BATCH, columns))
        self._ids = pa.chunked_array([each["image_id"] for each in batches], pa.string())
        self._fingerprints = pa.chunked_array([each["fingerprint"] for each in batches], pa.binary())

    @cached_property
    def ids(self) -> list[str]:
        """The images, in the table's order."""
        found: list[str] = self._ids.to_pylist()
        return found

    @cached_property
    def labels(self) -> NameIndex:
        """The labels by name."""
        return NameIndex(self.table.info.vocabulary)

    def named(self, ids: Collection[str]) -> dict[str, Target]:
        """Return some images by name."""
        return {
            target.image: target for target in self._targets(pc.is_in(self._ids, value_set=pa.array(ids, pa.string())))
        }

    def with_content(self, fingerprints: Collection[bytes]) -> dict[bytes, Target]:
        """Return the first image with each of these fingerprints."""
        if not fingerprints:
            return {}
        marks = pc.is_in(self._fingerprints, value_set=pa.array(fingerprints, pa.binary()))
        return {target.fingerprint: target for target in reversed(list(self._targets(marks)))}

    def _targets(self, marks: Any) -> Iterable[Target]:
        names, contents = self._ids.filter(marks).to_pylist(), self._fingerprints.filter(marks).to_pylist()
        return [Target(name, content or b"") for name, content in zip(names, contents, strict=True)]


def match_file(path: Path, found: HumanLabels, images: TableImages) -> Match:
    """Find the images and labels of a file in a table.

    Raises UsageError where none is there (a file of another project), and for what is no fingerprint.
    """
    records: list[Statement | CheckedImage] = [*found.statements, *found.kept, *found.checked]
    keys = dict.fromkeys(each.image for each in records)
    names = dict.fromkeys([each.label for each in (*found.statements, *found.kept)] + list(found.names or ()))
    labels = {name: own for name in names if (own := images.labels.find(name)) is not None}
    contents = {text: fingerprint_of(path, text) for text in {each.fingerprint for each in records} if text}
    by_content = images.with_content(set(contents.values()))
    matched, by_file_name = _matched(keys, images.ids)
    targets = images.named(set(matched.values()))
    known = {key: targets[image] for key, image in matched.items()}
    seen = {each.image for each in records if contents.get(each.fingerprint) in by_content}
    missing = [key for key in keys if key not in known and key not in seen]
    if keys and not known and not by_content:
        raise UsageError(
            f"no image of {path} is in {images.table.path}: it names {_examples(keys)}, "
            f"the table {_examples(images.ids)}",
            "Name the table whose images were shown, or images as in its column `image_id`.",
        )
    if names and not labels:
        raise UsageError(
            f"no label of {path} is in the vocabulary: it names {_examples(names)}, "
            f"the table {_examples(images.labels.names)}",
            "Name the table of this vocabulary, or give its labels these names as synonyms.",
        )
    unread = [target.image for target in targets.values() if not target.fingerprint]
    lacking = [name for name in names if name not in labels]
    return Match(known, by_content, labels, missing, lacking, unread, by_file_name)


def fingerprint_of(path: Path, text: str) -> bytes:
    """Return a fingerprint that a file gives as hex, b"" where it gives none. Raises UsageError for other text."""
    try:
        found = bytes.fromhex(text)
    except ValueError:
        found = b"?"
    if len(found) not in (0, _FINGERPRINT_BYTES):
        raise UsageError(
            f"{path}: {one_line(text, 80)!r} is no fingerprint of an image", "Leave it out, or give 32 hex digits."
        )
    return found


def _matched(keys: Collection[str], ids: Sequence[str]) -> tuple[dict[str, str], bool]:
    """Return the table's image of each key. Keys that differ only in how a tool writes the path name one image."""
    aliases: dict[str, list[str]] = {}
    for key in keys:
        aliases.setdefault(paths.normalized(key), []).append(key)
    same: dict[str, list[str]] = {}
    if len(aliases) < len(keys):
        own = {key for several in aliases.values() if len(several) > 1 for key in several}.intersection(ids)
        for several in aliases.values():
            exact = [key for key in several if key in own]
            first = exact[0] if exact else several[0]
            same[first] = [key for key in several if key not in exact[1:]]
            same.update({key: [key] for key in exact[1:]})
    else:
        same = {key: [key] for key in keys}
    match = match_images(Truth(dict.fromkeys(same, frozenset()), (), False), ids)
    return {key: image for image, first in match.keys.items() for key in same[first]}, match.by_file_name


def _examples(names: Iterable[str]) -> str:
    return shortened([one_line(name, 60) for name in list(names)[:2]]) or "none"
