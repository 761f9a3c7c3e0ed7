"""The workers as the driver has them: what is in flight at each, and the engines of all as one."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from tagllm_cli.pipeline.label.ray.blocks import Piece
from tagllm_cli.pipeline.label.ray.cluster import RemoteWorker
from tagllm_cli.records import Request

# Until a worker's engine has said how much it takes.
FIRST_REQUESTS = 128
PATIENCE_SECONDS = 30.0  # until a worker that Ray does not start is told about


@dataclass(slots=True)
class Serving:
    """A worker with what is in flight at it."""

    remote: RemoteWorker
    pieces: dict[int, Piece] = field(default_factory=dict)
    questions: list[Request] = field(default_factory=list)
    capacity: int = 0
    gpus: int | None = None
    node: str = ""
    trouble: str | None = None
    task: asyncio.Task[None] | None = None

    @property
    def requests(self) -> int:
        """Requests in flight; a shard that nobody knows counts as all that the engine takes."""
        most = self.capacity or FIRST_REQUESTS
        return sum(most if piece.requests is None else piece.requests for piece in self.pieces.values())

    def has_room(self) -> bool:
        """Whether another block would keep the engine from running dry."""
        is_alone = any(piece.is_alone for piece in self.pieces.values())
        return not is_alone and self.requests < 2 * (self.capacity or FIRST_REQUESTS)

    def is_free(self) -> bool:
        """Whether nothing is in flight."""
        return not self.pieces


class Engines:
    """The engines of all workers as one: for how long one was ready, and what keeps them from answering."""

    def __init__(self) -> None:
        self.serving: list[Serving] = []
        self._began, self._since = time.monotonic(), 0.0

    def ready(self) -> int | None:
        """One more engine is ready; return on how many GPUs all are, None where nobody knows."""
        self._since = self._since or time.monotonic()
        return sum(each.gpus or 0 for each in self.serving if each.capacity) or None

    @property
    def seconds(self) -> float:
        """Seconds since the first engine was ready."""
        return time.monotonic() - self._since if self._since else 0.0

    @property
    def trouble(self) -> str | None:
        """What keeps requests from being answered."""
        is_late = time.monotonic() - self._began > PATIENCE_SECONDS
        if is_late and self.serving and not any(each.node for each in self.serving):
            return "no worker runs yet: Ray is starting one, or has no place for it"
        return next((each.trouble for each in self.serving if each.trouble), None)
