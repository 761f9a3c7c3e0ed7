"""Engines that workers on a Ray cluster run in tests: they answer by rule, and some die of it."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tagllm_cli.engines.base import EngineDiedError
from tagllm_cli.errors import ModelError
from tagllm_cli.records import DecodedImage, Request, Response
from tests.support.rule_engine import RuleEngine


def kill_process() -> None:
    """What the out-of-memory killer does."""
    os.kill(os.getpid(), signal.SIGKILL)


def lose_engine() -> None:
    """What an engine says whose own process is gone."""
    raise EngineDiedError("the engine's process is gone")


@dataclass
class Dying(RuleEngine):
    """Calls `death` at every image of `poison`, and once, when it has answered about `after` images, if `marker` can
    be created then: of all processes one does.
    """

    death: object = kill_process
    after: int = 10**9
    marker: Path = Path("nowhere")
    poison: frozenset[str] = frozenset()

    async def ask(
        self, picture: DecodedImage | None, requests: Sequence[Request]
    ) -> AsyncGenerator[tuple[Request, Response]]:
        assert picture is not None
        assert callable(self.death)
        self.after -= 1
        if picture.uuid in self.poison or (self.after < 0 and self._is_first()):
            self.death()
        async for pair in super().ask(picture, requests):
            yield pair

    def _is_first(self) -> bool:
        try:
            self.marker.touch(exist_ok=False)
        except FileExistsError:
            return False
        return True


@dataclass
class Reached(RuleEngine):
    """Creates `marker` when it is asked, `pause` seconds pass between its responses."""

    marker: Path = Path("nowhere")

    async def ask(
        self, picture: DecodedImage | None, requests: Sequence[Request]
    ) -> AsyncGenerator[tuple[Request, Response]]:
        self.marker.touch()
        async for pair in super().ask(picture, requests):
            yield pair


class Unloadable(RuleEngine):
    """Cannot start."""

    async def start(self) -> None:
        raise ModelError("there are no weights in /models/none", "Download them.")


class Crashing(RuleEngine):
    """Takes its process along when it starts."""

    async def start(self) -> None:
        kill_process()
