"""Server selection: the least busy healthy server; an unhealthy one gets no requests until a probe succeeds.

No network here: how a server is probed is given as a function.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from tagllm_cli.errors import EndpointError

_FAILURES = 3  # consecutive ones make a server unhealthy; a single reset connection does not
_LONGEST_PAUSE_S = 30.0


@dataclass(slots=True, eq=False)
class Server:
    """State of one server.

    Args:
        url: as the user gave it.
        name: for messages, without secrets.
        base: address of its API; empty until it was found.
        is_vllm: whether its list of models says that it is vLLM.
        is_healthy: whether it gets requests.
        gives_logprobs: whether a response of it had log-probabilities.
        in_flight: requests assigned to it and not answered.
        consecutive_failures: attempts since it was last reached.
        not_before: loop time before which it gets no request (Retry-After).
        slots: bounds its concurrent requests; set with `base`.
    """

    url: str
    name: str
    base: str = ""
    is_vllm: bool = False
    is_healthy: bool = False
    gives_logprobs: bool = False
    in_flight: int = 0
    consecutive_failures: int = 0
    not_before: float = 0.0
    slots: asyncio.Semaphore | None = None


@dataclass(slots=True)
class Affinity:
    """The server of one image: its requests share a prefix, which only one server's cache then holds."""

    server: Server | None = None


class Pool:
    """The servers of a run.

    Args:
        servers: all of them.
        pause_s: pause before the first probe of an unhealthy server, in seconds; doubles up to 30 s.
        give_up_s: `choose` raises when no server was healthy for so many seconds.
        probe: returns whether a server responds again.
    """

    def __init__(
        self,
        servers: Sequence[Server],
        pause_s: float,
        give_up_s: float,
        probe: Callable[[Server], Awaitable[bool]],
    ) -> None:
        self.servers = tuple(servers)
        self._pause_s = pause_s
        self._give_up_s = give_up_s
        self._probe = probe
        self._any_healthy = asyncio.Event()
        self._unhealthy_since = 0.0
        self._probes: dict[Server, asyncio.Task[None]] = {}

    async def choose(self, affinity: Affinity) -> Server:
        """Return the image's server, or another one where that is unhealthy; waits while all are.

        Raises:
            EndpointError: no server has been healthy for `give_up_s` seconds.
        """
        while affinity.server is None or not affinity.server.is_healthy:
            healthy = [server for server in self.servers if server.is_healthy]
            if healthy:
                affinity.server = min(healthy, key=lambda server: server.in_flight)
                break
            timeout = self._unhealthy_since + self._give_up_s - asyncio.get_running_loop().time()
            try:
                await asyncio.wait_for(self._any_healthy.wait(), max(0.0, timeout))
            except TimeoutError:
                names = ", ".join(server.name for server in self.servers)
                raise EndpointError(
                    f"no endpoint has responded for {self._give_up_s:.0f} s ({names})",
                    "See the server's log.",
                ) from None
        return affinity.server

    def record_success(self, server: Server) -> None:
        """Count a response of any status: the server is healthy."""
        server.consecutive_failures = 0
        server.is_healthy = True
        self._any_healthy.set()

    def record_failure(self, server: Server) -> None:
        """Count an attempt that did not reach the server; several in a row make it unhealthy."""
        server.consecutive_failures += 1
        if server.consecutive_failures >= _FAILURES and server.is_healthy:
            self.mark_unhealthy(server)

    def mark_unhealthy(self, server: Server) -> None:
        """Send nothing more to a server until a probe succeeds."""
        server.is_healthy = False
        if not any(other.is_healthy for other in self.servers):
            self._any_healthy.clear()
            self._unhealthy_since = asyncio.get_running_loop().time()
        if server not in self._probes:
            self._probes[server] = asyncio.create_task(self._probe_until_healthy(server))

    async def _probe_until_healthy(self, server: Server) -> None:
        pause = self._pause_s
        while True:
            await asyncio.sleep(pause)
            if await self._probe(server):
                break
            pause = min(2 * pause, _LONGEST_PAUSE_S)
        del self._probes[server]
        self.record_success(server)

    async def close(self) -> None:
        """Cancel the probes."""
        probes = list(self._probes.values())
        self._probes.clear()
        for task in probes:
            task.cancel()
        for task in probes:
            with suppress(asyncio.CancelledError):
                await task
