"""Tar shards, as WebDataset writes them: images in tar files below a root, local or remote."""

from __future__ import annotations

import os
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from io import BytesIO

from tagllm_cli.errors import SourceError
from tagllm_cli.records import Image, Shard, SourceInfo
from tagllm_cli.sources.base import (
    DEFAULT_OPTIONS,
    STORAGE_KINDS,
    ReadFailure,
    SourceOptions,
    read_one_by_one,
    read_or_failure,
    summarize_left_out,
)
from tagllm_cli.sources.read import MAX_FILE_BYTES, failure_of
from tagllm_cli.sources.storage.file_names import why_left_out
from tagllm_cli.sources.storage.patterns import shown
from tagllm_cli.sources.storage.storage import Storage, StoredFile
from tagllm_cli.sources.tar.files import ForwardFile, LocalReader
from tagllm_cli.sources.tar.images import Catalog, Place, why_folder_left_out
from tagllm_cli.sources.tar.members import cut_short, is_plain, refusal, walk

# Archives that would have to be unpacked: they are counted, so that nobody thinks they were read.
_PACKED = (".tgz", ".tar.gz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tar.lz4", ".zip", ".7z", ".rar")

_HEADERS = 1 << 16  # bytes that the headers of one member fit into
_REMOTE_READERS = 8
_REQUEST_BYTES = 8 << 20  # are read in the time that one more request takes


