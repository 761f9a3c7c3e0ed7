"""Terminal output: results to stdout, diagnostics to stderr.

Without a terminal lines are plain and tables have neither borders nor folded cells; with NO_COLOR nothing is styled;
with `--json` stdout carries exactly one object. Text is printed as it is, but for characters that could steer a
terminal or hide in one, and for secrets.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from rich import box
from rich.cells import cell_len
from rich.console import Console as RichConsole
from rich.table import Table as RichTable
from rich.text import Text

from tagllm_cli.cli import logs
from tagllm_cli.cli.progress import CountDisplay, Goal, ProgressDisplay
from tagllm_cli.cli.redact import redact

if TYPE_CHECKING:
    from tagllm_cli.errors import TagllmError

_log = logging.getLogger(__name__)

# Names of files and responses of models may hold anything. In order: control characters, the soft hyphen, an Arabic and
# a Mongolian mark, zero-width and line separators, bidirectional controls, invisible operators; lone surrogates, which
# stand for bytes that are not UTF-8; the byte order mark.
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff]"
)
_LEAST_TEXT = 12  # cells for a column of text, which may be folded
_STATES = {"ok": "green", "warning": "yellow", "missing": "red"}


class Console:
    """Messages and progress of a command (stderr), and its result (stdout). All of it is logged as well."""

    def __init__(self, *, json_output: bool = False, quiet: bool = False) -> None:
        self._json, self._quiet = json_output, quiet
        self._out, self._err = _rich(stderr=False), _rich(stderr=True)

    def note(self, message: str) -> None:
        """Print a message that `--quiet` suppresses."""
        _log.info("%s", message)
        if not self._quiet:
            self._err.print(_text(message))

    def warn(self, message: str) -> None:
        """Print a message that is never suppressed."""
        _log.warning("%s", message)
        self._err.print(Text.assemble(("warning: ", "yellow"), _text(_one_line(message))))

    def error(self, error: TagllmError) -> None:
        """Print an error without a result: as the one object under `--json`, and for people."""
        if self._json:
            self._dump({"error": error.to_json()})
        self.explain(error)

    def explain(self, error: TagllmError) -> None:
        """Print an error's message and hint, a line each, on stderr."""
        _log.error("%s (hint: %s)", error.message, error.hint)
        _log.debug("raised here", exc_info=error)
        self._err.print(Text.assemble(("error: ", "bold red"), _text(_one_line(error.message))))
        if error.hint:
            self._err.print(_text(_one_line(error.hint), "dim"))

    def result(self, value: Mapping[str, Any], lines: Sequence[str]) -> None:
        """Print a result: `value` as one JSON object under `--json`, else the lines unless `--quiet`."""
        logs.open_file()
        for line in lines:
            _log.info("%s", line)
        if self._json:
            self._dump(value)
        elif not self._quiet:
            for line in lines:
                self._out.print(_text(line))

    def table(
        self, value: Mapping[str, Any], title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]
    ) -> None:
        """Print a table unless `--quiet`, or `value` as one JSON object under `--json`. Numbers align right."""
        if self._json:
            self._dump(value)
            return
        if self._quiet:
            return
        self._out.print(_text(title, "bold"))
        numeric = [all(row[number][:1] in set("-0123456789") for row in rows) for number in range(len(columns))]
        if not self._out.is_terminal:
            for line in _aligned([columns, *rows], numeric):
                self._out.print(_text(line))
            return
        for part in _parts([columns, *rows], numeric, self._out.width):
            drawn = RichTable(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
            for number in part:
                whole = numeric[number] and not any(" " in row[number] for row in (columns, *rows))
                justify: Literal["left", "right"] = "right" if numeric[number] else "left"
                drawn.add_column(columns[number], justify=justify, overflow="fold", no_wrap=whole)
            for row in rows:
                drawn.add_row(*(_text(row[number], _STATES.get(row[number], "")) for number in part))
            self._out.print(drawn, soft_wrap=False)

    def facts(self, title: str, facts: Sequence[tuple[str, str]]) -> None:
        """Print what there is to say about one thing unless `--quiet`: a title, if any, and facts as (name, text)."""
        if self._quiet:
            return
        if title:
            self._out.print(_text(_one_line(title), "bold"))
        if not self._out.is_terminal:
            for line in _aligned([(f"{name}:" * bool(name), text) for name, text in facts], (False, False)):
                self._out.print(_text(line))
            return
        drawn = RichTable.grid(padding=(0, 2, 0, 0))
        drawn.add_column(no_wrap=True)
        drawn.add_column(overflow="fold")
        for name, text in facts:
            drawn.add_row(_text(name, "dim"), _text(_one_line(text)))
        self._out.print(drawn, soft_wrap=False)

    @property
    def is_interactive(self) -> bool:
        """Whether both stdin and stderr are terminals, so that a person can be asked."""
        return sys.stdin.isatty() and sys.stderr.isatty()

    def show(self, title: str, facts: Sequence[tuple[str, str]]) -> None:
        """Print what a question is about: a title, and facts as (name, text). On stderr."""
        self._err.print()
        self._err.print(_text(_one_line(title), "bold"))
        width = max((cell_len(what) for what, _ in facts), default=0)
        for what, text in facts:
            padding = " " * (width - cell_len(what))
            self._err.print(Text.assemble(("  " + what + padding, "dim"), "  ", _text(_one_line(text))))

    def ask(self, question: str) -> str | None:
        """Return the line that a person types, "" where it is no text, None at the end of the input."""
        self._err.print(_text(question), end="")
        self._err.file.flush()
        try:
            return input()
        except UnicodeDecodeError:
            return ""
        except EOFError:
            self._err.print()
            return None

    @contextmanager
    def watching(self, verb: str, images: int, shards: int = 0) -> Iterator[ProgressDisplay]:
        """Show the progress of a run over images, and shards that nobody knows yet, until the context ends."""
        display = ProgressDisplay(self._err, verb, Goal(images, shards), quiet=self._quiet, printable=_text)
        try:
            yield display
        finally:
            display.finish()

    @contextmanager
    def counting(self, verb: str) -> Iterator[CountDisplay]:
        """Show how much of a step is done until the context ends: call it with what, how much, and of how much."""
        display = CountDisplay(self._err, verb, quiet=self._quiet)
        try:
            yield display
        finally:
            display.finish()

    def _dump(self, value: Mapping[str, Any]) -> None:
        text = redact(json.dumps(value, ensure_ascii=False, indent=2))
        text = _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)  # the same to every reader of JSON
        try:
            text.encode(self._out.encoding)
        except UnicodeEncodeError:
            text = redact(json.dumps(value, indent=2)).replace("…", "...")
        self._out.file.write(text + "\n")
        self._out.file.flush()


