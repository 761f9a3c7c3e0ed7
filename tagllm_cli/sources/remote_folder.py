"""Image files below a URL: a bucket, or a folder in one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import ClassVar

from tagllm_cli.records import Image, Shard, SourceInfo
from tagllm_cli.sources.base import DEFAULT_OPTIONS, ReadFailure, SourceOptions, read_one_by_one
from tagllm_cli.sources.storage.file_names import why_left_out
from tagllm_cli.sources.storage.remote import RemoteFiles
from tagllm_cli.sources.storage.storage import Storage
from tagllm_cli.sources.storage.stored import StoredFile


class RemoteFolder:
    """The image files below `root`, a URL; ids, uris, order and what is left out are those of `Folder`."""

    is_ordered: ClassVar[bool] = False
    lists_by_reading: ClassVar[bool] = False
    readers: ClassVar[int] = 32

    def __init__(self, root: str, options: SourceOptions = DEFAULT_OPTIONS) -> None:
        self.left_out: Counter[str] = Counter()
        self._storage = Storage(root)
        self._files = RemoteFiles(self._storage.root)
        self._options = options

    def check(self) -> None:
        """Raise SourceError where the folder cannot be listed."""
        self._storage.check()

    def describe(self) -> SourceInfo:
        """Return the kind `folder`, the URL of the root without secrets, and the options that are not the defaults."""
        return SourceInfo("folder", self._storage.root, self._options.to_json())

    def shards(self) -> Iterator[Shard]:
        """Yield the one shard without a name, of which no version is known."""
        yield Shard()

    def images(self, shard: Shard) -> Iterator[Image]:
        """Yield the images in the order of their paths' segments, their versions as the listing has them.

        The whole listing is in memory. Raises SourceError where it cannot be had.
        """
        counts: Counter[str] = Counter()
        skipped: set[str] = set()  # folders that are left out, each counted once
        for file in sorted(self._files.everything(), key=lambda file: file.name.split("/")):
            if self._is_image(file, skipped, counts):
                yield Image(file.name, file.name, file.version)
        self.left_out.clear()
        self.left_out.update(counts)

    def read(self, image: Image) -> bytes:
        """Return the image's encoded bytes. Raises ReadFailure of a kind of `Storage.read_whole`."""
        return self._storage.read_whole(image.uri)

    def stream(
        self, shard: Shard, images: Sequence[Image] | None = None
    ) -> Iterator[tuple[Image, bytes | ReadFailure]]:
        """Yield the images with their bytes, one file after the other."""
        return read_one_by_one(self, shard, images)

    def shard_of(self, uri: str) -> str:
        """Return the name of the only shard."""
        return ""

    def locate(self, image: Image) -> str | None:
        """Return the URL of the image."""
        return self._storage.locate(image.uri)

    def _is_image(self, file: StoredFile, skipped: set[str], counts: Counter[str]) -> bool:
        names = file.name.split("/")
        for depth in range(1, len(names) + 1):
            path = "/".join(names[:depth])
            if names[depth - 1].startswith(".") or path in skipped:
                return False
            is_folder = depth < len(names)
            why = why_left_out(path, is_folder, self._options.exclude)
            if why is not None:
                counts[why] += 1
                if is_folder:
                    skipped.add(path)
                return False
        return True
