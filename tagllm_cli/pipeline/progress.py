"""Progress and messages as protocols, so that a job runs in a terminal, a worker or a notebook alike.

`tagllm_cli.cli.console.Console` implements them for a terminal; `Silent` is what everything else may pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from tagllm_cli.engines.base import Usage
    from tagllm_cli.errors import TagllmError
    from tagllm_cli.pipeline.label.stats import RunStats


class RunProgress(Protocol):
    """Progress of one labeling run."""

    def starting(self) -> None:
        """The engine starts to load."""
        ...

    def update(self, stats: RunStats, usage: Usage) -> None:
        """An image is finished."""
        ...

    def trouble(self, trouble: str | None) -> None:
        """What keeps requests from being answered; None: nothing. Called once a second."""
        ...


class Reporter(Protocol):
    """Where a job sends messages and progress."""

    def note(self, message: str) -> None:
        """Show a message that `--quiet` suppresses."""
        ...

    def warn(self, message: str) -> None:
        """Show a message that is never suppressed."""
        ...

    def watching(self, verb: str, images: int, shards: int = 0) -> AbstractContextManager[RunProgress]:
        """Show the progress of a run until the context ends: over so many images, and shards that nobody knows yet."""
        ...


class Dialog(Reporter, Protocol):
    """A reporter that can also ask a person, as `concepts --review` does."""

    @property
    def is_interactive(self) -> bool:
        """Whether both input and output are terminals."""
        ...

    def show(self, title: str, facts: Sequence[tuple[str, str]]) -> None:
        """Show what a question is about: a title, and facts as (name, text)."""
        ...

    def ask(self, question: str) -> str | None:
        """Return the line typed, "" where it is no text, None at the end of the input."""
        ...

    def explain(self, error: TagllmError) -> None:
        """Show an error's message and hint."""
        ...


class Silent:
    """A `Reporter` that shows nothing."""

    def note(self, message: str) -> None:
        """Drop the message."""

    def warn(self, message: str) -> None:
        """Drop the message."""

    @contextmanager
    def watching(self, verb: str, images: int, shards: int = 0) -> Iterator[Silent]:
        """Return a `RunProgress` that shows nothing."""
        yield self

    def starting(self) -> None:
        """Show nothing."""

    def update(self, stats: RunStats, usage: Usage) -> None:
        """Show nothing."""

    def trouble(self, trouble: str | None) -> None:
        """Show nothing."""
