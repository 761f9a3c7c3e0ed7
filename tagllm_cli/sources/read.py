"""Read one file whole."""

from __future__ import annotations

import errno
import os
import re
import stat

from tagllm_cli.sources.base import ReadFailure

# No image within our limit on pixels needs more; what is larger is a disk image or a video under the wrong name.
MAX_FILE_BYTES = 2 << 30

_LONGEST_NAME = 255  # bytes, of a file; only base64 has no dot in so many characters
_BASE64 = re.compile(r"[A-Za-z0-9+/\s]+")


def read_file(path: str) -> bytes:
    """Return a file's bytes, without waiting for the other end of a FIFO.

    Raises ReadFailure of kind `vanished` (nothing there), `not_a_file` (folder, FIFO, socket, device, broken
    link), `too_large` (more than MAX_FILE_BYTES) or `unreadable` (no permission, a loop of links, a failing disk).
    """
    try:
        # Without O_NONBLOCK opening a FIFO waits for a writer; on a regular file it changes nothing.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise ReadFailure("not_a_file", "not a regular file")
            if status.st_size > MAX_FILE_BYTES:
                raise ReadFailure("too_large", f"{status.st_size} bytes, more than {MAX_FILE_BYTES}")
            return file.read()
    except OSError as error:
        raise failure_of(path, error) from error


def read_named_file(path: str) -> bytes:
    """Return the bytes of a file that a line or a row names; where it is missing, the reason says which path it was."""
    try:
        return read_file(path)
    except ReadFailure as failure:
        raise named_missing(path, failure) from failure


def named_missing(place: str, failure: ReadFailure) -> ReadFailure:
    """Return why a file that somebody named cannot be read; of one that is missing, say where it was looked for."""
    return ReadFailure("vanished", f"there is no file {place}") if failure.kind == "vanished" else failure


def is_image_data(text: str) -> bool:
    """Tell whether a text that should be a path or a URL is an image itself, encoded in base64.

    >>> is_image_data("data:image/png;base64,iVBORw0KGgo="), is_image_data("/9j/photo.jpg")
    (True, False)
    """
    if text.startswith("data:image/"):
        return True
    return len(text) > _LONGEST_NAME and _BASE64.fullmatch(text, 0, _LONGEST_NAME + 1) is not None


def failure_of(path: str, error: OSError) -> ReadFailure:
    """Return why a file cannot be opened or read, as `read_file` raises it."""
    if isinstance(error, IsADirectoryError):
        return ReadFailure("not_a_file", "a folder")
    if isinstance(error, FileNotFoundError) and os.path.islink(path):
        return ReadFailure("not_a_file", "a link to nothing")
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return ReadFailure("vanished", "the file is not there any more")
    if error.errno == errno.ENXIO:  # a socket
        return ReadFailure("not_a_file", "not a regular file")
    return ReadFailure("unreadable", error.strerror or type(error).__name__)
