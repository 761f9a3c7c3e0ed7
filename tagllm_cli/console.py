"""The only room that draws in the terminal. Results go to stdout, everything else to stderr.

Without a terminal, or with NO_COLOR, lines are plain; with `--json` stdout carries exactly one object.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console as RichConsole
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table as RichTable
from rich.text import Text

if TYPE_CHECKING:
    from tagllm_cli.engines import Counters
    from tagllm_cli.errors import TagllmError
    from tagllm_cli.runner import Tally

PLAIN_SECONDS = 10.0  # without a terminal: a line of progress this often


class Console:
    """Where a command says what it does (stderr) and what came out (stdout)."""

    def __init__(self, *, json_output: bool = False, quiet: bool = False) -> None:
        self._json, self._quiet = json_output, quiet
        self._out = RichConsole(soft_wrap=True)
        self._err = RichConsole(stderr=True, soft_wrap=True)

    def note(self, message: str) -> None:
        """Say something in passing; `--quiet` leaves it out."""
        if not self._quiet:
            self._err.print(escape(message), highlight=False)

    def warn(self, message: str) -> None:
        """Say something that should not be missed."""
        self._err.print(f"[yellow]warning:[/] {escape(message)}", highlight=False)

    def error(self, error: TagllmError) -> None:
        """Print an error that nothing came out of: as the one object under `--json`, and for people."""
        if self._json:
            self._dump({"error": error.to_json()})
        self.explain(error)

    def explain(self, error: TagllmError) -> None:
        """Print one line of what went wrong and one line of what to do, on stderr."""
        self._err.print(f"[bold red]error:[/] {escape(_one_line(error.message))}", highlight=False)
        if error.hint:
            self._err.print(f"[dim]{escape(_one_line(error.hint))}[/]", highlight=False)

    def result(self, value: Mapping[str, Any], lines: Sequence[str]) -> None:
        """Print what came out: `value` as one JSON object under `--json`, else the lines."""
        if self._json:
            self._dump(value)
            return
        for line in lines:
            self._out.print(escape(line), highlight=False)

    def table(
        self, value: Mapping[str, Any], title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]
    ) -> None:
        """Print a table for people, or `value` as one JSON object under `--json`. Columns of numbers align right."""
        if self._json:
            self._dump(value)
            return
        drawn = RichTable(title=escape(title), title_justify="left", header_style="bold")
        for number, column in enumerate(columns):
            numbers = all(row[number].strip("-")[:1].isdigit() or row[number] == "-" for row in rows)
            drawn.add_column(column, justify="right" if rows and numbers else "left", overflow="fold")
        for row in rows:
            drawn.add_row(*(escape(cell) for cell in row))
        self._out.print(drawn)

    @contextmanager
    def watching(self, verb: str, images: int) -> Iterator[RunWatcher]:
        """Show the progress of a run over so many images."""
        watcher = RunWatcher(self._err, verb, images, quiet=self._quiet)
        try:
            yield watcher
        finally:
            watcher.finish()

    def _dump(self, value: Mapping[str, Any]) -> None:
        sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2) + "\n")
        sys.stdout.flush()


class RunWatcher:
    """Progress of one run: a live bar on a terminal, a plain line now and then elsewhere."""

    def __init__(self, console: RichConsole, verb: str, images: int, *, quiet: bool) -> None:
        self._console, self._verb, self._images, self._quiet = console, verb, images, quiet
        self._started = self._said = time.monotonic()
        self._bar: Progress | None = None

    def starting(self) -> None:
        """The engine is about to load."""
        if self._quiet:
            return
        if not self._console.is_terminal:
            self._console.print(f"{self._verb}: starting the engine for {self._images:,} images", highlight=False)
            return
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
            _Facts(),
            TimeRemainingColumn(compact=True),
            console=self._console,
        )
        self._bar.add_task("starting the engine", total=self._images, facts="")
        self._bar.start()

    def progress(self, tally: Tally, counters: Counters) -> None:
        """An image is done."""
        now = time.monotonic()
        if tally.images == 1:
            self._started = self._said = now  # the engine's start-up is not the images' speed
        if self._quiet or (not self._bar and now - self._said < PLAIN_SECONDS):
            return
        self._said = now
        facts = _facts(tally, counters, now - self._started)
        if self._bar:
            self._bar.update(self._bar.task_ids[0], description=self._verb, completed=tally.images, facts=facts)
            return
        left = (self._images - tally.images) * (now - self._started) / max(1, tally.images)
        self._console.print(
            f"{self._verb}: {tally.images:,}/{self._images:,}  {facts}  ETA {_clock(left)}", highlight=False
        )

    def finish(self) -> None:
        """Leave the terminal as it was."""
        if self._bar:
            self._bar.stop()
            self._bar = None


class _Facts(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(str(task.fields.get("facts", "")), style="dim")


def _facts(tally: Tally, counters: Counters, seconds: float) -> str:
    seconds = max(seconds, 1e-3)
    tokens = counters.prompt_tokens + counters.output_tokens
    cached = counters.cached_tokens / max(1, counters.prompt_tokens)
    failed = tally.failed_images + tally.failed_requests
    parts = [f"{tally.images / seconds:.1f} images/s", f"{tally.asked:,} requests", f"{tokens / seconds:,.0f} tokens/s"]
    parts += [f"{cached:.0%} cached", *([f"{failed:,} failed"] if failed else [])]
    return "  ".join(parts)


def _clock(seconds: float) -> str:
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


def _one_line(text: str) -> str:
    return " ".join(text.split())
