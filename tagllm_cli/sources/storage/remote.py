"""Files of any storage that fsspec opens, for storage.py."""

from __future__ import annotations

import io
import threading
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO, cast

from tagllm_cli.errors import SourceError
from tagllm_cli.sources.base import ReadFailure
from tagllm_cli.sources.storage.certificates import ssl_context
from tagllm_cli.sources.storage.file_names import SYSTEM_FOLDERS
from tagllm_cli.sources.storage.patterns import match_segments, split_folder
from tagllm_cli.sources.storage.remote_errors import explain, is_beyond_end, patiently, source_error
from tagllm_cli.sources.storage.stored import StoredFile
from tagllm_cli.sources.storage.url_secrets import reveal
from tagllm_cli.text import public_text

BLOCK_BYTES = 8 << 20  # that are read ahead of each open file
CONNECTIONS = 64  # to one storage
PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "hf": "huggingface_hub"}  # by protocol, which is also the name of the extra

_CHECK_S = 10.0  # a name that is mistyped is said soon
_AT_A_TIME = 16  # requests about named files
_FEW = 64  # named files; more are found by listing their folders
_WEB = ("http", "https")
_ALSO_CALLED = {"s3a": "s3", "gcs": "gs"}
# What tells one version of a file from the next.
_CHECKSUMS = ("ETag", "etag", "generation", "md5Hash", "md5", "blob_id", "Content-MD5", "Digest")
_TIMES = ("Last-Modified", "LastModified", "last_modified", "updated", "mtime", "modified", "created")


