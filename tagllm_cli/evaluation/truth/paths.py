"""Image names as paths: normal forms that two spellings of one image share."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import cached_property
from urllib.parse import unquote

_ENDING = re.compile(
    r"\.(jpe?g|jpe|jfif|png|webp|gif|bmp|dib|tiff?|heic|heif|avif|jxl|jp2|dng|p[bgnp]m)$", re.IGNORECASE
)
_SAME_ENDING = {"jpeg": "jpg", "jpe": "jpg", "jfif": "jpg", "tiff": "tif", "heif": "heic", "dib": "bmp"}
_ADDRESS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+)://[^/?#]*(?P<path>.*)", re.DOTALL)
_UPLOAD = re.compile(r"(?:^|/)upload/(?:\d+/)?[0-9a-f]{8}-([^/]+)$")  # Label Studio puts a hash before the file's name
_SHARD = re.compile(r"\.(tar|parquet|arrow)/", re.IGNORECASE)
_ZEROS = re.compile(r"^0+(?=\d)")


def normalized(name: str) -> str:
    """Return the path that a name stands for: NFC, `/` as separator, without scheme, host and query.

    Of Label Studio's addresses that is the path of the file, without the hash that uploads begin with.

    >>> normalized("C:\\\\photos\\\\.\\\\1.jpg"), normalized("https://host/a%20b/1.jpg?size=2")
    ('C:/photos/1.jpg', 'a b/1.jpg')
    >>> normalized("/data/local-files/?d=photos/1.jpg"), normalized("/data/upload/3/0a1b2c3d-1.jpg")
    ('photos/1.jpg', '1.jpg')
    """
    if "/data/local-files/?d=" in name:
        path = unquote(name.partition("?d=")[2])
    elif "://" in name and (address := _ADDRESS.match(name)):
        path = address["path"]  # keys of an object store may hold anything
        if address["scheme"].lower() in ("http", "https"):
            path = unquote(re.split(r"[?#]", path, maxsplit=1)[0])
        path = path or name
    else:
        path = name
    if "upload/" in path and (uploaded := _UPLOAD.search(path)):
        path = uploaded[1]
    if not path.isascii():
        path = unicodedata.normalize("NFC", path)
    if "\\" in path:
        path = path.replace("\\", "/")
    if path.startswith(("/", "./")) or "//" in path or "/./" in path:
        path = "/".join(part for part in path.split("/") if part not in ("", "."))
    return path


def folded(name: str) -> str:
    """Return `normalized` in one case."""
    return unicodedata.normalize("NFC", normalized(name).casefold())


def without_ending(path: str) -> str:
    """Return a path without the ending of an image file; other dots stay.

    >>> without_ending("a/2026-05-01 12.30.15"), without_ending("a/1.JPG")
    ('a/2026-05-01 12.30.15', 'a/1')
    """
    return path[:-4] if path.endswith((".jpg", ".png")) else _ENDING.sub("", path)  # most endings, ten times as fast


def without_zeros(path: str) -> str:
    """Return a path without image ending and without leading zeros of its file name, in one case."""
    folder, slash, name = folded(path).rpartition("/")
    return f"{folder}{slash}{_bare(name)}"


def is_in_shard(name: str) -> bool:
    """Tell whether a name is that of an image in a tar or Parquet file."""
    return _SHARD.search(name) is not None


def in_shard(path: str) -> str:
    """Return what follows the name of the shard; a path outside of shards as it is.

    >>> in_shard("train/00000.tar/val/1.jpg"), in_shard("val/1.jpg")
    ('val/1.jpg', 'val/1.jpg')
    """
    found = _SHARD.search(path)
    return path if found is None else path[found.end() :]


def file_name(path: str) -> str:
    """Return what follows the last `/`."""
    return path.rpartition("/")[2]


def suffixes(path: str) -> Iterator[str]:
    """Yield the path, then the path without its first folder, and so on; last the file name."""
    yield path
    while "/" in path:
        path = path.partition("/")[2]
        yield path


def endings_differ(one: str, other: str) -> bool:
    """Return whether both names end like image files, in formats that differ."""
    if one[-4:] == other[-4:]:  # the ending of either, but for its dot
        return False
    first, second = _ENDING.search(one), _ENDING.search(other)
    return bool(first and second) and _format(first) != _format(second)


def _format(ending: re.Match[str] | None) -> str:
    found = ending[1].lower() if ending else ""
    return _SAME_ENDING.get(found, found)


def bare_name(name: str) -> str:
    """Return the file name of a path without all that may differ between two spellings of one image.

    >>> bare_name("val/000042.JPG"), bare_name("https://host/a/42.png?size=2")
    ('42', '42')
    """
    return _bare(_folded_name(name))


class ImageIndex:
    """File names of a table's images, to see whether values of a column or key name images at all."""

    def __init__(self, ids: Iterable[str]) -> None:
        self._names = set(map(_folded_name, ids))

    @cached_property
    def _bare(self) -> set[str]:
        return {_bare(name) for name in self._names}

    def share(self, values: Iterable[str]) -> float:
        """Return which share of `values` names images, in [0, 1]; a name without its ending counts a little less."""
        found = [
            1.0 if name in self._names else 0.9 if _bare(name) in self._bare else 0.0
            for name in map(_folded_name, values)
        ]
        return sum(found) / len(found) if found else 0.0


def _folded_name(name: str) -> str:
    """Return the file name of a path, folded; most paths are plain, and then it takes a tenth of the time."""
    if name.isascii() and not ("\\" in name or "?" in name or "://" in name or "upload/" in name):
        return file_name(name).casefold()
    return file_name(folded(name))


def _bare(name: str) -> str:
    bare = without_ending(name)
    return _ZEROS.sub("", bare) if bare.startswith("0") else bare
