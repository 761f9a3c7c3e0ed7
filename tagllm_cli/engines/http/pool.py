"""Server selection: the least busy healthy server; one whose attempts fail is left out and tried again later.

No network here. A server that is left out gets one real question after a pause (`Lease.is_trial`); a usable answer
brings it back, anything else leaves it out for twice as long. A run ends when no server has given a usable answer for a
while although they were asked.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from tagllm_cli.engines.http.outage import Outage, UsualTime
from tagllm_cli.engines.http.server import Affinity, Lease, Server
from tagllm_cli.engines.http.trouble import describe
from tagllm_cli.errors import EndpointError

_FAILURES = 3  # in a row leave a server out; a single reset connection does not
_KEY_REFUSALS = 3  # in a row, of a server that has answered before
_WITHOUT_LOGPROBS = 2
_LONGEST_PAUSE_S = 30.0
_LONGEST_PAUSE_ALONE_S = 8.0  # while no server is healthy, all wait for it
_FIRST_SLOTS = 8  # of a server that is back; each answer adds one
_HEDGED_SHARE = 0.1  # of the requests in flight
_LEAST_HEDGED = 4
_MANY = 8  # requests in flight: that none of them is answered is about the servers
_FAR_LONGER = 10  # times much longer than usual


class NoServerError(Exception):
    """No server gives a usable answer to this image's requests; nothing is known about other images'."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Durations in seconds.

    Args:
        pause_s: how long a server is left out first; doubles up to 30 s.
        give_up_s: the run ends when no server gave a usable answer for so long.
        max_wait_s: longest pause of any kind, Retry-After included.
        hedge_s: a request is asked elsewhere, too, after no less.
        timeout_s: of one response.
        silence_s: servers that answered before, and then nothing of all that they were asked for so long, hang.
    """

    pause_s: float
    give_up_s: float
    max_wait_s: float
    hedge_s: float
    timeout_s: float
    silence_s: float


class Pool:
    """The servers of a run, which server gets the next request, and whether there is still hope."""

    def __init__(self, servers: Sequence[Server], limits: Limits) -> None:
        self.servers = tuple(servers)
        self._limits = limits
        self._changed = asyncio.Event()
        self._waiting = 0
        self._hedges = 0
        self._usual = UsualTime()
        self._outage = Outage()

    def admit(self, server: Server, concurrency: int) -> None:
        """Let a server whose API was found get requests."""
        server.concurrency = concurrency
        server.slots.set_limit(concurrency)
        server.is_healthy = True
        server.pause_s = self._limits.pause_s
        self._notify()

    @property
    def has_vllm(self) -> bool:
        """Whether some server that gets requests is vLLM."""
        return any(server.is_vllm and server.is_healthy for server in self.servers)

    async def acquire(self, affinity: Affinity, tried: Collection[Server], *, needs_logprobs: bool) -> Lease | None:
        """Return a slot of the image's server, or of another one where that is not healthy or was tried.

        Waits for a slot and, where nothing was tried, for a server. None: all servers that may be asked were tried.

        Raises:
            EndpointError: no server gave a usable answer for `give_up_s` seconds.
            NoServerError: the same, and only this image was asked about.
        """
        while True:
            lease = self._choose(affinity, tried, needs_logprobs=needs_logprobs)
            if lease is None:
                if tried:
                    return None
                await self._wait(affinity)
                continue
            server = lease.server
            if not any(each.in_flight for each in self.servers):
                self._outage.silent_since = time.monotonic()
            server.in_flight += 1
            if lease.is_trial:
                server.slots.take()
                return lease
            try:
                has_slot = server.slots.has_free_slot
                if has_slot:
                    server.slots.take()
                    return lease
                has_slot = await server.slots.acquire()
            except BaseException:
                server.in_flight -= 1
                raise
            if has_slot and server.is_healthy and server.not_before <= time.monotonic():
                return lease
            server.in_flight -= 1
            if has_slot:
                server.slots.release()

    def spare(self, slow: Server, tried: Collection[Server], *, needs_logprobs: bool) -> Lease | None:
        """Return a free slot for a request that `slow` has not answered for long; None: there is none.

        No more than a tenth of the requests in flight are asked twice, except those of a server that is left out.
        """
        if slow.is_healthy and self._hedges >= max(_LEAST_HEDGED, _HEDGED_SHARE * self._in_flight):
            return None
        now = time.monotonic()
        free = [
            server
            for server in self.servers
            if server.is_healthy
            and server.slots.has_free_slot
            and server.not_before <= now
            and server is not slow
            and server not in tried
            and not (needs_logprobs and server.lacks_logprobs)
        ]
        if not free:
            return None
        server = min(free, key=lambda each: each.load)
        server.in_flight += 1
        server.slots.take()
        self._hedges += 1
        return Lease(server)

    def end_hedge(self) -> None:
        """A request is no longer asked twice."""
        self._hedges -= 1

    def release(self, lease: Lease) -> None:
        """Give back a slot: the attempt has ended."""
        lease.server.in_flight -= 1
        lease.server.slots.release()

    @property
    def is_down(self) -> bool:
        """Whether no server answers, whatever the image: a failed attempt says nothing about its request then."""
        return len(self._outage.images) > 1 and not any(server.is_healthy for server in self.servers)

    @property
    def patience_s(self) -> float | None:
        """After how many seconds a response takes much longer than usual; None: too few are known."""
        much_longer = self._usual.much_longer
        return None if much_longer is None else max(self._limits.hedge_s, much_longer)

    def hangs_since(self, sent: float) -> bool:
        """Whether no server answered any of many requests for long, since one that was sent at `sent`."""
        usual = self._usual.much_longer
        if usual is None or self._outage.answered_at >= sent or self._in_flight < _MANY:
            return False
        return time.monotonic() - sent > max(self._limits.silence_s, _FAR_LONGER * usual)

    @property
    def _in_flight(self) -> int:
        return sum(server.in_flight for server in self.servers)

    def answered(self, lease: Lease, seconds: float | None = None) -> None:
        """Count a usable answer, after so many seconds; without them a refusal that is the request's own fault."""
        server = lease.server
        server.failures = server.key_refusals = 0
        server.failing.clear()
        server.failed_share *= 0.9
        if not server.is_healthy:
            server.is_healthy, server.trial = True, None
            server.lacks_logprobs, server.without_logprobs = False, 0
            server.pause_s = self._limits.pause_s
            server.slots.set_limit(min(_FIRST_SLOTS, server.concurrency))
            self._notify()
        elif server.slots.limit < server.concurrency:
            server.slots.set_limit(server.slots.limit + 1)
        self._outage.end()
        if seconds is not None:
            server.has_answered = True
            self._usual.add(seconds)

    def failed(self, lease: Lease, affinity: Affinity, reason: str, began: float, *, is_away: bool = False) -> None:
        """Count an attempt without a usable answer; several in a row leave the server out.

        Args:
            lease: of the attempt.
            affinity: of the image that it was about: one image alone may be what the server dislikes.
            reason: for messages.
            began: when it was sent.
            is_away: the server was not reached at all, which one image is enough to tell.
        """
        server = lease.server
        server.failures += 1
        server.failing.add(affinity)
        server.failed_share += 0.1 * (1 - server.failed_share)
        server.reason = reason
        self._outage.add(server.name, reason, affinity, began)
        enough = server.failures >= _FAILURES and (is_away or len(server.failing) > 1)
        if lease.is_trial or (server.is_healthy and enough):
            self._leave_out(server)

    def key_refused(self, lease: Lease, affinity: Affinity, reason: str, began: float, error: EndpointError) -> None:
        """Leave out a server that refuses the key. Raises `error` where all of them do."""
        server = lease.server
        server.key_refusals += 1
        server.failures += 1
        server.reason = reason
        self._outage.add(server.name, reason, affinity, began)
        if all(each.key_refusals >= (_KEY_REFUSALS if each.has_answered else 1) for each in self.servers):
            raise error
        if server.is_healthy or lease.is_trial:
            self._leave_out(server)

    def pause(self, server: Server, seconds: float | None) -> None:
        """Send nothing to a server for so many seconds, as it asks (Retry-After)."""
        if seconds is not None and 0 < seconds < float("inf"):
            until = time.monotonic() + min(seconds, self._limits.max_wait_s)
            server.not_before = max(server.not_before, until)

    def gave_no_logprobs(self, lease: Lease) -> None:
        """Count a request to which a server gave no log-probabilities, and another one did."""
        server = lease.server
        server.without_logprobs += 1
        server.lacks_logprobs = server.without_logprobs >= _WITHOUT_LOGPROBS and not server.gives_logprobs

    def settle(self, lease: Lease) -> None:
        """End a trial that was given up without a verdict: the next request may be the trial."""
        if lease.server.trial is lease:
            lease.server.trial = None
            self._notify()

    async def sleep(self, seconds: float) -> None:
        """Wait before another attempt; told by `trouble`."""
        self._waiting += 1
        try:
            await asyncio.sleep(seconds)
        finally:
            self._waiting -= 1

    @property
    def trouble(self) -> str | None:
        """What keeps requests from being answered, in one line; None: nothing."""
        silent_since, timeout_s = self._outage.silent_since, self._limits.timeout_s
        now = time.monotonic()
        return describe(self.servers, now, waiting=self._waiting, silent_since=silent_since, timeout_s=timeout_s)

    def _choose(self, affinity: Affinity, tried: Collection[Server], *, needs_logprobs: bool) -> Lease | None:
        now = time.monotonic()
        healthy = []
        for server in self.servers:
            if server in tried or server.not_before > now:
                continue
            if server.is_healthy:
                healthy.append(server)
            elif server.base and server.trial is None and server.retry_at <= now:
                server.trial = lease = Lease(server, is_trial=True)
                return lease
        if needs_logprobs:
            healthy = [server for server in healthy if not server.lacks_logprobs] or healthy
        if affinity.server not in healthy:
            if not healthy:
                return None
            affinity.move(min(healthy, key=lambda server: server.load))
        assert affinity.server is not None
        return Lease(affinity.server)

    async def _wait(self, affinity: Affinity) -> None:
        """Wait until a server may be asked again, or raise where none gave a usable answer for too long."""
        now = time.monotonic()
        until = now + _LONGEST_PAUSE_S
        if self._outage.since is not None:
            until = self._outage.since + self._limits.give_up_s
            if until <= now:
                self._give_up(affinity, now - self._outage.since)
        for server in self.servers:
            if server.is_healthy:
                until = min(until, server.not_before)
            elif server.base and server.trial is None:
                until = min(until, max(server.retry_at, server.not_before))
        changed = self._changed
        self._waiting += 1
        try:
            await asyncio.wait_for(changed.wait(), max(0.0, until - now))
        except TimeoutError:
            pass
        finally:
            self._waiting -= 1

    def _give_up(self, affinity: Affinity, seconds: float) -> None:
        reason, times = self._outage.most_frequent
        if self._outage.images <= {affinity}:
            raise NoServerError(reason)
        raise EndpointError(
            f"no endpoint has given a usable answer for {seconds:.0f} s, most often: {reason} ({times} times)",
            "See the server's log.",
        )

    def _leave_out(self, server: Server) -> None:
        server.is_healthy, server.trial = False, None
        server.retry_at = time.monotonic() + server.pause_s
        longest = _LONGEST_PAUSE_S if any(other.is_healthy for other in self.servers) else _LONGEST_PAUSE_ALONE_S
        server.pause_s = min(2 * server.pause_s, longest, self._limits.max_wait_s)
        server.slots.flush()
        self._notify()

    def _notify(self) -> None:
        """Wake all that wait for a server."""
        self._changed.set()
        self._changed = asyncio.Event()