class RemoteFiles:
    """The files below a URL without secrets. No connection is made before the first call."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._protocol = root.partition("://")[0].lower()
        self._is_web = self._protocol in _WEB
        self._lock = threading.Lock()
        self._opened: Any = None

    @property
    def _fs(self) -> Any:
        with self._lock:
            if self._opened is None:
                self._opened = _file_system(self._protocol)
            return self._opened

    @property
    def _base(self) -> str:
        return cast(str, self._fs._strip_protocol(self._root))

    def check(self) -> None:
        """Raise SourceError where there is nothing at the root, or it may not be listed; web servers list nothing."""
        if self._is_web:
            return
        fs, base = self._fs, self._base
        try:
            info = patiently(lambda: fs.info(base), _CHECK_S)
        except ReadFailure as failure:
            if failure.kind != "forbidden":
                raise source_error(self._root, failure) from failure
            self._list(base, is_deep=False)  # a role may list a bucket and not ask about it
        else:
            if info["type"] == "file":
                raise SourceError(f"{self._root} is a file", "Give the URL of the folder that holds it.")

    def find(self, endings: Collection[str], globs: Sequence[str]) -> dict[str, StoredFile]:
        """Return the matching files, each folder that the globs fix listed once. Raises SourceError."""
        if self._is_web:
            raise self._no_listing()
        wanted = tuple(endings)
        found: dict[str, StoredFile] = {}
        folders: dict[tuple[str, bool], list[list[str]]] = {}
        for glob in globs:
            folder, rest = split_folder(glob)
            folders.setdefault((folder, "/" in rest or "**" in rest), []).append(rest.split("/"))
        for (folder, is_deep), segments in folders.items():
            for below, stored in self._below(folder, is_deep):
                names = below.split("/")
                is_wanted = below.lower().endswith(wanted) and not _is_hidden(names)
                if is_wanted and any(match_segments(names, each) for each in segments):
                    found[stored.name] = stored
        return found

    def everything(self) -> list[StoredFile]:
        """Return all files below the root, hidden ones too, in no order. Raises SourceError."""
        if self._is_web:
            raise self._no_listing()
        return [stored for _, stored in self._below("", is_deep=True)]

    def stat_all(self, names: Sequence[str]) -> dict[str, StoredFile]:
        """Return those of the named files that are there. Raises SourceError."""
        if not self._is_web and len(names) > _FEW:
            wanted = set(names)
            folders = {name.rpartition("/")[0] for name in names}
            listed = (stored for folder in folders for _, stored in self._below(folder, is_deep=False))
            return {stored.name: stored for stored in listed if stored.name in wanted}
        with ThreadPoolExecutor(_AT_A_TIME) as pool:
            found = list(pool.map(self._stat_or_none, names))
        return {stored.name: stored for stored in found if stored is not None}

    def stat(self, name: str) -> StoredFile:
        """Return a file as it is now. Raises ReadFailure."""
        return _stored(name, self._info(name))

    def open(self, name: str) -> BinaryIO:
        """Open a file, `seekable` where the storage can read from any place. Raises ReadFailure, also while reading."""
        fs, path = self._fs, self._path(name)
        if self._is_web:
            file, seekable = patiently(lambda: self._open_web(path))
        else:
            file, seekable = patiently(lambda: _open_blocks(fs, path)), True
        return cast(BinaryIO, io.BufferedReader(_Retried(file, seekable), 1 << 16))

    def read(self, name: str, start: int, length: int | None) -> bytes:
        """Return bytes of a file. Raises ReadFailure."""
        if self._is_web and (start or length is not None):
            return self._read_web(name, start, length)
        fs, path = self._fs, self._path(name)
        if length == 0:
            return b""
        end = None if length is None else start + length
        try:  # with a start, even 0: without one s3fs asks for the size first
            return cast(bytes, patiently(lambda: fs.cat_file(path, start=start, end=end)))
        except ReadFailure as failure:
            if is_beyond_end(failure):
                return b""
            raise

    def _path(self, name: str) -> str:
        return reveal(f"{self._root}/{name}") if self._is_web else f"{self._base}/{name}"

    def _info(self, name: str) -> dict[str, Any]:
        fs, path = self._fs, self._path(name)
        info = cast(dict[str, Any], patiently(lambda: fs.info(path)))
        if info["type"] != "file":
            raise ReadFailure("not_a_file", "a folder")
        return info

    def _stat_or_none(self, name: str) -> StoredFile | None:
        try:
            return self.stat(name)
        except ReadFailure as failure:
            if failure.kind in ("vanished", "not_a_file"):
                return None
            raise source_error(f"{self._root}/{name}", failure) from failure

    def _below(self, folder: str, is_deep: bool) -> list[tuple[str, StoredFile]]:
        """Return the files below a folder: their names below it, and as stored below the root."""
        base = f"{self._base}/{folder}" if folder else self._base
        prefix = f"{folder}/" if folder else ""
        listed = self._list(base, is_deep)
        start = f"{base.rstrip('/')}/"
        names = [(path[len(start) :], info) for path, info in listed.items() if path.startswith(start)]
        return [(name, _stored(prefix + name, info)) for name, info in names if name and info["type"] == "file"]

    def _list(self, path: str, is_deep: bool) -> dict[str, dict[str, Any]]:
        fs = self._fs

        def list_now() -> dict[str, dict[str, Any]]:
            fs.invalidate_cache()
            if is_deep:
                return cast(dict[str, dict[str, Any]], fs.find(path, detail=True))
            return {info["name"]: info for info in fs.ls(path, detail=True)}

        try:
            return patiently(list_now)
        except ReadFailure as failure:
            if failure.kind == "vanished" and path != self._base:
                return {}
            raise source_error(self._root, failure) from failure

    def _no_listing(self) -> SourceError:
        example = f"{self._root}/{{00000..00063}}.tar"
        return SourceError(
            f"{self._root} cannot be listed: web servers have no lists of files",
            f"Name the files, with braces as in '{example}', or write a manifest of their URLs.",
        )

    def _open_web(self, url: str) -> tuple[Any, bool]:
        """Open a URL, read block by block where the server knows ranges, else as one response."""
        fs = self._fs
        info = fs.info(url)
        size, tag = info.get("size"), info.get("ETag", "W/")
        headers = {} if tag.startswith("W/") else {"If-Match": tag}
        if size and info.get("partial", True):
            file = fs.open(url, "rb", block_size=BLOCK_BYTES, cache_type="readahead", size=size, headers=headers)
            try:
                if size == 1 or file._fetch_range(1, 2):
                    return file, True
            except ValueError:  # the server sends the whole file instead of the second byte
                file.close()
        return fs.open(url, "rb", block_size=0, size=size or 1, headers=headers), False

    def _read_web(self, name: str, start: int, length: int | None) -> bytes:
        with self.open(name) as file:
            if file.seekable():
                file.seek(start)
            else:
                rest = start
                while rest and (piece := file.read(min(rest, BLOCK_BYTES))):
                    rest -= len(piece)
            return file.read(-1 if length is None else length)


def _open_blocks(fs: Any, path: str) -> Any:
    file = fs.open(path, "rb", block_size=BLOCK_BYTES, cache_type="readahead")
    if isinstance(details := getattr(file, "details", None), dict) and details.get("type") == "directory":
        raise ReadFailure("not_a_file", "a folder")
    return file


class _Retried(io.RawIOBase):
    """A file of fsspec: what it raises is a ReadFailure, and what is transient is tried again at the same place."""

    def __init__(self, file: Any, seekable: bool) -> None:
        self._file = file
        self._seekable = seekable

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._seekable

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if not self._seekable:
            raise io.UnsupportedOperation("the server sends this file from front to back only")
        return cast(int, self._file.seek(offset, whence))

    def tell(self) -> int:
        return cast(int, self._file.tell())

    def readinto(self, buffer: Any) -> int:
        size = len(buffer)
        # A response that broke cannot be continued: what comes after it on this connection is not the file.
        data = patiently(lambda: self._file.read(size), None if self._seekable else 0.0)
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def _file_system(protocol: str) -> Any:
    """Return a file system that remembers nothing of earlier listings. Raises SourceError where it is not installed."""
    import fsspec  # type: ignore[import-untyped]

    if protocol == "ftp":  # fsspec prints a traceback where the connection fails
        raise SourceError("ftp:// is not read", "Copy the files to a disk or a bucket.")
    options: dict[str, Any] = {"use_listings_cache": False}
    if protocol in _WEB:
        options |= {"get_client": _web_client}
    if protocol in ("s3", "s3a"):
        configured = fsspec.config.conf.get(protocol, {}).get("config_kwargs", {})
        # `patiently` tries again; botocore's own attempts inside those of s3fs would last for minutes.
        defaults = {"retries": {"total_max_attempts": 1}, "max_pool_connections": CONNECTIONS}
        options |= {"config_kwargs": defaults | configured}
    try:
        return fsspec.filesystem(protocol, **options)
    except ImportError as error:
        extra = _ALSO_CALLED.get(protocol, protocol)
        if extra not in PACKAGES:
            raise SourceError(f"{protocol}:// needs a package: {public_text(error)}", "Install it with pip.") from error
        message = f"{protocol}:// needs the package {PACKAGES[extra]}, which is not installed"
        raise SourceError(message, f"pip install 'tagllm[{extra}]'") from error
    except ValueError as error:
        known = "Give a path, or a URL such as s3://bucket/folder, gs://, hf:// or https://."
        raise SourceError(f"{protocol}:// is no storage that is known here", known) from error
    except Exception as error:  # credentials that are looked for at once
        raise source_error(f"{protocol}://", explain(error)) from error


async def _web_client(**options: Any) -> Any:
    """Return a session for fsspec's HTTP file system: the environment's proxies, certifi's CAs, bodies as they are."""
    import aiohttp

    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=CONNECTIONS, ssl=ssl_context()),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=30),
        headers={"Accept-Encoding": "identity", "User-Agent": "tagllm"},
        trust_env=True,
        **options,
    )


def _is_hidden(names: Sequence[str]) -> bool:
    return any(name.startswith(".") for name in names) or any(name.lower() in SYSTEM_FOLDERS for name in names[:-1])


def _stored(name: str, info: dict[str, Any]) -> StoredFile:
    size = info.get("size")
    found = next((info[key] for key in (*_CHECKSUMS, *_TIMES) if info.get(key)), "")
    tag = found.isoformat() if hasattr(found, "isoformat") else str(found).removeprefix("W/").strip('"')
    if tag == "":
        return StoredFile(name, -1 if size is None else size, "")
    return StoredFile(name, -1 if size is None else size, f"{'?' if size is None else size}-{tag}")
