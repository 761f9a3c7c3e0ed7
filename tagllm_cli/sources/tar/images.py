"""Which members of a tar shard are images, what they are called and where their bytes lie."""

from __future__ import annotations

import re
import tarfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tagllm_cli.records import Image
from tagllm_cli.sources.folder import escaped, is_utf8
from tagllm_cli.sources.storage.file_names import why_left_out
from tagllm_cli.sources.storage.storage import StoredFile
from tagllm_cli.sources.tar.members import is_plain

# A hidden file or folder; "." and ".." hide nothing.
_HIDDEN = re.compile(r"(?:^|/)\.(?!\.?(?:/|$))")

_URI = re.compile(r"(?s)(.*)#(\d{1,18})(?:\+(\d{1,18}))?")


@dataclass(frozen=True, slots=True)
class Place:
    """Where an image lies: its shard, and there the position of its data and their length in bytes.

    Without `length`, `start` is where the headers of a member lie whose data is not read; without both, it is the image
    that stands for a damaged shard.
    """

    shard: str
    start: int | None = None
    length: int | None = None

    @classmethod
    def of(cls, uri: str) -> Place:
        """Return the place that a uri names.

        >>> Place.of("a#1.tar#512+9")
        Place(shard='a#1.tar', start=512, length=9)
        >>> Place.of("a.tar#512").length, Place.of("a#1.tar")
        (None, Place(shard='a#1.tar', start=None, length=None))
        """
        found = _URI.fullmatch(uri)
        if found is None:
            return cls(uri)
        shard, start, length = found.groups()
        return cls(shard, int(start), None if length is None else int(length))


class Catalog:
    """The images of one shard, from its members in their order, and in `left_out` the counts of the others."""

    def __init__(self, stored: StoredFile, exclude: Sequence[str]) -> None:
        self.left_out: Counter[str] = Counter()
        self._stored, self._exclude = stored, exclude
        self._places: dict[str, str] = {}  # of the last member of each name
        self._copies: Counter[str] = Counter()
        self._folder = ""  # of the last member
        self._why: str | None = None  # what is in it is left out

    def image(self, member: tarfile.TarInfo) -> Image | None:
        """Return the image that a member is, None where it is none or is left out."""
        name = _normal(member.name)
        if member.isdir() or not self._is_wanted(name):
            return None
        if is_plain(member):
            place = f"#{member.offset_data}+{member.size}"
        else:
            place = self._link(member) or f"#{member.offset}"
        shard, version = self._stored.name, self._stored.version
        image_id = f"{shard}/{name}"
        if not name.isascii() and not is_utf8(name):
            image_id = escaped(image_id)
        if name in self._places:
            self._copies[name] += 1
            image_id = f"{image_id}#{self._copies[name] + 1}"  # the name of no other image: it has no image's ending
        self._places[name] = place
        return Image(image_id, shard + place, version and version + place, shard)

    def damage(self) -> Image:
        """Return the image that stands for what cannot be read of the shard."""
        return Image(self._stored.name, self._stored.name, self._stored.version, self._stored.name)

    def _is_wanted(self, name: str) -> bool:
        if _HIDDEN.search(name):
            return False
        folder = name.rpartition("/")[0]
        if folder != self._folder:  # of many members in a row
            self._folder, self._why = folder, why_folder_left_out(f"{self._stored.name}/{folder}", self._exclude)
        reason = self._why or why_left_out(f"{self._stored.name}/{name}", False, self._exclude)
        if reason is None:
            return True
        self.left_out[reason] += 1
        return False

    def _link(self, member: tarfile.TarInfo) -> str:
        """Return the place of the image that a hard link names, "" where it names none that lies before it."""
        place = self._places.get(_normal(member.linkname), "") if member.islnk() else ""
        return place if "+" in place else ""


def why_folder_left_out(path: str, exclude: Sequence[str]) -> str | None:
    """Return what to count under that lies in a folder (or shard), from the first one above it that is left out.

    >>> why_folder_left_out("a.tar/__MACOSX/b", ()), why_folder_left_out("a.tar/b", ())
    ('__MACOSX/', None)
    """
    segments = path.split("/")
    above = ("/".join(segments[:count]) for count in range(1, len(segments) + 1))
    return next((reason for each in above if (reason := why_left_out(each, True, exclude)) is not None), None)


def _normal(name: str) -> str:
    while name.startswith("./"):
        name = name[2:]
    return name
