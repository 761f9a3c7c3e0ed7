"""Read one file whole."""

from __future__ import annotations

import errno
import os
import stat

from tagllm_cli.sources.base import ReadFailure

# No image within our limit on pixels needs more; what is larger is a disk image or a video under the wrong name.
MAX_FILE_BYTES = 2 << 30


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