class Tar:
    """The images in the tar files below a root; nothing is unpacked.

    An image's id is `shard.tar/member`, its uri `shard.tar#OFFSET+LENGTH` of its data in bytes. Members of one name are
    images of their own: the second one's id ends in `#2`. A member that is a link, a device or sparse has the uri
    `shard.tar#OFFSET` of its headers, and reading it fails with the reason; a hard link to an image before it is read.
    """

    def __init__(self, storage: Storage, options: SourceOptions = DEFAULT_OPTIONS) -> None:
        self.storage = storage
        self.options = options
        self.is_ordered = self.lists_by_reading = not storage.is_local
        self.readers = min(16, max(2, os.cpu_count() or 1)) if storage.is_local else _REMOTE_READERS
        self._left_out: dict[str, Counter[str]] = {}  # of each shard, and of all others under ""
        self._damages: dict[str, ReadFailure] = {}
        self._reader = LocalReader(self.storage)

    @classmethod
    def at(cls, root: str, options: SourceOptions = DEFAULT_OPTIONS) -> Tar:
        """Return the source at an absolute path or URL, which is not looked at."""
        return cls(Storage(root), options)

    @property
    def left_out(self) -> Mapping[str, int]:
        """What was left out of the shards listed so far: other members by ending, and files that are no tar files."""
        return sum(list(self._left_out.values()), Counter[str]())

    def check(self) -> None:
        """Raise SourceError where the root cannot be listed now."""
        self.storage.check(self.options.pattern)

    def describe(self) -> SourceInfo:
        """Return the kind `tar`, the root, and the options that are not the defaults."""
        return SourceInfo("tar", self.storage.root, self.options.to_json())

    def shards(self) -> Iterator[Shard]:
        """Yield the tar files that the options allow, in the order of their names.

        Raises SourceError where they cannot be listed, or where there is none.
        """
        counts: Counter[str] = Counter()
        any_found = False
        for stored in self.storage.find((".tar", *_PACKED), self.options.pattern):
            reason = why_folder_left_out(stored.name, self.options.exclude)
            if reason is None and stored.name.lower().endswith(_PACKED):
                reason = why_left_out(stored.name, False, ())
            if reason is not None:
                counts[reason] += 1
            else:
                any_found = True
                yield Shard(stored.name, stored.version)
        self._left_out[""] = counts
        if not any_found:
            left_out = f"Left out: {summarize_left_out(counts)}. " if counts else ""
            hint = f"{left_out}Name a folder of .tar files; decompress .tar.gz with gunzip, unpack .zip."
            matching = f" that match {shown(self.options.pattern)!r}" if self.options.pattern else ""
            raise SourceError(f"there are no tar files in {self.storage.root}{matching}", hint)

    def images(self, shard: Shard) -> Iterator[Image]:
        """Yield the shard's images in the order of the archive, from its headers; without ranges by reading all of it.

        An image is a member with one of EXTENSIONS in any case. Left out are hidden members and what `left_out` counts.
        """
        for image, _ in self._listed(shard, reads=False):
            yield image

    def read(self, image: Image) -> bytes:
        """Return the image's encoded bytes. Raises ReadFailure."""
        place = Place.of(image.uri)
        if place.start is None:
            raise self._damage(place.shard)
        stored = StoredFile(place.shard, -1, "")
        if self.storage.is_local or image.version:
            stored = self.storage.stat(place.shard)
            _check_version(image, stored)
        if place.length is None:
            raise self._refusal(place.shard, place.start)
        _check_size(place.length)
        if 0 <= stored.size < place.start + place.length:
            raise cut_short(stored.size, image.id)
        if self.storage.is_local:
            data = self._reader.read(stored, place.start, place.length)
        else:
            data = self.storage.read(place.shard, place.start, place.length)
        if len(data) < place.length:
            raise cut_short(place.start + len(data), image.id)
        return data

    def stream(
        self, shard: Shard, images: Sequence[Image] | None = None
    ) -> Iterator[tuple[Image, bytes | ReadFailure]]:
        """Yield the images with their bytes; a remote shard is opened once and read from front to back."""
        if self.storage.is_local:
            yield from read_one_by_one(self, shard, images)
        elif images is None:
            for image, data in self._listed(shard, reads=True):
                assert data is not None
                yield image, data
        else:
            yield from self._stream_some(shard, images)

    def shard_of(self, uri: str) -> str:
        """Return the name of the tar file."""
        return Place.of(uri).shard

    def locate(self, image: Image) -> str | None:
        """Return None: a member has no file of its own."""
        return None

    def _listed(self, shard: Shard, *, reads: bool) -> Iterator[tuple[Image, bytes | ReadFailure | None]]:
        """Yield the images, with their bytes if `reads`, and at the end the one that stands for what cannot be read."""
        catalog = Catalog(StoredFile(shard.name, -1, shard.version), self.options.exclude)
        damage = None
        try:
            stored = self.storage.stat(shard.name)
            catalog = Catalog(stored, self.options.exclude)
            yield from self._members(stored, catalog, reads=reads)
        except ReadFailure as failure:
            damage = ReadFailure(failure.kind, failure.message)  # without the frames that it came through
        self._left_out[shard.name] = catalog.left_out
        if damage is None:
            self._damages.pop(shard.name, None)
        else:
            self._damages[shard.name] = damage
            yield catalog.damage(), damage

    def _members(
        self, stored: StoredFile, catalog: Catalog, *, reads: bool
    ) -> Iterator[tuple[Image, bytes | ReadFailure | None]]:
        """Yield the images. Raises ReadFailure behind the last one that can be read."""
        if self.storage.is_local:
            try:
                with self.storage.open(stored.name) as file:
                    for member in walk(file, stored.size):
                        image = catalog.image(member)
                        if image is not None:
                            yield image, None
            except OSError as error:  # a failing disk
                raise failure_of(self.storage.locate(stored.name), error) from error
            if self.storage.stat(stored.name).version != stored.version:
                raise ReadFailure("changed", "the file changed while it was listed; run again")
            return
        with ForwardFile(self.storage, stored) as forward:
            reads = reads or forward.size < 0  # else a member that is cut short would be listed as an image
            for member in walk(forward, forward.size):
                image = catalog.image(member)
                if image is not None:
                    yield image, self._data(forward, member, image) if reads else None

    def _data(self, file: ForwardFile, member: tarfile.TarInfo, image: Image) -> bytes | ReadFailure:
        """Return the bytes of the member that the file stands before. Raises ReadFailure where it breaks."""
        if not is_plain(member):
            return refusal(member) if Place.of(image.uri).length is None else read_or_failure(self, image)
        try:
            _check_size(member.size)
        except ReadFailure as failure:
            return failure
        file.seek(member.offset_data)
        data = file.read(member.size)
        if len(data) < member.size:
            raise cut_short(file.tell(), member.name)
        return data

    def _stream_some(self, shard: Shard, images: Sequence[Image]) -> Iterator[tuple[Image, bytes | ReadFailure]]:
        try:
            stored = self.storage.stat(shard.name)
            file = ForwardFile(self.storage, stored)
        except ReadFailure as failure:
            yield from ((image, failure) for image in images)
            return
        broken = None
        with file:
            read = self.read if file.is_seekable and _is_sparse(images) else partial(self._read_on, file, stored)
            for image in images:
                if broken is not None:
                    yield image, broken
                    continue
                try:
                    data: bytes | ReadFailure = read(image)
                except ReadFailure as failure:
                    data = failure
                    broken = failure if failure.kind in STORAGE_KINDS else file.failure
                yield image, data

    def _read_on(self, file: ForwardFile, stored: StoredFile, image: Image) -> bytes:
        place = Place.of(image.uri)
        if place.start is None or place.length is None or place.start < file.tell():
            return self.read(image)
        _check_version(image, stored)
        _check_size(place.length)
        file.seek(place.start)
        data = file.read(place.length)
        if len(data) < place.length:
            raise cut_short(file.tell(), image.id)
        return data

    def _damage(self, shard: str) -> ReadFailure:
        """Return why a shard cannot be read to its end, from its listing or from reading it once more."""
        known = self._damages.get(shard)
        if known is not None:
            return known
        try:
            stored = self.storage.stat(shard)
            for _ in self._members(stored, Catalog(stored, ()), reads=False):
                pass
        except ReadFailure as failure:
            return failure
        return ReadFailure("changed", "the archive can be read now; run again")

    def _refusal(self, shard: str, start: int) -> ReadFailure:
        """Return why a member is not read whose headers begin at `start`."""
        member = next(walk(BytesIO(self.storage.read(shard, start, _HEADERS)), -1), None)
        if member is None or is_plain(member):
            return ReadFailure("changed", "the archive changed since it was listed; run again")
        return refusal(member)


def _is_sparse(images: Sequence[Image]) -> bool:
    """Tell whether requests for single images take less time than reading what lies between them."""
    starts = [start for image in images if (start := Place.of(image.uri).start) is not None]
    return bool(starts) and max(starts) - min(starts) > len(images) * _REQUEST_BYTES


def _check_version(image: Image, stored: StoredFile) -> None:
    if image.version and stored.version and image.version != stored.version + image.uri[len(stored.name) :]:
        raise ReadFailure("changed", "the archive changed since it was listed; run again")


def _check_size(length: int) -> None:
    if length > MAX_FILE_BYTES:
        raise ReadFailure("too_large", f"{length} bytes, more than {MAX_FILE_BYTES}")
