"""Which members of a tar shard are images, what they are called and where their bytes lie."""

from __future__ import annotations

import os
import re
import shlex
import tarfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tagllm_cli.records import Image
from tagllm_cli.sources.file_names import EXTENSIONS, SYSTEM_FOLDERS, group_of
from tagllm_cli.sources.folder import escaped, is_utf8
from tagllm_cli.sources.patterns import is_match
from tagllm_cli.sources.storage import StoredFile
from tagllm_cli.sources.tar_members import is_plain

# A hidden file or folder, or a folder that systems make. "." and ".." hide nothing.
_SYSTEM = "|".join(map(re.escape, sorted(SYSTEM_FOLDERS)))
_UNWANTED = re.compile(rf"(?i)(?:^|/)(?:\.(?!\.?(?:/|$))|({_SYSTEM})/)")

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
        unwanted = _UNWANTED.search(name)
        if unwanted is not None and not unwanted[1]:
            return False
        if self._exclude:
            pattern = excluding(f"{self._stored.name}/{name}", self._exclude)
            if pattern is not None:
                self.left_out[excluded_by(pattern)] += 1
                return False
        if unwanted is not None:
            self.left_out[f"{unwanted[1]}/"] += 1
            return False
        ending = os.path.splitext(name)[1].lower()
        if ending in EXTENSIONS:
            return True
        self.left_out[group_of(name.rpartition("/")[2], ending)] += 1
        return False

    def _link(self, member: tarfile.TarInfo) -> str:
        """Return the place of the image that a hard link names, "" where it names none that lies before it."""
        place = self._places.get(_normal(member.linkname), "") if member.islnk() else ""
        return place if "+" in place else ""


def excluding(path: str, globs: Sequence[str]) -> str | None:
    """Return the first glob that leaves out a path or a folder that it lies in."""
    segments = path.split("/")
    above = ["/".join(segments[: count + 1]) for count in range(len(segments))]
    return next((glob for glob in globs if any(is_match(each, glob) for each in above)), None)


def excluded_by(glob: str) -> str:
    """Return what to count under that a glob leaves out."""
    return f"by --exclude {shlex.quote(glob)}"


def _normal(name: str) -> str:
    while name.startswith("./"):
        name = name[2:]
    return name
