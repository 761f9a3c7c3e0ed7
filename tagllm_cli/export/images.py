"""Image files of an export: copied from any source, linked, or named where they are."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tagllm_cli.errors import UsageError
from tagllm_cli.export.chunks import Example
from tagllm_cli.export.examples import Examples, path_column
from tagllm_cli.export.names import distinct, file_name, path_name
from tagllm_cli.export.settings import ExportSettings
from tagllm_cli.records import Image, digest16
from tagllm_cli.sources.base import ReadFailure, Source, read_all, recall
from tagllm_cli.sources.registry import reopen
from tagllm_cli.sources.storage.file_names import EXTENSIONS

if TYPE_CHECKING:
    from tagllm_cli.store.table import Table

NO_FILE = "not_a_file"
# Why images are left out before anybody opens them.
_NOT_ABOUT_FILES = frozenset(["failed", "pending", "undecided", "bad_name", "no_label", "several_labels"])
_FLAT = "__"  # stands between the folders of a path in one name


def placed(
    examples: Examples,
    table: Table,
    settings: ExportSettings,
    folder_of: Callable[[Example], Path],
    *,
    flat: bool = False,
) -> Iterator[tuple[Example, str]]:
    """Put the images of `examples` into folders and yield each with its file's name, relative to `folder_of(example)`.

    `settings.images` decides: `copy` (also None) writes the bytes, `link` makes a hard link where that works, else a
    symbolic one, and `reference` writes nothing and yields the absolute path or URL. A name is the image's own path,
    made harmless and unique in its folder; with `flat`, in one part. What cannot be read, or is not what was labeled,
    is dropped from `examples` with the reason (a reference is not opened). Raises SourceError where the source is not
    there, and UsageError where not one image could be placed, or images in archives are to be linked.

        for example, name in placed(examples, table, settings, lambda example: new / example.split):
            lines.write(f"{example.split}/{name}")
    """
    source = reopen(table.info.source, settings.root)
    if settings.images == "link":
        check_linkable(source)
    found = False
    if settings.images == "reference":
        for example, path in located(examples, source):
            found = True
            yield example, path
    else:
        for example, data in read(examples, source):
            found = True
            target = source.locate(_image(source, example)) if settings.images == "link" else None
            name = _name(example, table.info.source.kind, data, flat)
            yield example, _put(folder_of(example), name, example.row.image_id, data, target)
    if not found:
        check_some_read(examples, source)


def read(examples: Examples, source: Source) -> Iterator[tuple[Example, bytes]]:
    """Yield the examples with the bytes that were labeled; drop those that cannot be read, and count why."""
    ahead: deque[Example] = deque()  # a source may want to know what follows

    def images() -> Iterator[Image]:
        for example in examples:
            ahead.append(example)
            yield _image(source, example)

    for _, data in read_all(source, images()):
        example = ahead.popleft()
        if isinstance(data, ReadFailure):
            examples.drop(example, data.kind)
        elif digest16(data) != example.row.fingerprint:
            examples.drop(example, "changed")
        else:
            yield example, data


def located(examples: Examples, source: Source) -> Iterator[tuple[Example, str]]:
    """Yield the examples with the absolute path or URL of the image's own file; drop those that have none."""
    for example in examples:
        path = source.locate(_image(source, example))
        if path is None:
            examples.drop(example, NO_FILE)
        else:
            yield example, path


def check_linkable(source: Source) -> None:
    """Raise UsageError unless the images of a source are files of this machine."""
    info = source.describe()
    if info.kind not in ("folder", "manifest") or "://" in info.uri:
        what = f"the images of {info.uri} are not files of this machine that could be linked"
        raise UsageError(what, "Use --copy.")


def check_some_read(examples: Examples, source: Source) -> None:
    """Raise UsageError where images were to be exported and each was dropped: the source has moved, it seems."""
    unread = examples.summary([]).left_out.keys() - _NOT_ABOUT_FILES
    if not unread:
        return
    info = source.describe()
    if info.kind in ("tar", "parquet") and NO_FILE in unread:
        message = f"the images in the {info.kind} files of {info.uri} have no files of their own to be named by"
        raise UsageError(message, "Leave out --reference (and --no-embed): their bytes are copied then.")
    raise UsageError(f"not one image of the table can be read below {info.uri}", "Say with --root where they are now.")


def ending_of(name: str, data: bytes) -> str:
    """Return the ending of an image's name in lower case, or the one that its bytes call for; "" for neither.

    >>> ending_of("a.b/c.JPG", b""), ending_of("rows.parquet/12", b"\\x89PNG\\r\\n\\x1a\\n")
    ('.jpg', '.png')
    """
    from tagllm_cli.records import Failure
    from tagllm_cli.sources.formats import recognize

    ending = os.path.splitext(name)[1].lower()
    if ending in EXTENSIONS:
        return ending
    form = recognize(data)
    guess = "" if isinstance(form, Failure) else f".{form.name.split()[0].lower()}"
    return {".jpeg": ".jpg", ".tiff": ".tif"}.get(guess, guess) if guess in EXTENSIONS else ""


def _image(source: Source, example: Example) -> Image:
    return recall(source, example.row.image_id, example.row.uri)


def _name(example: Example, kind: str, data: bytes, flat: bool) -> str:
    row = example.row
    name = path_name(getattr(row, path_column(kind)))
    if os.path.splitext(name)[1].lower() not in EXTENSIONS:
        name += ending_of(name, data)
    return file_name(name.replace("/", _FLAT)) if flat else name


def _put(folder: Path, name: str, image_id: str, data: bytes, path: str | None) -> str:
    """Place a file in a folder under `name`, or one like it where that is taken; return the name."""
    for wanted in (name, distinct(name, image_id), distinct(file_name(name.replace("/", _FLAT)), image_id)):
        new = folder / wanted
        try:
            new.parent.mkdir(parents=True, exist_ok=True)
            if path is None:
                with new.open("xb") as file:
                    file.write(data)
            else:
                _link(os.path.realpath(path), new)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            continue
        return wanted
    raise UsageError(f"{image_id!r} and another image come to the same name", "Export them into different folders.")


def _link(path: str, new: Path) -> None:
    try:
        os.link(path, new)
    except FileExistsError:
        raise
    except OSError:  # another file system, or a file of somebody else
        new.symlink_to(path)
