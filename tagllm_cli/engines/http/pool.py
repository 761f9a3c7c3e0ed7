"""Which server is asked next: the least busy of those that answer; one that does not is left out and tried again.

No network here: what it means to try a server is given as a function.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from tagllm_cli.errors import EndpointError

_MISSES = 3  # in a row, until a server is left out: one reset connection is no reason
_LONGEST_PAUSE_S = 30.0


@dataclass(slots=True, eq=False)
class Server:
    """One server as we know it.

    Args:
        url: as the user gave it.
        name: for messages, without secrets.
        base: address of its API; empty until it was reached once.
        is_vllm: whether it says so.
        is_up: False while it is left out.
        in_flight: requests that have chosen it and are not answered.
        misses: consecutive failures to reach it.
        not_before: loop time before which it wants no request (Retry-After).
    """

    url: str
    name: str
    base: str = ""
    is_vllm: bool = False
    is_up: bool = False
    in_flight: int = 0
    misses: int = 0
    not_before: float = 0.0


@dataclass(slots=True)
class Home:
    """The server of one image: its requests share a prefix, and only one server's cache will hold it."""

    server: Server | None = None


class Pool:
    """The servers of a run.

    Args:
        servers: all of them.
        pause_s: first pause before a server that was left out is tried again, in seconds; doubles up to 30 s.
        give_up_s: when no server was up for so many seconds, `choose` raises.
        is_back: tries a server; True when it answers again.
    """

    def __init__(
        self,
        servers: Sequence[Server],
        pause_s: float,
        give_up_s: float,
        is_back: Callable[[Server], Awaitable[bool]],
    ) -> None:
        self.servers = tuple(servers)
        self._pause_s = pause_s
        self._give_up_s = give_up_s
        self._is_back = is_back
        self._someone_is_up = asyncio.Event()
        self._down_since = 0.0
        self._trials: dict[Server, asyncio.Task[None]] = {}

    async def choose(self, home: Home) -> Server:
        """Return the image's server, or another one when that is left out; waits while all are.

        Raises:
            EndpointError: no server has been up for `give_up_s` seconds.
        """
        while home.server is None or not home.server.is_up:
            up = [server for server in self.servers if server.is_up]
            if up:
                home.server = min(up, key=lambda server: server.in_flight)
                break
            patience = self._down_since + self._give_up_s - asyncio.get_running_loop().time()
            try:
                await asyncio.wait_for(self._someone_is_up.wait(), max(0.0, patience))
            except TimeoutError:
                names = ", ".join(server.name for server in self.servers)
                raise EndpointError(
                    f"no endpoint has answered for {self._give_up_s:.0f} s ({names})",
                    "See the server's log. Running the command again goes on from here.",
                ) from None
        return home.server

    def reached(self, server: Server) -> None:
        """Note that a server has answered, whatever it said."""
        server.misses = 0
        server.is_up = True
        self._someone_is_up.set()

    def missed(self, server: Server) -> None:
        """Note that a server could not be reached; after several times in a row it is left out."""
        server.misses += 1
        if server.misses >= _MISSES and server.is_up:
            self.leave_out(server)

    def leave_out(self, server: Server) -> None:
        """Send nothing more to a server until it answers a trial."""
        server.is_up = False
        if not any(other.is_up for other in self.servers):
            self._someone_is_up.clear()
            self._down_since = asyncio.get_running_loop().time()
        if server not in self._trials:
            self._trials[server] = asyncio.create_task(self._try_until_back(server))

    async def _try_until_back(self, server: Server) -> None:
        pause = self._pause_s
        while True:
            await asyncio.sleep(pause)
            if await self._is_back(server):
                break
            pause = min(2 * pause, _LONGEST_PAUSE_S)
        del self._trials[server]
        self.reached(server)

    async def close(self) -> None:
        """End the trials."""
        trials = list(self._trials.values())
        self._trials.clear()
        for trial in trials:
            trial.cancel()
        for trial in trials:
            with suppress(asyncio.CancelledError):
                await trial
