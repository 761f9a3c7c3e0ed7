"""The kinds of sources: which one a user named, and how to open again the one that a table was made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tagllm_cli.errors import SourceError
from tagllm_cli.records import SourceInfo
from tagllm_cli.sources.base import DEFAULT_OPTIONS, Source, SourceOptions
from tagllm_cli.sources.folder import Folder


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of source. `accepts` looks at what the user typed; `open` takes that or a `SourceInfo.uri`, and options.

    `open` does not look at the disk: `Source.check` does.
    """

    accepts: Callable[[str], bool]
    open: Callable[[str, SourceOptions], Source]


# The first kind that accepts opens; the folder comes last and accepts anything.
KINDS: Mapping[str, Kind] = {
    "folder": Kind(lambda _: True, Folder.at),
}


def open_source(spec: str, options: SourceOptions = DEFAULT_OPTIONS, *, offline: bool = False) -> Source:
    """Return the source that a user named: the path of a folder.

    Raises SourceError where it cannot be listed; `offline`, it is not looked at.
    """
    if not spec:
        raise SourceError("the source is an empty text", "Give the path of a folder of images.")
    source = next(kind.open(spec, options) for kind in KINDS.values() if kind.accepts(spec))
    if not offline:
        source.check()
    return source


def reopen(info: SourceInfo, root: Path | None = None, *, offline: bool = False) -> Source:
    """Return the source that `describe` gave this record of, moved to `root` where one is given.

    Raises SourceError where its kind is unknown or it cannot be listed; `offline`, it is not looked at.
    """
    kind = KINDS.get(info.kind)
    if kind is None:
        raise SourceError(f"sources of kind {info.kind!r} are not known here", "Upgrade tagllm.")
    source = kind.open(info.uri if root is None else str(root), SourceOptions.from_json(info.options))
    if offline:
        return source
    try:
        source.check()
    except SourceError as error:
        raise SourceError(error.message, "Bring it back, or say with --root where the images are now.") from error
    return source
