"""The kinds of sources: which one a user named, and how to open again the one that a table was made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from tagllm_cli.errors import SourceError
from tagllm_cli.records import SourceInfo
from tagllm_cli.sources.base import DEFAULT_OPTIONS, Source, SourceOptions
from tagllm_cli.sources.detect import detect
from tagllm_cli.sources.folder import open_folder
from tagllm_cli.sources.manifest.source import Manifest
from tagllm_cli.sources.tar.source import Tar


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of source. `open` takes a root (absolute path or URL) and options, and does not look at the disk.

    `help` is a phrase for the command line; `knows` are those of _SOME_KNOW that mean something here.
    """

    help: str
    open: Callable[[str, SourceOptions], Source]
    knows: frozenset[str] = frozenset()


# Fields of SourceOptions that not every kind knows -> the option that sets them.
_SOME_KNOW = {"splits": "--split", "image_column": "--image-column", "id_column": "--id-column"}


def _parquet(root: str, options: SourceOptions) -> Source:
    from tagllm_cli.sources.parquet.source import Parquet  # pyarrow is slow to import

    return Parquet(root, options)


KINDS: Mapping[str, Kind] = {
    "folder": Kind("image files", open_folder),
    "tar": Kind("tar shards (WebDataset)", Tar.at),
    "parquet": Kind("Parquet files, Hugging Face datasets", _parquet, frozenset(_SOME_KNOW)),
    "manifest": Kind(
        "CSV, TSV, JSON lines or text with one path or URL per line", Manifest, frozenset({"image_column", "id_column"})
    ),
}


def open_source(
    spec: str, options: SourceOptions = DEFAULT_OPTIONS, kind: str | None = None, *, offline: bool = False
) -> Source:
    """Return the source that a user named: a path, a glob with braces, or a URL.

    `kind` is one of KINDS, None to find it out. Raises SourceError where it cannot be listed; `offline`, it is not
    looked at, and its kind is what the name says.
    """
    if not spec:
        raise SourceError("the source is an empty text", "Give the path of a folder of images.")
    if kind is not None and kind not in KINDS:
        raise SourceError(f"there is no kind of source {kind!r}", f"Choose one of: {', '.join(KINDS)}.")
    found = detect(spec, kind, offline=offline)
    source = KINDS[found.kind].open(found.root, replace(options, pattern=found.pattern))
    if not offline:
        _check_known(found.kind, options)
        source.check()
    return source


def _check_known(kind: str, options: SourceOptions) -> None:
    for name, option in _SOME_KNOW.items():
        if getattr(options, name) and name not in KINDS[kind].knows:
            knowing = " and ".join(each for each in KINDS if name in KINDS[each].knows)
            raise SourceError(f"{option} is for sources of kind {knowing}, not {kind}", f"Leave out {option}.")


def reopen(info: SourceInfo, root: str | None = None, *, offline: bool = False) -> Source:
    """Return the source that `describe` gave this record of, moved to `root` where one is given.

    Raises SourceError where its kind is unknown or it cannot be listed; `offline`, it is not looked at.
    """
    kind = KINDS.get(info.kind)
    if kind is None:
        raise SourceError(f"sources of kind {info.kind!r} are not known here", "Upgrade tagllm.")
    source = kind.open(info.uri if root is None else root, SourceOptions.from_json(info.options))
    if offline:
        return source
    try:
        source.check()
    except SourceError as error:
        raise SourceError(error.message, "Bring it back, or say with --root where the images are now.") from error
    return source
