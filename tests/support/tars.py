"""Tar archives made in memory, with whatever a member can be."""

from __future__ import annotations

import io
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from tagllm_cli.records import Image
from tagllm_cli.sources.base import ReadFailure, SourceOptions, read_or_failure
from tagllm_cli.sources.tar.source import Tar

Form = Literal["ustar", "gnu", "pax"]
FORMS: Final[dict[Form, Literal[0, 1, 2]]] = {
    "ustar": tarfile.USTAR_FORMAT,
    "gnu": tarfile.GNU_FORMAT,
    "pax": tarfile.PAX_FORMAT,
}
Member = tuple[tarfile.TarInfo, bytes]


def member(name: str, data: bytes = b"", **fields: Any) -> Member:
    """Return a member with these fields of `tarfile.TarInfo` and its data."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def packed(*members: Member, form: Form = "pax") -> bytes:
    """Return an archive of these members."""
    buffer = io.BytesIO()
    with tarfile.open(
        fileobj=buffer, mode="w", format=FORMS[form], encoding="utf-8", errors="surrogateescape"
    ) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@dataclass(frozen=True)
class TarFolder:
    """A folder of tar files, opened as local files or, `remote`, through fsspec: read as a bucket is."""

    path: Path
    remote: bool = False

    def source(self, data: bytes | None = None, **options: Any) -> Tar:
        """Return the tar files as a source, after writing these bytes as `a.tar`."""
        if data is not None:
            (self.path / "a.tar").write_bytes(data)
        return Tar.at(f"file://{self.path}" if self.remote else str(self.path), SourceOptions(**options))

    def read(self, data: bytes | None = None, **options: Any) -> dict[str, bytes | str]:
        """Return what `contents` finds in `source`."""
        return contents(self.source(data, **options))


def contents(source: Tar) -> dict[str, bytes | str]:
    """Return the bytes of each image, or the kind and message of why there are none: read and streamed."""
    found: dict[str, bytes | str] = {}
    for shard in source.shards():
        images = list(source.images(shard))
        each = [(image, told(read_or_failure(source, image))) for image in images]
        assert [(image, told(data)) for image, data in source.stream(shard)] == each
        for step in (1, 2):
            some = source.stream(shard, images[::step])
            assert [(image, told(data)) for image, data in some] == each[::step]
        assert not found.keys() & {image.id for image in images}
        found |= {image.id: data for image, data in each}
        assert len({image.id for image in images}) == len(images)
    return found


def failure(source: Tar, image: Image) -> tuple[str, str]:
    """Return the kind and message of the failure that reading the image must end in."""
    data = read_or_failure(source, image)
    assert isinstance(data, ReadFailure)
    return data.kind, data.message


def told(data: bytes | ReadFailure) -> bytes | str:
    """Return bytes as they are, and of a failure its kind and message."""
    if isinstance(data, bytes):
        return data
    assert "\n" not in data.message
    return f"{data.kind}: {data.message}"
