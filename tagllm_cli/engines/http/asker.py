"""Asking one request until there is an answer: of other servers where one has none, again after a pause where all fail.

acquire a server -> attempt -> answered: done; those that did not answer count as failed
                            -> refused: another server; done when it says the same
                            -> failed: another server, then a pause and all of them again
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tagllm_cli.engines.http.attempts import NO_LOGPROBS, Attempt, Verdict, attempt, failed, key_error
from tagllm_cli.engines.http.images import SharedImage
from tagllm_cli.engines.http.pool import NoServerError, Pool
from tagllm_cli.engines.http.server import Affinity, Lease, Server
from tagllm_cli.errors import EndpointError
from tagllm_cli.records import Failure, Request, Response

_MOST_SERVERS = 4  # that are asked the same before a pause
_AGREE = 2
_LATE_S = 60.0  # over the timeout of one response: no further attempt
_WITHOUT_LOGPROBS = 8  # requests without them from any server end the run
_GET_LOGPROBS = "Yes or no is decided from them; a vLLM server gives up to 20 (`vllm serve MODEL --max-logprobs 20`)."

Tried = Mapping[Server, Attempt]


@dataclass(frozen=True, slots=True)
class Patience:
    """How often and how long a request is tried.

    Args:
        retries: attempts after the first one.
        timeout_s: of one response.
        backoff_s: first pause between attempts; it doubles each time.
        longest_s: longest pause.
        watch_s: how often it is looked whether all servers hang.
    """

    retries: int
    timeout_s: float
    backoff_s: float
    longest_s: float
    watch_s: float


class Asker:
    """Asks requests of a pool's servers.

    Args:
        pool: the servers.
        patience: how often and how long.
        jitter: a number in [0, 1) for each pause.
    """

    def __init__(self, pool: Pool, patience: Patience, jitter: Callable[[], float] = random.random) -> None:
        self.model = ""
        self._pool, self._patience, self._jitter = pool, patience, jitter
        self._without_logprobs = 0

    async def respond(self, affinity: Affinity, image: SharedImage | None, request: Request) -> Response:
        """Return the answer to a request, or its failure.

        Raises:
            EndpointError: nothing more can be asked of any server.
        """
        tried: dict[Server, Attempt] = {}
        leases: list[Lease] = []
        failed = 0
        began: float | None = None
        try:
            while True:
                lease = await self._next(affinity, tried, request)
                if lease is not None:
                    leases.append(lease)
                    began = began or time.monotonic()
                    end = await self._attempt(lease, affinity, image, request, tried)
                    if end.verdict is Verdict.ANSWERED:
                        self._answered(end, affinity, tried)
                        return end.response
                    tried[end.lease.server] = end
                    self._not_answered(end, affinity)
                    continue
                if refused := [end for end in tried.values() if end.verdict is Verdict.REFUSED]:
                    return self._refused(refused)
                assert began is not None
                failed += 1
                is_late = time.monotonic() - began > self._patience.timeout_s + _LATE_S
                if failed > self._patience.retries or (is_late and not self._pool.is_down):
                    return next(reversed(tried.values())).response
                tried.clear()
                await self._pool.sleep(self.pause(failed - 1))
        except NoServerError as error:
            return Response(failure=Failure("endpoint_failed", str(error)))
        finally:
            for lease in leases:
                self._pool.settle(lease)

    def pause(self, failed: int) -> float:
        """Return the seconds before the next attempt after `failed` earlier ones: doubling, jittered by half."""
        return min(self._patience.longest_s, self._patience.backoff_s * 2.0**failed) * (0.5 + self._jitter() / 2)

    async def _next(self, affinity: Affinity, tried: Tried, request: Request) -> Lease | None:
        """Return the next server to ask; None where enough of them, or all, have refused or failed."""
        if len(tried) >= _MOST_SERVERS or sum(end.is_agreeable for end in tried.values()) >= _AGREE:
            return None
        return await self._pool.acquire(affinity, tried, needs_logprobs=bool(request.top_logprobs))

    async def _attempt(
        self, lease: Lease, affinity: Affinity, image: SharedImage | None, request: Request, tried: Tried
    ) -> Attempt:
        """Return the end of an attempt; where it takes much longer than usual, the first of two servers' answers."""
        if len(self._pool.servers) == 1:
            return await self._once(lease, image, request)
        sent = time.monotonic()
        first = asyncio.create_task(self._once(lease, image, request))
        tasks = [first]
        spare = None
        try:
            while not first.done() and spare is None:
                patience = self._pool.patience_s
                await asyncio.wait(tasks, timeout=patience or 1.0)
                if not first.done() and patience is not None:
                    needs_logprobs = bool(request.top_logprobs)
                    spare = self._pool.spare(lease.server, tried, needs_logprobs=needs_logprobs)
            if spare is None:
                return first.result()
            tasks.append(asyncio.create_task(self._once(spare, image, request)))
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            ends = [task.result() for task in tasks if task.done()]
            if not any(end.verdict is Verdict.ANSWERED for end in ends):
                await asyncio.wait(tasks)
                ends = [task.result() for task in tasks]
            best = next((end for end in ends if end.verdict is Verdict.ANSWERED), ends[0])
            if best.lease is spare and not first.done():
                slow = f"no answer for {time.monotonic() - sent:.0f} s, while another server answered"
                self._pool.failed(lease, affinity, slow, sent)
            return best
        finally:
            if spare is not None:
                self._pool.end_hedge()
            if under_way := [task for task in tasks if not task.done()]:
                for task in under_way:
                    task.cancel()
                await asyncio.gather(*under_way, return_exceptions=True)

    async def _once(self, lease: Lease, image: SharedImage | None, request: Request) -> Attempt:
        """Return the end of one attempt: at its timeout, or before where nothing at all is answered any more."""
        sent = time.monotonic()
        about = image if request.with_image else None
        asked = asyncio.create_task(attempt(lease, self.model, about, request))
        try:
            while not asked.done():
                await asyncio.wait([asked], timeout=self._patience.watch_s)
                if not asked.done() and self._pool.hangs_since(sent):
                    return failed(
                        lease, f"no answer to anything for {time.monotonic() - sent:.0f} s", sent, is_away=True
                    )
            return asked.result()
        finally:
            self._pool.release(lease)
            if not asked.done():
                asked.cancel()
                await asyncio.gather(asked, return_exceptions=True)
            elif not asked.cancelled():
                asked.exception()  # looked at, also where another request has ended the run at the same moment

    def _answered(self, end: Attempt, affinity: Affinity, tried: Tried) -> None:
        """Count an answer, and what the servers said that were asked before."""
        self._pool.answered(end.lease, time.monotonic() - end.began)
        if not tried:
            return
        affinity.move(end.lease.server)
        for other in tried.values():
            if other.verdict is not Verdict.REFUSED:
                continue  # counted already
            assert other.response.failure is not None
            if other.response.failure.kind == NO_LOGPROBS and not other.lease.is_trial:
                self._pool.gave_no_logprobs(other.lease)
            else:
                self._pool.failed(other.lease, affinity, other.reason, other.began)

    def _not_answered(self, end: Attempt, affinity: Affinity) -> None:
        """Count an attempt that failed; a refusal counts when it is known what others say."""
        server = end.lease.server
        if end.verdict is Verdict.FAILED:
            self._pool.pause(server, end.wait_s)
            reason = end.reason.removeprefix(f"{server.name}: ")
            self._pool.failed(end.lease, affinity, reason, end.began, is_away=end.is_away)
        elif end.verdict is Verdict.KEY_REFUSED:
            refusal = end.reason.removeprefix(f"{server.name}: ")
            self._pool.key_refused(end.lease, affinity, refusal, end.began, key_error(server, refusal))

    def _refused(self, refused: list[Attempt]) -> Response:
        """Return the failure that the servers agree on. Raises EndpointError where none gives log-probabilities."""
        for end in refused:
            self._pool.answered(end.lease)
        end = refused[0]
        assert end.response.failure is not None
        if end.response.failure.kind == NO_LOGPROBS and not any(each.gives_logprobs for each in self._pool.servers):
            self._without_logprobs += 1
            is_told = end.reason.startswith("HTTP ")
            if is_told or self._without_logprobs >= _WITHOUT_LOGPROBS:
                told = end.reason if is_told else f"{self._without_logprobs} answers came without any"
                raise EndpointError(f"{end.lease.server.name} gives no log-probabilities: {told}", _GET_LOGPROBS)
        return end.response
