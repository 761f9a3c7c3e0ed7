"""What kind of source a path, a glob or a URL names: by its name, else by what lies there."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from tagllm_cli.errors import SourceError
from tagllm_cli.sources.contents import ENDINGS, FILES_INSTEAD, kind_of_contents, kind_of_matches
from tagllm_cli.sources.storage.file_names import EXTENSIONS
from tagllm_cli.sources.storage.patterns import escape, expand_braces, first_special
from tagllm_cli.sources.storage.url_secrets import hide

# What has to be unpacked first, the longest ending first, and the command that does it.
_PACKED = {
    ".tar.gz": "gzip -dk {}",
    ".tar.bz2": "bzip2 -dk {}",
    ".tar.xz": "xz -dk {}",
    ".tar.zst": "zstd -d {}",
    ".tgz": "gzip -dc {} > {stem}.tar",
    ".tbz2": "bzip2 -dc {} > {stem}.tar",
    ".txz": "xz -dc {} > {stem}.tar",
    ".gz": "gzip -dk {}",
    ".zip": "unzip {} -d {stem}",
    ".7z": "7z x {} -o{stem}",
    ".rar": "unrar x {} {stem}/",
}
_MOST_LOOKED_AT = 1000  # names that braces stand for, to tell the kind


@dataclass(frozen=True, slots=True)
class Detected:
    """The kind of a source, its root (absolute path or URL without secrets), and what names in it match ("": all).

    The root of files is the folder that holds them, or the one in which the first wildcard stands, so that ids do not
    depend on how files were named. A name that is no glob is escaped in `pattern` (see patterns.py).
    """

    kind: str
    root: str
    pattern: str = ""


def detect(spec: str, kind: str | None = None, *, offline: bool = False) -> Detected:
    """Return what a user named.

    A path that exists is never read as a glob. Raises SourceError where the kind is ambiguous, the name is that of an
    archive or of images, or a folder cannot be looked at. With a `kind`, no folder is; `offline`, nothing is.

    >>> detect("/data/shards/{00..63}.tar", offline=True)
    Detected(kind='tar', root='/data/shards', pattern='{00..63}.tar')
    >>> detect("s3://bucket/lists/all.csv", offline=True)
    Detected(kind='manifest', root='s3://bucket/lists', pattern='all.csv')
    """
    if spec.startswith("file://"):
        spec = unquote(urlsplit(spec).path)
    is_file = kind == "manifest" or (kind != "folder" and bool(_kind_of_name(spec)))
    if "://" in spec:
        root, pattern = _divide_url(spec, is_file)
    else:
        root, pattern = _divide_path(spec, is_file, offline)
    if not pattern:
        return Detected(kind or ("folder" if offline else kind_of_contents(root)), root)
    spec = hide(spec)
    if kind == "folder":
        raise SourceError(f"{spec} are files, and --source-format folder takes a folder", FILES_INSTEAD)
    named = kind or _kind_of_pattern(pattern, spec)
    return Detected(named or ("folder" if offline else kind_of_matches(root, pattern)), root, pattern)


def _divide_path(spec: str, is_file: bool, offline: bool) -> tuple[str, str]:
    """Return root and pattern of a local path; the pattern of a folder is ""."""
    if not offline and os.path.lexists(spec):
        is_file = not os.path.isdir(spec) and os.path.splitext(spec)[1].lower() not in EXTENSIONS
    elif (place := _first_special(spec, offline)) is not None:
        folder, _, _ = spec[:place].rpartition("/")
        start = len(folder) + 1 if "/" in spec[:place] else 0
        return os.path.abspath(folder or ("/" if start else ".")), spec[start:]
    path = os.path.abspath(spec)
    if not is_file:
        return path, ""
    folder, name = os.path.split(path)
    return folder, escape(name)


def _first_special(spec: str, offline: bool) -> int | None:
    """Return where a path's first wildcard stands; in the names of folders that exist there is none."""
    start = 0
    while not offline and (end := spec.find("/", start) + 1) and os.path.isdir(spec[:end]):
        start = end
    place = first_special(spec[start:])
    return None if place is None else start + place


def _divide_url(spec: str, is_file: bool) -> tuple[str, str]:
    if "::" in spec:
        raise SourceError(f"{hide(spec)} joins places with ::", "Name files of one folder, with braces.")
    if spec.startswith(("http://", "https://")):
        for each in expand_braces(spec):  # each has the secrets of all
            hide(each)
        query = hide(spec).find("?")
        spec = hide(spec) if query < 0 else f"{hide(spec)[:query]}{escape(hide(spec)[query:])}"
    else:
        spec = hide(spec)
    place = first_special(spec)
    if place is None and not is_file:
        return spec.rstrip("/"), ""
    root, _, _ = spec[:place].rpartition("/")
    if root.endswith("/"):
        raise SourceError(f"{spec} names no folder", "Give scheme://host/folder, wildcards behind the host or bucket.")
    name = spec[len(root) + 1 :]
    return root, escape(name) if place is None else name


def _kind_of_pattern(pattern: str, spec: str) -> str | None:
    """Return the kind that all names of a pattern have, None where they do not tell."""
    kinds = {_kind_of_name(name) for name in expand_braces(pattern)[:_MOST_LOOKED_AT]}
    if "image" in kinds:
        raise SourceError(f"{spec} names image files one by one", FILES_INSTEAD)
    if "packed" in kinds:
        raise _packed(spec)
    if len(kinds - {None}) > 1:
        named = " and ".join(sorted(str(each) for each in kinds))
        raise SourceError(f"{spec} names files of several kinds: {named}", "Give those of one kind per run.")
    return kinds.pop() if len(kinds) == 1 else None


def _kind_of_name(name: str) -> str | None:
    """Return a kind of source, `image`, `packed`, or None for a name that does not tell."""
    name = name.partition("?")[0] if name.startswith(("http://", "https://")) else name.partition("[?]")[0]
    name = name.lower()
    for kind, endings in ENDINGS.items():
        if name.endswith(endings):
            return kind
    if name.endswith(tuple(_PACKED)):
        return "packed"
    return "image" if name.endswith(tuple(EXTENSIONS)) else None


def _packed(spec: str) -> SourceError:
    ending = next(ending for ending in _PACKED if ending in spec.lower())
    stem = spec[: spec.lower().rindex(ending)]
    is_many = first_special(spec) is not None
    names = {"stem": stem if is_many else shlex.quote(stem)}
    command = _PACKED[ending].format(spec if is_many else shlex.quote(spec), **names)
    where = "Copy it to a disk, unpack it with a command such as" if "://" in spec else "Unpack it with"
    return SourceError(f"{spec} is compressed: images in it cannot be read in place", f"{where} `{command}`.")
