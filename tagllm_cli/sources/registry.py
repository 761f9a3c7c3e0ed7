"""The kinds of sources: which one a user named, and how to open again the one that a table was made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from tagllm_cli.errors import SourceError
from tagllm_cli.records import SourceInfo
from tagllm_cli.sources.base import DEFAULT_OPTIONS, Source, SourceOptions
from tagllm_cli.sources.detect import Detected, detect
from tagllm_cli.sources.storage.patterns import literal


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of source. `open` takes a root (absolute path or URL) and options, and does not look at the disk.

    `help` is a phrase for the command line; `columns` and `splits` tell whether it has options about them.
    """

    help: str
    open: Callable[[str, SourceOptions], Source]
    columns: bool = False
    splits: bool = False


# Imported when one is opened: the command line loads this module for its help, and pyarrow and Pillow are slow.


def _folder(root: str, options: SourceOptions) -> Source:
    from tagllm_cli.sources.folder import open_folder

    return open_folder(root, options)


def _tar(root: str, options: SourceOptions) -> Source:
    from tagllm_cli.sources.tar.source import Tar

    return Tar.at(root, options)


def _parquet(root: str, options: SourceOptions) -> Source:
    from tagllm_cli.sources.parquet.source import Parquet

    return Parquet(root, options)


def _manifest(root: str, options: SourceOptions) -> Source:
    from tagllm_cli.sources.manifest.source import Manifest

    return Manifest(root, options)


KINDS: Mapping[str, Kind] = {
    "folder": Kind("image files", _folder),
    "tar": Kind("tar shards (WebDataset)", _tar),
    "parquet": Kind("Parquet files, Hugging Face datasets", _parquet, columns=True, splits=True),
    "manifest": Kind("CSV, TSV, JSON lines or text with one path or URL per line", _manifest, columns=True),
}


def open_source(
    spec: str, options: SourceOptions = DEFAULT_OPTIONS, kind: str | None = None, *, offline: bool = False
) -> Source:
    """Return the source that a user named: a path, a glob with braces, or a URL.

    `kind` is one of KINDS, None to find it out. Raises SourceError where it cannot be listed or its kind has no use for
    an option; `offline`, it is not looked at, and its kind is what the name says.
    """
    if not spec:
        raise SourceError("the source is an empty text", "Give the path of a folder of images.")
    if kind is not None and kind not in KINDS:
        raise SourceError(f"there is no kind of source {kind!r}", f"Choose one of: {', '.join(KINDS)}.")
    found = detect(spec, kind, offline=offline)
    if not offline:
        _check_options(found, options)
    source = KINDS[found.kind].open(found.root, replace(options, pattern=found.pattern))
    if not offline:
        source.check()
    return source


def reopen(info: SourceInfo, root: str | None = None, *, offline: bool = False, root_option: str = "--root") -> Source:
    """Return the source that `describe` gave this record of, moved to `root` where one is given.

    `root` takes the place of the folder on record; where that held one file, it may be this file. Errors name the
    option of the command line that gives it.
    Raises SourceError where its kind is unknown or it cannot be listed; `offline`, it is not looked at.
    """
    kind = KINDS.get(info.kind)
    if kind is None:
        raise SourceError(f"sources of kind {info.kind!r} are not known here", "Upgrade tagllm.")
    options = SourceOptions.from_json(info.options)
    source = kind.open(info.uri if root is None else _folder_of(root, options.pattern), options)
    if offline:
        return source
    try:
        source.check()
    except SourceError as error:
        hint = f"Bring it back, or say with {root_option} where the images are now."
        if root is not None:
            hint = f"Give the folder or URL that has taken the place of {info.uri}."
        raise SourceError(error.message, hint) from error
    return source


def _check_options(found: Detected, options: SourceOptions) -> None:
    kind = KINDS[found.kind]
    unused = ["--split"] if options.splits and not kind.splits else []
    if not kind.columns:
        unused += ["--image-column"] if options.image_column else []
        unused += ["--id-column"] if options.id_column else []
    if unused:
        message = f"{' and '.join(unused)} is not for sources of kind {found.kind!r}, as {found.root} is"
        raise SourceError(message, "Leave it out, or say with --source-format what the source is.")


def _folder_of(root: str, pattern: str) -> str:
    name = literal(pattern)
    if name and f"/{root}".endswith(f"/{name}"):
        return root[: -len(name)].rstrip("/") or ("/" if root.startswith("/") else ".")
    return root
