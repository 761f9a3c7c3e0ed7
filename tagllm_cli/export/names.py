"""Names of labels and images as names of files and folders that every system takes, and near matches of names.

All formats that make files or folders of names go through here. A name that comes out has no separator, no control
character, no mark that turns the direction of writing, and nothing that Windows or a shell reserves; it is at most
LONGEST bytes long, and never empty, `.` or `..`.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from tagllm_cli.errors import UsageError
from tagllm_cli.records import digest16
from tagllm_cli.text import shortened

LONGEST = 120  # bytes of a name; file systems take 255, and endings and temporary names are added
_REPLACED = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufffe\uffff\ud800-\udfff]')
_DEVICES = re.compile(r"(?i)(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9\u00b9\u00b2\u00b3])\s*(\..*)?")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_QUERY = re.compile(r"[?#].*", re.DOTALL)
_DRIVE = re.compile(r"[A-Za-z]:(?=[\\/])")


def file_name(name: str) -> str:
    """Return a name of one file or folder that is like `name`; another name may give the same one.

    >>> file_name("a/b: c"), file_name(".."), file_name("con.jpg"), file_name(" x. "), file_name("")
    ('a_b_ c', '_', '_con.jpg', 'x', '_')
    """
    clean = _REPLACED.sub("_", unicodedata.normalize("NFC", name)).strip(" ").rstrip(". ")
    if clean.startswith((".", "-", "~")):  # hidden, an option, a home
        clean = f"_{clean[1:]}"
    if _DEVICES.fullmatch(clean):
        clean = f"_{clean}"
    return _cut(clean) or "_"


def path_name(name: str) -> str:
    """Return a relative path that is like the id or path of an image, and stays below whatever it is joined to.

    >>> path_name("sub/a.jpg"), path_name("../../x.png"), path_name("https://host/a.jpg"), path_name("C:\\\\p\\\\a.jpg")
    ('sub/a.jpg', 'x.png', 'host/a.jpg', 'p/a.jpg')
    """
    if _SCHEME.match(name):
        host, slash, path = _QUERY.sub("", _SCHEME.sub("", name, count=1), count=1).partition("/")
        name = f"{host.rpartition('@')[2]}{slash}{path}"
    segments = _DRIVE.sub("", name, count=1).replace("\\", "/").split("/")
    parts = [file_name(segment) for segment in segments if segment not in ("", ".", "..")]
    return "/".join(parts[-8:]) or "_"


def distinct(path: str, identity: str) -> str:
    """Return a path with a mark before its ending that depends on `identity` alone: where `path` is taken already.

    >>> distinct("a/b.jpg", "b?.jpg")
    'a/b-c97a75a4.jpg'
    """
    whole = PurePosixPath(path)
    return str(whole.with_name(f"{whole.stem}-{_mark(identity)}{whole.suffix}"))


def folder_names(names: Sequence[str]) -> list[str]:
    """Return a folder name for each label, all different, also where the file system ignores case.

    >>> folder_names(["dog", "a/b", "a:b"])
    ['dog', 'a_b-575aa622', 'a_b-afa48261']
    """
    clean = [file_name(name) for name in names]
    keys = [name.casefold() for name in clean]
    taken = {key for key, count in Counter(keys).items() if count > 1}
    # Each of those that clash gets a mark of its own, so that no name depends on which labels come before it.
    return [
        f"{found}-{_mark(name)}" if key in taken else found for name, found, key in zip(names, clean, keys, strict=True)
    ]


def selected(wanted: Iterable[str], known: Sequence[str], what: str) -> frozenset[str]:
    """Return the wanted names. Raises UsageError for those that are not `known`, with near matches."""
    chosen = dict.fromkeys(wanted)
    unknown = [name for name in chosen if name not in set(known)]
    if unknown:
        near = difflib.get_close_matches(unknown[0], known, n=3)
        hint = f"Did you mean {', '.join(map(repr, near))}?" if near else f"There are {shortened(known, 12)}."
        raise UsageError(f"{what} has no label {', '.join(map(repr, unknown[:5]))}", hint)
    return frozenset(chosen)


def _cut(name: str) -> str:
    if len(name.encode()) <= LONGEST:
        return name
    stem, dot, ending = name.rpartition(".")
    if not dot or len(ending) > 8 or not stem:
        stem, ending = name, ""
    kept = stem.encode()[: LONGEST - 10 - len(ending.encode())].decode("utf-8", "ignore").rstrip(". ")
    return f"{kept}-{_mark(name)}{'.' * bool(ending)}{ending}"


def _mark(identity: str) -> str:
    return digest16(identity.encode("utf-8", "surrogatepass")).hex()[:8]
