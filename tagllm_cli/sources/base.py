"""The interface of every source: list images, read one, and say how to open the same source again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from tagllm_cli.records import Image, SourceInfo


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """What a listing leaves out: paths that match a glob of `exclude`, and folders that cannot be listed."""

    exclude: tuple[str, ...] = ()
    skip_unreadable: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the options that differ from the defaults, as plain JSON values for `SourceInfo.options`.

        >>> SourceOptions(exclude=("*.gif",)).to_json()
        {'exclude': ['*.gif']}
        """
        given: dict[str, Any] = {"exclude": list(self.exclude)} if self.exclude else {}
        return given | ({"skip_unreadable": True} if self.skip_unreadable else {})

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> SourceOptions:
        """Return the options that `to_json` wrote."""
        return cls(tuple(values.get("exclude", ())), bool(values.get("skip_unreadable", False)))


DEFAULT_OPTIONS = SourceOptions()


class ReadFailure(Exception):
    """The bytes of one image cannot be read: a `kind` to count by, and a message for people."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(kind, message)
        self.kind = kind
        self.message = message


class Source(Protocol):
    """Images that can be listed in a stable order and read one by one, from several threads at once."""

    @property
    def left_out(self) -> Mapping[str, int]:
        """What the last complete listing left out, with counts: `{".mp4": 3, "@eaDir/": 1}`; empty before it."""

    def check(self) -> None:
        """Raise SourceError where the images cannot be listed now."""

    def images(self) -> Iterator[Image]:
        """Yield every image once, in the same order each time; ids are unique and stable.

        Raises SourceError where a part cannot be listed, or where there is not one image: a listing is complete or
        nothing. An image that is listed but cannot be read is for `read` to refuse.
        """

    def read(self, image: Image) -> bytes:
        """Return the image's encoded bytes. Raises ReadFailure."""

    def locate(self, image: Image) -> str | None:
        """Return the absolute path or URL of the image's own file, None where it has none (a member of an archive)."""

    def describe(self) -> SourceInfo:
        """Return what `registry.reopen` opens the same source from."""


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
