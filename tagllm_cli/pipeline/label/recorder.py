"""The scheduler's way into the evidence: everything is recorded as it arrives and committed soon after."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tagllm_cli.errors import TagllmError
from tagllm_cli.records import Image, ImageInfo, Response, Shard
from tagllm_cli.store.evidence import Evidence

# A commit follows a record by this much at most: a killed process loses no more than that, and the responses that had
# reached it unread. A commit costs about as much as recording two responses.
COMMIT_SECONDS = 0.1
COMMIT_RESPONSES = 32
# Images opened before the first response: nothing was paid for them, and a run whose engine cannot start should leave
# no trace, unless the opening of images alone takes long.
COMMIT_IMAGES = 1000


class Recorder:
    """Records what one run finds out; `failed` is called with the error of a commit that the timer made.

    `has_recorded`: a response was recorded, or something was committed. `has_committed`: the evidence has changed for
    good.
    """

    def __init__(self, evidence: Evidence, failed: Callable[[TagllmError], None]) -> None:
        self._evidence, self._failed = evidence, failed
        self._uncommitted_responses = self._uncommitted_images = 0
        self._timer: asyncio.TimerHandle | None = None
        self.has_recorded = self.has_committed = False

    def engine(self, version: str) -> None:
        """Record the version of the engine that answers."""
        self._evidence.set_run_engine(version)

    def found(self, position: int, image: Image, *, by_hash: bool) -> None:
        """Record an image that was found while its shard is read."""
        self._evidence.add_streamed(position, image, by_hash=by_hash)
        self._uncommitted_images += 1
        self._commit_soon()

    def finish_shard(self, shard: Shard) -> None:
        """Record that all images of a shard are known now."""
        self._evidence.finish_shard(shard)
        self._commit_soon()

    def info(self, image_id: str, info: ImageInfo) -> None:
        """Record what opening an image found out."""
        self._evidence.set_info(image_id, info)
        self._uncommitted_images += 1
        self._commit_soon()

    def completed(self, image_id: str, requests_hash: bytes) -> None:
        """Record that all requests of this hash are answered about an image."""
        self._evidence.set_completed(image_id, requests_hash)
        self._commit_soon()

    def response(self, key: bytes, response: Response) -> None:
        """Record the response to the request of this key."""
        self._evidence.record(key, response)
        self._uncommitted_responses += 1
        self.has_recorded = True
        self._commit_soon()

    def _commit_soon(self) -> None:
        if self._uncommitted_responses >= COMMIT_RESPONSES or self._uncommitted_images >= COMMIT_IMAGES:
            self.commit_now()
        elif self._timer is None and self.has_recorded:
            self._timer = asyncio.get_running_loop().call_later(COMMIT_SECONDS, self.commit_now)

    @property
    def uncommitted_responses(self) -> int:
        """How many responses a killed process would lose."""
        return self._uncommitted_responses

    def commit_now(self) -> None:
        """Commit; `failed` is called with an error."""
        try:
            self.commit()
        except TagllmError as error:
            self._failed(error)

    def commit(self) -> None:
        """Make everything recorded so far durable. Raises TableError."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._uncommitted_responses = self._uncommitted_images = 0
        self._evidence.commit()
        self.has_recorded = self.has_committed = True

    def rollback(self) -> None:
        """Forget what is not committed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._evidence.rollback()
