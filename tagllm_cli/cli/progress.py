"""Progress of a run: a live bar on a terminal, plain lines elsewhere, and a line in the log now and then."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console as RichConsole
from rich.console import RenderableType
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from tagllm_cli.cli import logs

if TYPE_CHECKING:
    from tagllm_cli.engines.base import Usage
    from tagllm_cli.pipeline.label.stats import RunStats

_log = logging.getLogger(__name__)

PLAIN_SECONDS = 10.0  # between two lines without a terminal
LOG_SECONDS = 60.0  # between two lines in the log
_BAR_SECONDS = 0.5  # what is done sooner needs no bar
TROUBLE_SECONDS = 5.0  # between two lines about what keeps requests from being answered


@dataclass(frozen=True, slots=True)
class Goal:
    """What a run has before it: images, and shards of which nobody knows yet how many images they hold."""

    images: int
    shards: int = 0

    def __str__(self) -> str:
        images = f"{self.images:,} images" if self.images or not self.shards else ""
        shards = f"{self.shards:,} shards" if self.shards else ""
        return " and ".join(filter(None, (images, shards)))

    @property
    def total(self) -> int:
        """What the bar counts: shards as long as the number of images is not known."""
        return self.shards or self.images

    def done(self, stats: RunStats) -> int:
        """Return how much of `total` is done."""
        return stats.shards if self.shards else stats.images

    def reached(self, stats: RunStats) -> str:
        """Return the same as text."""
        if self.shards:
            return f"{stats.shards:,}/{self.shards:,} shards  {stats.images:,} images"
        return f"{stats.images:,}/{self.images:,}"


class ProgressDisplay:
    """Implements `pipeline.progress.RunProgress` for a terminal; `quiet` leaves the log alone.

    `printable` returns what may be printed of a text that a server wrote.
    """

    def __init__(
        self, console: RichConsole, verb: str, goal: Goal, *, quiet: bool, printable: Callable[[str], Text]
    ) -> None:
        self._console, self._verb, self._goal, self._quiet = console, verb, goal, quiet
        self._printable = printable
        self._trouble = _TroubleLines()
        self._began = self._printed = self._logged = time.monotonic()
        self._tokens_before = 0
        self._bar: _Bar | None = None

    def starting(self) -> None:
        """Show that the engine starts to load."""
        _log.info("%s: starting the engine for %s", self._verb, self._goal)
        if self._quiet:
            return
        if not self._console.is_terminal or self._console.is_dumb_terminal:
            self._console.print(f"{self._verb}: starting the engine for {self._goal}")
            return
        self._bar = _Bar(self._console, "starting the engine", self._goal)
        self._bar.start()

    def update(self, stats: RunStats, usage: Usage) -> None:
        """Show that an image is finished."""
        now = time.monotonic()
        if stats.images == 1:  # the engine's start-up is not the images' speed
            logs.open_file()
            self._began = self._printed = self._logged = now
            self._tokens_before = usage.prompt_tokens + usage.output_tokens
        prints = not self._quiet and (self._bar is not None or now - self._printed >= PLAIN_SECONDS)
        writes = now - self._logged >= LOG_SECONDS
        if not prints and not writes:
            return
        facts = self._facts(stats, usage, now - self._began)
        line = f"{self._verb}: {self._goal.reached(stats)}  {facts}  ETA {self._eta(stats, now - self._began)}"
        if writes:
            self._logged = now
            _log.info("%s", line)
        if prints and self._bar:
            self._bar.show(self._verb, self._goal.done(stats), facts)
        elif prints:
            self._printed = now
            self._console.print(line)

    def trouble(self, trouble: str | None) -> None:
        """Show what keeps requests from being answered: under the bar, or as a line when it has changed."""
        if line := self._trouble.next_line(trouble, time.monotonic()):
            _log.warning("%s: %s", self._verb, line)
            if not self._quiet and self._bar is None:
                self._console.print(self._printable(f"{self._verb}: {line}"))
        if self._bar:
            self._bar.show_trouble(None if trouble is None else self._printable(trouble))

    def finish(self) -> None:
        """Leave the terminal as it was."""
        if self._bar:
            self._bar.show_trouble(None)
            self._bar.stop()
            self._bar = None

    def _eta(self, stats: RunStats, seconds: float) -> str:
        done = self._goal.done(stats) - (0 if self._goal.shards else 1)
        if self._goal.shards and not done:
            return "unknown"  # before the first shard ends
        return _clock((self._goal.total - self._goal.done(stats)) * seconds / max(1, done))

    def _facts(self, stats: RunStats, usage: Usage, seconds: float) -> str:
        seconds = max(seconds, 0.1)
        tokens = usage.prompt_tokens + usage.output_tokens - self._tokens_before
        cached = usage.cached_tokens / max(1, usage.prompt_tokens)
        failed = stats.failed_images + stats.failed_requests
        parts = [
            f"{(stats.images - 1) / seconds:.1f} images/s",
            f"{stats.asked:,} requests",
            f"{tokens / seconds:,.0f} tokens/s",
            f"{cached:.0%} cached",
            *([f"{failed:,} failed"] if failed else []),
            *([f"{stats.images:,} images"] if self._goal.shards and self._bar is not None else []),
        ]
        return "  ".join(parts)


class _TroubleLines:
    """Chooses what of a trouble is worth a line: what is new, after 5 s; where only numbers change, less and less."""

    def __init__(self) -> None:
        self._told = ""
        self._told_at = -TROUBLE_SECONDS
        self._pause = TROUBLE_SECONDS

    def next_line(self, trouble: str | None, now: float) -> str | None:
        """Return a line to print; None: none now."""
        kind = re.sub(r"\d+", "0", trouble or "")
        is_new = kind != self._told
        if now - self._told_at < (TROUBLE_SECONDS if is_new else self._pause) or not (trouble or is_new):
            return None
        self._pause = 2 * TROUBLE_SECONDS if is_new else min(2 * self._pause, LOG_SECONDS)
        self._told, self._told_at = kind, now
        return trouble or "requests are answered again"


class _Bar(Progress):
    """A bar with the facts on a line of their own, so that both fit into 80 columns."""

    def __init__(self, console: RichConsole, verb: str, goal: Goal) -> None:
        super().__init__(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f}" + (" shards" if goal.shards else "")),
            TimeRemainingColumn(compact=True),
            console=console,
        )
        self._facts = ""
        self._trouble: Text | None = None
        self._task = self.add_task(verb, total=goal.total)

    def show(self, verb: str, done: int, facts: str) -> None:
        """Move the bar."""
        self._facts = facts
        self.update(self._task, description=verb, completed=done)

    def count(self, what: str, done: int, total: int) -> None:
        """Show another count."""
        self.update(self._task, description=what, completed=done, total=total)

    def show_trouble(self, trouble: Text | None) -> None:
        """Show a line of trouble, as long as there is some."""
        self._trouble = trouble
        self.refresh()

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        if self.tasks and self._facts:
            yield Text(f"  {self._facts}", style="dim", no_wrap=True, overflow="ellipsis")
        if self.tasks and self._trouble:
            yield Text.assemble("  ", self._trouble, style="yellow", no_wrap=False, overflow="fold")


class CountDisplay:
    """Progress of a command in steps that are counted: a bar on a terminal, elsewhere a line now and then."""

    def __init__(self, console: RichConsole, verb: str, *, quiet: bool) -> None:
        self._console, self._verb = console, verb
        self._began = self._printed = time.monotonic()
        self._total = 0
        self._bar: _Bar | None = None
        self._is_silent = quiet
        self._draws = console.is_terminal and not console.is_dumb_terminal

    def __call__(self, what: str, done: int, total: int) -> None:
        """Show that `done` of `total` are done of what is being counted."""
        now = time.monotonic()
        if total != self._total:  # another thing is counted from here on
            self._total, self._began = total, now
        if self._is_silent or (
            self._bar is None and now - self._printed < (_BAR_SECONDS if self._draws else PLAIN_SECONDS)
        ):
            return
        self._printed = now
        if not self._draws:
            left = (now - self._began) / max(1, done) * (total - done)
            self._console.print(f"{self._verb}: {what} {done:,}/{total:,}  ETA {_clock(left)}")
            return
        if self._bar is None:
            self._bar = _Bar(self._console, self._verb, Goal(images=total))
            self._bar.start()
        self._bar.count(f"{self._verb}: {what}", done, total)

    def finish(self) -> None:
        """Leave the terminal as it was."""
        if self._bar:
            self._bar.stop()
            self._bar = None


def _clock(seconds: float) -> str:
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
