"""One server of a run: what it is, how it does, how many requests it gets at a time, and which ones."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field

from tagllm_cli.engines.http.address import Address
from tagllm_cli.engines.http.client import Client
from tagllm_cli.engines.http.dialect import PLAIN, Dialect

_MISSES = 3  # so many, and a tenth of the requests without pixels: a server gets pixels with every request


class Slots:
    """Bounds concurrent requests; whoever waits is served in order, or sent away by `flush`."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._waiting: deque[asyncio.Future[bool]] = deque()

    @property
    def has_free_slot(self) -> bool:
        """Whether a request would not have to wait."""
        return self.used < self.limit and not self._waiting

    def take(self) -> None:
        """Take a slot at once, also beyond the limit."""
        self.used += 1

    async def acquire(self) -> bool:
        """Wait for a slot and take it; False: sent away, no slot is taken."""
        if self.has_free_slot:
            self.used += 1
            return True
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.result():
                self.release()
            raise

    def release(self) -> None:
        """Give a slot back."""
        self.used -= 1
        self._admit()

    def set_limit(self, limit: int) -> None:
        """Set another limit, also for those that wait already."""
        self.limit = limit
        self._admit()

    def flush(self) -> None:
        """Send away all that wait."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(False)

    def _admit(self) -> None:
        while self._waiting and self.used < self.limit:
            turn = self._waiting.popleft()
            if not turn.done():
                self.used += 1
                turn.set_result(True)


@dataclass(slots=True, eq=False)
class Server:
    """State of one server; times are those of `time.monotonic`.

    Args:
        address: as the user gave it.
        client: sends requests to it.
        base: address of its API; empty until it was found.
        is_vllm: whether its list of models says that it is vLLM.
        dialect: how it wants to be asked, learned from what it refuses.
        concurrency: requests in flight that it gets when all is well; set with `base`.
        is_healthy: whether it gets requests.
        has_answered: whether a question was answered.
        in_flight: requests assigned to it and not answered, those that wait for a slot included.
        expected: requests that will come to it when the first one about their image is answered.
        failures: attempts in a row that did not end with a usable answer.
        failing: the images that these were about; two are enough to tell.
        failed_share: of the last attempts, in [0, 1].
        reason: of the last failure.
        key_refusals: answers in a row that refuse the API key.
        not_before: before then it gets no request (Retry-After).
        retry_at: of a server that is left out: when it is asked one question again.
        pause_s: how long it is left out next.
        trial: the lease of that one question while it is under way.
        gives_logprobs: whether a response of it had log-probabilities.
        lacks_logprobs: whether others gave log-probabilities where it did not.
        without_logprobs: requests to which it gave none and another server did.
        without_pixels: requests about an image that it has, sent without its pixels.
        misses: those of them for which it did not have it.
    """

    address: Address
    client: Client
    base: str = ""
    is_vllm: bool = False
    dialect: Dialect = PLAIN
    concurrency: int = 1
    is_healthy: bool = False
    has_answered: bool = False
    in_flight: int = 0
    expected: int = 0
    failures: int = 0
    failing: set[object] = field(default_factory=set)
    failed_share: float = 0.0
    reason: str = ""
    key_refusals: int = 0
    not_before: float = 0.0
    retry_at: float = 0.0
    pause_s: float = 0.0
    trial: object = None
    gives_logprobs: bool = False
    lacks_logprobs: bool = False
    without_logprobs: int = 0
    without_pixels: int = 0
    misses: int = 0
    slots: Slots = field(default_factory=lambda: Slots(1))

    @property
    def name(self) -> str:
        """For messages, without secrets."""
        return self.address.url

    @property
    def takes_uuids(self) -> bool:
        """Whether an image may be sent with a uuid: gateways in front of vLLM may refuse it."""
        return self.is_vllm and "uuid" not in self.dialect.without

    @property
    def keeps_images(self) -> bool:
        """Whether an image that it was sent may be named by its uuid afterwards."""
        return self.takes_uuids and (self.misses < _MISSES or 10 * self.misses < self.without_pixels)

    @property
    def load(self) -> float:
        """How busy it is; one that fails is taken to be busier, or it would get the most: failing is quick."""
        return (self.in_flight + self.expected + 1) / self.concurrency / (1.02 - self.failed_share)


@dataclass(slots=True, eq=False)
class Affinity:
    """The server of one image: its requests share a prefix, which only one server's cache then holds.

    `followers` are requests that wait for the image's first one, and will go to the same server.
    """

    server: Server | None = None
    followers: int = 0

    def move(self, server: Server) -> None:
        """Send the image's requests to a server from now on."""
        if self.server is not None:
            self.server.expected -= self.followers
        self.server = server
        server.expected += self.followers

    def stop_waiting(self, followers: int) -> None:
        """So many of the followers wait no longer."""
        self.followers -= followers
        if self.server is not None:
            self.server.expected -= followers


@dataclass(frozen=True, slots=True, eq=False)
class Lease:
    """A slot of a server for one attempt; `is_trial`: the one question to a server that is left out."""

    server: Server
    is_trial: bool = False
