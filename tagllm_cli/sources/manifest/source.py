"""A manifest: a text file that names one image per line, by path or URL."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from typing import ClassVar, Literal
from urllib.parse import unquote, urlsplit

from tagllm_cli.errors import SourceError
from tagllm_cli.records import Image, Shard, SourceInfo
from tagllm_cli.sources.base import DEFAULT_OPTIONS, ReadFailure, SourceOptions, read_one_by_one
from tagllm_cli.sources.folder import is_below
from tagllm_cli.sources.manifest.column_values import lookup
from tagllm_cli.sources.manifest.rows import Row, is_url, read_rows
from tagllm_cli.sources.manifest.text import ManifestText
from tagllm_cli.sources.read import is_image_data, named_missing, read_named_file
from tagllm_cli.sources.storage.file_names import why_excluded
from tagllm_cli.sources.storage.patterns import expand_braces, literal
from tagllm_cli.sources.storage.storage import Storage
from tagllm_cli.sources.storage.url_secrets import hide, secret_query
from tagllm_cli.sources.storage.web import READERS, fetch
from tagllm_cli.text import shortened

_WEB = ("http://", "https://")
_CHECKED_LINES = 20


class Manifest:
    """The images that a manifest names, in its order; `options.pattern` is the name of the file below `root`.

    An image's uri is its path as written, relative to the manifest's folder or absolute, or its URL without secrets;
    its id is that of the column of ids, else the uri. `./` is dropped; a path that does not exist as written is taken
    without white space and quotes around it, and with slashes for backslashes.

    A table's row reads any path below `root`; a path elsewhere, or a URL, only where the manifest names it. Paths of a
    remote manifest do not lead out of its folder.
    """

    is_ordered: ClassVar[bool] = False
    lists_by_reading: ClassVar[bool] = False
    readers: ClassVar[int] = READERS

    def __init__(self, root: str, options: SourceOptions = DEFAULT_OPTIONS) -> None:
        self.left_out: Counter[str] = Counter()
        self._storage = Storage(root)
        self._options = options
        self._known = _Known()
        self._listing = threading.Lock()
        self._others: dict[str, Storage] = {}

    def check(self) -> None:
        """Raise SourceError where the manifest cannot be read, or its first lines name no image that may be there.

        A file of labels is a manifest as well, and paths that do not fit its place would fail one by one.
        """
        text = self._text()
        with contextlib.closing(self._rows(text)) as rows:
            first = [self._image(text, row) for row in itertools.islice(rows, _CHECKED_LINES) if row.image.strip()]
        if first and not any(map(self._may_be_there, first)):
            named = shortened([image.uri for image in first], 1)
            message = f"the first files that {text.path} names are not there: {named}"
            raise SourceError(message, f"Paths in it are absolute, or relative to {self._storage.root}.")

    def describe(self) -> SourceInfo:
        """Return the kind `manifest`, the folder of the manifest, and options with its name."""
        return SourceInfo("manifest", self._storage.root, self._options.to_json())

    def shards(self) -> Iterator[Shard]:
        """Yield the one shard without a name, of which no version is known: local files may have changed."""
        yield Shard()

    def images(self, shard: Shard) -> Iterator[Image]:
        """Yield the images in the order of their lines, a line at a time; of each id 16 bytes are remembered.

        Left out are lines without an image, repeated lines and what the options exclude. A local file's version is its
        size and mtime; of others none is known. Files are not opened: what is missing fails when it is read. Raises
        SourceError where a line is broken, or an id stands for two images.
        """
        counts: Counter[str] = Counter()
        known = _Known()
        if not self._known.is_complete:
            self._known = known
        text = self._text()
        with contextlib.closing(self._rows(text)) as rows:
            for row in rows:
                if not row.image.strip():
                    counts["lines without an image"] += 1
                    continue
                image = self._image(text, row)
                excluded = why_excluded(image.uri, self._options.exclude)
                if excluded:
                    counts[excluded] += 1
                elif (what := known.add(image)) == "new":
                    yield image
                elif what == "repeated":
                    counts["repeated lines"] += 1
                else:
                    raise self._conflict(text, row, image)
        known.is_complete = True
        self._known = known
        self.left_out.clear()
        self.left_out.update(counts)

    def read(self, image: Image) -> bytes:
        """Return the image's encoded bytes.

        Raises ReadFailure of a kind of `read_file`, `Storage.read` or `web.fetch`, or `bad_name` where the manifest
        does not name it.
        """
        uri = image.uri
        try:
            is_allowed = self._is_allowed(image)
        except SourceError as error:
            raise ReadFailure("unreadable", error.message) from error
        if not is_allowed:
            raise ReadFailure("bad_name", "the manifest does not name this file")
        if uri.startswith(_WEB):
            return fetch(uri)
        if is_url(uri):
            root, _, name = uri.partition("://")[2].partition("/")
            return self._read_stored(self._other(f"{uri.partition('://')[0]}://{root}"), name)
        if self._storage.is_local or os.path.isabs(uri):
            return read_named_file(self._path(uri))
        if self._storage.root.startswith(_WEB):
            return fetch(self._storage.locate(uri)) if is_below(uri) else self._read_stored(self._storage, uri)
        return self._read_stored(self._storage, uri)

    def stream(
        self, shard: Shard, images: Sequence[Image] | None = None
    ) -> Iterator[tuple[Image, bytes | ReadFailure]]:
        """Yield the images with their bytes, one after the other."""
        return read_one_by_one(self, shard, images)

    def shard_of(self, uri: str) -> str:
        """Return the name of the only shard."""
        return ""

    def locate(self, image: Image) -> str | None:
        """Return the file's absolute path, or its URL without secrets; None where `read` refuses to look for it.

        Raises SourceError where the manifest is broken.
        """
        if not self._is_allowed(image) or "\0" in image.uri:
            return None
        if is_url(image.uri):
            return image.uri
        if self._storage.is_local or os.path.isabs(image.uri):
            return self._path(image.uri)
        return self._storage.locate(image.uri)

    def column(self, name: str) -> Callable[[Image], str | None]:
        """Return what gives an image its value in a column, as text, or None; the manifest is read once for it.

        Raises SourceError where there is no such column.
        """
        text = self._text()
        options = replace(self._options, id_column=name)
        try:
            with contextlib.closing(self._rows(text, options)) as rows:
                find = lookup((self._place(row.image)[0], row.id or "") for row in rows if row.image.strip())
        except SourceError as error:
            hint = (error.hint or "").replace("--image-column or --id-column", "--group-by")
            raise SourceError(error.message, hint) from error
        return lambda image: find(image.uri)

    def _text(self) -> ManifestText:
        return ManifestText(self._storage, self._name())

    def _name(self) -> str:
        names = expand_braces(self._options.pattern)
        name = literal(names[0])
        if len(names) > 1 or not name:
            where = f"{self._storage.root}/{self._options.pattern}" if self._options.pattern else self._storage.root
            raise SourceError(
                f"a manifest is one file, and {where} may be several", "Give one, or join them with `cat`."
            )
        return name

    def _rows(self, text: ManifestText, options: SourceOptions | None = None) -> Generator[Row, None, None]:
        name = self._name()
        if self._storage.root.startswith(_WEB):
            name = name.partition("?")[0]
        return read_rows(text, name, options or self._options)

    def _image(self, text: ManifestText, row: Row) -> Image:
        if is_image_data(row.image.strip()):
            raise text.error("base64 data, not a path or URL", "Write the images to files, or to a Parquet file.")
        uri, version = self._place(row.image)
        if row.id == "":
            raise text.error(f"its column {self._options.id_column!r} is empty", "Give each image an id.")
        image = Image(uri if row.id is None else row.id, uri, version)
        try:
            f"{image.id}{uri}".encode()
        except UnicodeEncodeError:
            raise text.error("it holds text that is not Unicode", "Rename the file.") from None
        return image

    def _place(self, written: str) -> tuple[str, str]:
        """Return the uri and the version of the file that a line names."""
        stripped = _without_quotes(written.strip())
        if stripped.startswith("file://"):
            written = stripped = unquote(urlsplit(stripped).path)
        elif is_url(stripped):
            return hide(stripped), ""
        usual = _without_dot(stripped.replace("\\", "/"))
        if not self._storage.is_local and not os.path.isabs(usual):
            return usual, ""
        for path in dict.fromkeys((_without_dot(written), usual)):
            try:
                status = os.stat(self._path(path))
            except (OSError, ValueError):
                continue
            return path, f"{status.st_size}-{status.st_mtime_ns}"
        return usual, ""

    def _may_be_there(self, image: Image) -> bool:
        """Tell whether an image is a file that exists, or one that only a request could tell about."""
        return image.version != "" or is_url(image.uri) or not (self._storage.is_local or os.path.isabs(image.uri))

    def _path(self, uri: str) -> str:
        return os.path.join(self._storage.root, uri) if self._storage.is_local else uri

    def _other(self, root: str) -> Storage:
        return self._others.setdefault(root, Storage(root))

    def _read_stored(self, storage: Storage, name: str) -> bytes:
        try:
            return storage.read_whole(name)
        except ReadFailure as failure:
            raise named_missing(storage.locate(name), failure) from failure
        except SourceError as error:  # the package for this storage is missing
            raise ReadFailure("unreadable", f"{error.message}: {error.hint}") from error

    def _is_allowed(self, image: Image) -> bool:
        """Tell whether an image lies below the root, or the manifest names it, which is read once (with its secrets).

        Raises SourceError where it is broken.
        """
        is_ours = image.uri != "" and is_below(image.uri) and not is_url(image.uri)
        if is_ours or self._known.has(image):
            return True
        with self._listing:
            if not self._known.is_complete:
                for _ in self.images(Shard()):
                    pass
        return self._known.has(image)

    def _conflict(self, text: ManifestText, row: Row, image: Image) -> SourceError:
        """Return the error of two lines that give one id, or one URL without its secrets, to two images."""
        again = self._text()
        first = next(each.number for each in self._rows(again) if self._is_rival(again, each, image))
        both = f"{text.path}, lines {first} and {row.number}"
        if row.id is None:
            message = f"{both}: two URLs that differ in nothing but keys or signatures: {image.uri}"
            return SourceError(message, "Leave one of them out.")
        return SourceError(f"{both}: two images with the id {image.id!r}", "Give each image an id of its own.")

    def _is_rival(self, text: ManifestText, row: Row, image: Image) -> bool:
        if not row.image.strip():
            return False
        other = self._image(text, row)
        return other.id == image.id or (other.uri == image.uri and secret_query(image.uri) != "")


class _Known:
    """Hashes of the images that a listing has come to."""

    def __init__(self) -> None:
        self.is_complete = False
        self._images: dict[bytes, int] = {}  # id -> uri, 0 where that is the id
        self._queries: dict[bytes, int] = {}  # uri -> secret query, where there is one

    def add(self, image: Image) -> Literal["new", "repeated", "rival"]:
        """Add an image; a rival has the id of another image, or its URL but for the secrets, and is not added."""
        key, mark, query = _hash(image.id), _mark(image), secret_query(image.uri)
        if query and self._queries.setdefault(_hash(image.uri), _number(query)) != _number(query):
            return "rival"
        if key not in self._images:
            self._images[key] = mark
            return "new"
        return "repeated" if self._images[key] == mark else "rival"

    def has(self, image: Image) -> bool:
        """Tell whether the image was added."""
        return self._images.get(_hash(image.id)) == _mark(image)


def _mark(image: Image) -> int:
    return 0 if image.id == image.uri else _number(image.uri)


def _hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _number(text: str) -> int:
    return int.from_bytes(_hash(text)[:7], "big") + 1


def _without_quotes(path: str) -> str:
    return path[1:-1] if len(path) > 2 and path[0] == path[-1] == '"' else path


def _without_dot(path: str) -> str:
    while path.startswith("./"):
        path = path[2:].lstrip("/")
    return path
