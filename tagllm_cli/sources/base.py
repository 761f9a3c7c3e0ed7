"""The interface of every source: list images, read them, and say how to open the same source again.

A source consists of shards, in the order of their names; an image belongs to one of them. Folders and manifests are one
shard without a name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import groupby, islice
from typing import Any, Protocol

from tagllm_cli.errors import SourceError
from tagllm_cli.records import Image, Shard, SourceInfo
from tagllm_cli.sources.storage.patterns import shown

_KNOWN = "Known endings: jpg, png, webp, gif, bmp, tiff, avif, heic, jxl, jp2 and those of camera raw files."
IMAGES_PER_STREAM = 10_000  # of one shard, in one call of `Source.stream`

# Failures that say something about the storage, and nothing about the image: no permission any more, no connection.
STORAGE_KINDS = frozenset({"forbidden", "unreachable"})


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """What a listing takes and leaves out. Options that a kind of source does not know must be the defaults.

    Args:
        exclude: globs of paths to leave out.
        skip_unreadable: whether folders that cannot be listed are left out.
        pattern: a glob, with braces, that the names of shards match; "": all below the source.
        splits: splits of a Parquet dataset to take; (): all.
        image_column: column that holds the images; "": the one that is unambiguous.
        id_column: column that holds the image ids; "": none.
    """

    exclude: tuple[str, ...] = ()
    skip_unreadable: bool = False
    pattern: str = ""
    splits: tuple[str, ...] = ()
    image_column: str = ""
    id_column: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the options that differ from the defaults, as plain JSON values for `SourceInfo.options`.

        >>> SourceOptions(exclude=("*.gif",)).to_json()
        {'exclude': ['*.gif']}
        """
        given = {name: value for name, value in asdict(self).items() if value}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> SourceOptions:
        """Return the options that `to_json` wrote; those of a newer release are ignored."""
        known = {each.name: values[each.name] for each in fields(cls) if each.name in values}
        given: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in known.items()
        }
        return cls(**given)


DEFAULT_OPTIONS = SourceOptions()


class ReadFailure(Exception):
    """The bytes of one image cannot be read: a `kind` to count by, and a message for people."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(kind, message)
        self.kind = kind
        self.message = message


class Source(Protocol):
    """Images that can be listed in a stable order and read, from several threads at once.

    A shard that is damaged, or cannot be read at all, has one more image: its id and uri are the name of the shard, and
    reading it fails with the reason. What could be read of the shard is listed before it.
    """

    @property
    def left_out(self) -> Mapping[str, int]:
        """What was left out of the shards listed so far, with counts: `{".mp4": 3, "@eaDir/": 1}`.

        The counts of a shard are those of its last complete listing.
        """

    @property
    def is_ordered(self) -> bool:
        """Whether images are to be read with `stream`: reading one by one is far slower."""

    @property
    def lists_by_reading(self) -> bool:
        """Whether `images` has to read the shard; then its images should become known from `stream`."""

    @property
    def readers(self) -> int:
        """How many calls of `read` at a time are worthwhile."""

    def check(self) -> None:
        """Raise SourceError where the shards cannot be listed now."""

    def shards(self) -> Iterator[Shard]:
        """Yield every shard once, in the order of their names (as plain strings), without opening one.

        Raises SourceError where a part cannot be listed, or where there is not one shard.
        """

    def images(self, shard: Shard) -> Iterator[Image]:
        """Yield the shard's images, in the same order each time; ids are unique in the source and stable.

        A shard may have no image. Raises SourceError where a part of the only shard cannot be listed: its listing is
        complete or nothing. An image that is listed but cannot be read is for `read` to refuse.
        """

    def read(self, image: Image) -> bytes:
        """Return the image's encoded bytes. Raises ReadFailure."""

    def stream(
        self, shard: Shard, images: Sequence[Image] | None = None
    ) -> Iterator[tuple[Image, bytes | ReadFailure]]:
        """Yield the shard's images with their bytes in order, reading ahead as the storage likes it, for one thread.

        Of `images`, which are in order, all and no others are yielded; None: all that there are. Raises nothing that
        the storage is to blame for.
        """

    def shard_of(self, uri: str) -> str:
        """Return the name of the shard that the image with this uri lies in, as a table remembers it."""

    def locate(self, image: Image) -> str | None:
        """Return the absolute path or URL of the image's own file, None where it has none (a member of an archive)."""

    def describe(self) -> SourceInfo:
        """Return what `registry.reopen` opens the same source from, without secrets."""


class HasColumns(Protocol):
    """A source whose images are rows with columns: a manifest, Parquet files."""

    def column(self, name: str) -> Callable[[Image], str | None]:
        """Return what gives an image its value in a column, as text; None: there is none.

        Raises SourceError, at once or for the first image, where there is no such column.
        """


def list_images(source: Source) -> Iterator[Image]:
    """Yield all images of a source. Shards are read for it where there is no other way.

    Raises SourceError where the shards cannot be listed, or where there is not one image.
    """
    found = False
    for shard in source.shards():
        for image in source.images(shard):
            found = True
            yield image
    if not found:
        raise no_images(source)


def no_images(source: Source) -> SourceError:
    """Return the error of a source in which a complete listing has found no image."""
    left_out = summarize_left_out(source.left_out)
    hint = f"Left out: {left_out}. {_KNOWN}" if left_out else _KNOWN
    info = source.describe()
    pattern = SourceOptions.from_json(info.options).pattern
    place = f"{info.uri}/{shown(pattern)}" if pattern else info.uri
    return SourceError(f"there are no images in {place}", hint)


def recall(source: Source, image_id: str, uri: str) -> Image:
    """Return an image that a table remembers."""
    return Image(image_id, uri, shard=source.shard_of(uri))


def read_all(source: Source, images: Iterable[Image]) -> Iterator[tuple[Image, bytes | ReadFailure]]:
    """Yield images with their bytes or why there are none, as the source reads them best; give them in its order."""
    if not source.is_ordered:
        for image in images:
            yield image, read_or_failure(source, image)
        return
    for shard, some in groupby(images, lambda image: image.shard):
        while chunk := list(islice(some, IMAGES_PER_STREAM)):
            yield from source.stream(Shard(shard), chunk)


def read_one_by_one(
    source: Source, shard: Shard, images: Sequence[Image] | None
) -> Iterator[tuple[Image, bytes | ReadFailure]]:
    """Yield what `Source.stream` does, for images that are files of their own."""
    for image in source.images(shard) if images is None else images:
        yield image, read_or_failure(source, image)


def read_or_failure(source: Source, image: Image) -> bytes | ReadFailure:
    """Return what `read` returns or raises."""
    try:
        return source.read(image)
    except ReadFailure as failure:
        return failure


def summarize_left_out(left_out: Mapping[str, int], most: int = 6) -> str:
    """Return the counts in one line, the largest first, at most `most` of them; "" where nothing was left out.

    >>> summarize_left_out({".xmp": 1, ".mp4": 3000, "@eaDir/": 2})
    '3,000 .mp4, 2 @eaDir/, 1 .xmp'
    >>> summarize_left_out({".xmp": 1, ".mp4": 3, ".txt": 2, ".csv": 1}, most=2)
    '3 .mp4, 2 .txt and 2 others'
    """
    ranked = sorted(left_out.items(), key=lambda item: (-item[1], item[0]))
    shown = ", ".join(f"{count:,} {what}" for what, count in ranked[:most])
    rest = sum(count for _, count in ranked[most:])
    return f"{shown} and {rest:,} other{'s' if rest > 1 else ''}" if rest else shown
