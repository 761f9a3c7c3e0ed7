"""The log of a command: a file beside the table that it writes, `labels.log` beside `labels.parquet`.

The file is not touched before the command has done something: what cannot be used leaves no trace. Until then records
wait in memory.
"""

from __future__ import annotations

import logging
import shlex
import sys
import tempfile
import traceback
from logging.handlers import MemoryHandler, RotatingFileHandler
from pathlib import Path

from tagllm_cli.cli.redact import redact

logger = logging.getLogger("tagllm_cli")
logger.addHandler(logging.NullHandler())  # without a handler Python would print warnings on stderr
MAX_BYTES = 4 << 20  # then it becomes labels.log.1
_WAITING = 1_000  # records; a command that does nothing logs a few


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


class _File(RotatingFileHandler):
    """A log file. A full disk or a read-only folder does not end a run, nor does it print a traceback."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Drop the record."""


class _Log(MemoryHandler):
    """Keeps records in memory until `open` names the file's handler as its target."""

    def __init__(self, path: Path) -> None:
        super().__init__(_WAITING, flushOnClose=False)
        self.path = path

    def open(self) -> None:
        if self.target is None:
            file = _File(
                self.path, maxBytes=MAX_BYTES, backupCount=1, delay=True, encoding="utf-8", errors="backslashreplace"
            )
            file.setFormatter(_Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
            self.setTarget(file)
            self.flush()

    def shouldFlush(self, record: logging.LogRecord) -> bool:
        if self.target is None:
            del self.buffer[:-_WAITING]
        return self.target is not None

    def close(self) -> None:
        if self.target is not None:
            self.target.close()
        super().close()


def path_of(out: Path) -> Path:
    """Return the log's path for a file that a command writes.

    >>> str(path_of(Path("a/labels.parquet"))), str(path_of(Path("cards.yaml")))
    ('a/labels.log', 'cards.yaml.log')
    """
    return out.with_name(f"{out.name.removesuffix('.parquet')}.log")


def start(log_of: Path | None, *, verbose: bool = False) -> None:
    """Log a command beside the file that it writes, INFO or (`verbose`) DEBUG; None: log nothing."""
    stop()
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)
    if log_of is not None:
        from tagllm_cli import __version__

        logger.addHandler(_Log(path_of(log_of)))
        logger.info("tagllm %s: %s", __version__, shlex.join(["tagllm", *sys.argv[1:]]))


def open_file() -> None:
    """Write what waits in memory, and from now on every record: the command has done something."""
    if (log := _current()) is not None:
        log.open()


def stop() -> None:
    """Close the log; what was not written is dropped."""
    if (log := _current()) is not None:
        logger.removeHandler(log)
        log.close()
    logger.setLevel(logging.NOTSET)


def record_crash(error: BaseException) -> Path | None:
    """Write the traceback of an unexpected exception; return the log, else a temporary file, None where neither works.

    With --verbose it goes to stderr as well.
    """
    text = redact("".join(traceback.format_exception(error)))
    if logger.isEnabledFor(logging.DEBUG):
        print(text, file=sys.stderr)
    log = _current()
    if log is not None and log.path.parent.is_dir():
        log.open()
        logger.critical("unexpected %s\n%s", type(error).__name__, text)
        if log.path.exists():
            return log.path
    try:
        with tempfile.NamedTemporaryFile("w", prefix="tagllm-", suffix=".log", delete=False, encoding="utf-8") as file:
            file.write(text)
        return Path(file.name)
    except OSError:
        return None


def _current() -> _Log | None:
    return next((each for each in logger.handlers if isinstance(each, _Log)), None)
