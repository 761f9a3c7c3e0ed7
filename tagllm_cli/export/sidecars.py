"""Sidecar files beside photographs: which file belongs to an image, and how one is put in its place.

Lightroom names the sidecar of `IMG_1.dng` `IMG_1.xmp`; digiKam and darktable name that of `IMG_1.jpg` `IMG_1.jpg.xmp`.
One that exists is used, whatever its kind, so that there are never two. `IMG_1.xmp` counts as that of `IMG_1.jpg` only
where no other file of this name lies beside it, and where it does not say that it is about one: that of a raw file is
not that of the JPEG from the same exposure.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections import OrderedDict
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import NamedTuple

from tagllm_cli.store.atomic import PRIVATE, private_folder, replacing
from tagllm_cli.store.xmp.elements import XmpError
from tagllm_cli.store.xmp.keywords import ending_of_image
from tagllm_cli.store.xmp.packet import Packet

ENDING = ".xmp"
# Files beside a photograph that have no sidecar of their own. Whatever else has its name may be a raw file.
_COMPANIONS = frozenset([ENDING, ".xmp_original", ".txt", ".caption", ".json", ".jsonl", ".csv", ".npz", ".md", ".aae"])
_OPEN_FOLDERS = 64  # whose listings are kept; images come folder by folder


class State(NamedTuple):
    """What tells one state of a sidecar from another: its size, when it was written (ns), its permissions."""

    size: int
    mtime_ns: int
    mode: int


class SidecarFolder:
    """One folder of sidecars (it may not exist yet): its files, and a private folder in it to write new ones in."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stack = ExitStack()
        self._private: Path | None = None
        self._files: dict[str, str] = {}
        with contextlib.suppress(FileNotFoundError):
            self._files = {_key(name): name for name in os.listdir(path)}
        self._others: dict[str, set[str]] = {}
        for name in self._files.values():
            self._note(name)
        self._taken: dict[str, str] = {}
        if any(name.startswith(PRIVATE) for name in self._files):  # left by a process that was killed
            self._new_file()

    def sidecar_of(self, image: str, naming: str) -> Path | None:
        """Return the sidecar of the image with this file name; None where another image of this run has the same.

        A new one is called by `naming`: `full` (`IMG_1.jpg.xmp`) or `stem` (`IMG_1.xmp`).
        """
        stem = PurePosixPath(image).stem
        full, short = f"{image}{ENDING}", f"{stem}{ENDING}"
        beside = self._others.get(stem.casefold(), set()) - {image.casefold()}
        if full in self._files:
            name = self._files[full]
        elif short in self._files and not beside and self._is_about(self._files[short], image):
            name = self._files[short]
        else:
            name = short if naming == "stem" and not beside and short not in self._files else full
        self._note(image)
        owner = self._taken.setdefault(name, image)
        return self.path / name if owner == image else None

    def put(self, path: Path, data: bytes, seen: State | None) -> bool:
        """Put a sidecar in its place with one rename; False where it is not as it was `seen`, and stays."""
        if path.is_symlink():
            if state(path) != seen:
                return False
            with replacing(path) as new:
                new.write_bytes(data)
            return True
        new = self._new_file()
        with new.open("wb") as file:
            file.write(data)
            if seen is not None:  # hours of somebody's work: not to be lost in a power cut either
                file.flush()
                os.fsync(file.fileno())
                os.fchmod(file.fileno(), seen.mode)
        if state(path) != seen:
            return False
        os.replace(new, path)
        self._files[_key(path.name)] = path.name
        return True

    def close(self) -> None:
        """Remove the private folder."""
        self._stack.close()

    def _is_about(self, name: str, image: str) -> bool:
        """Return whether a sidecar may be that of an image: Lightroom's say which ending the raw file has."""
        with contextlib.suppress(OSError, XmpError):
            ending = ending_of_image(Packet((self.path / name).read_bytes()))
            return ending in ("", PurePosixPath(image).suffix.lstrip(".").casefold())
        return True

    def _new_file(self) -> Path:
        """Return where to write a new file; the private folder for it is made where there is none."""
        if self._private is None:
            self.path.mkdir(parents=True, exist_ok=True)
            self._private = self._stack.enter_context(private_folder(self.path / "sidecars"))
        return self._private / "new"

    def _note(self, name: str) -> None:
        if PurePosixPath(name).suffix.casefold() not in _COMPANIONS:
            self._others.setdefault(PurePosixPath(name).stem.casefold(), set()).add(name.casefold())


class SidecarTree:
    """The folders of sidecars below `root`, a few of them open at a time."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._open: OrderedDict[Path, SidecarFolder] = OrderedDict()

    def __enter__(self) -> SidecarTree:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with ExitStack() as stack:
            for folder in self._open.values():
                stack.callback(folder.close)

    def folder_of(self, name: str) -> SidecarFolder:
        """Return the folder in which the sidecar of an image lies; `name` is its path below the root."""
        path = self.root / PurePosixPath(name).parent
        if path not in self._open:
            self._open[path] = SidecarFolder(path)
            if len(self._open) > _OPEN_FOLDERS:
                self._open.popitem(last=False)[1].close()
        self._open.move_to_end(path)
        return self._open[path]


def state(path: Path) -> State | None:
    """Return what is at `path`, None where nothing is."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return State(found.st_size, found.st_mtime_ns, stat.S_IMODE(found.st_mode))


def _key(name: str) -> str:
    """Return a file name with the ending of sidecars in lower case."""
    return f"{name[: -len(ENDING)]}{ENDING}" if name.casefold().endswith(ENDING) else name