def _rich(*, stderr: bool) -> RichConsole:
    # soft_wrap: the terminal wraps, so that a path or a command that is copied from it has no line breaks.
    plain = bool(os.environ.get("NO_COLOR"))
    return RichConsole(stderr=stderr, soft_wrap=True, highlight=False, color_system=None if plain else "auto")


def _text(text: str, style: str = "") -> Text:
    # Not markup: brackets and :names: in a text mean nothing to us.
    return Text(_UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), redact(text)), style)


def _parts(rows: Sequence[Sequence[str]], numeric: Sequence[bool], width: int) -> Iterator[list[int]]:
    """Yield the columns that fit side by side into `width` without a broken number; the first one leads each part."""
    needed = [
        max(cell_len(word) for row in rows for word in ("", *row[number].split()))
        if right
        else min(_LEAST_TEXT, max(cell_len(row[number]) for row in rows))
        for number, right in enumerate(numeric)
    ]
    lead = [] if not needed or numeric[0] else [0]
    part = list(lead)
    for number in range(len(lead), len(needed)):
        if part != lead and sum(needed[each] + 2 for each in (*part, number)) > width:
            yield part
            part = list(lead)
        part.append(number)
    yield part


def _aligned(rows: Sequence[Sequence[str]], right: Sequence[bool]) -> Iterator[str]:
    """Yield a line for each row, however long, for `grep` and for logs; columns marked `right` align right."""
    cells = [[_one_line(cell) for cell in row] for row in rows]
    widths = [max(cell_len(row[number]) for row in cells) for number in range(len(right))]
    for row in cells:
        padding = [" " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True)]
        columns = zip(row, padding, right, strict=True)
        yield "  ".join(space + cell if right_ else cell + space for cell, space, right_ in columns).rstrip()


def _one_line(text: str) -> str:
    return " ".join(text.split())
