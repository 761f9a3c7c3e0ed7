"""Finding the API of each server: a few times at the start, and again and again where that was not enough."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from tagllm_cli.engines.http.client import RetryableError
from tagllm_cli.engines.http.discovery import KeyRefusedError, find_api
from tagllm_cli.engines.http.server import Server
from tagllm_cli.errors import EndpointError

PROBE_S = 15.0  # timeout of a question other than about an image
START_TRIES = 4
_START_S = 30.0  # no further try after so many seconds
_LONGEST_WAIT_S = 60.0  # whatever Retry-After says
_LONGEST_PAUSE_S = 30.0


class Search:
    """Looks for servers.

    Args:
        model: served name that the user gave.
        timeout_s: of one response; a probe gets no more than PROBE_S.
        pause: seconds before another try, after so many earlier ones.
        pause_s: first pause between the tries of `find_later`; it doubles up to 30 s.
    """

    def __init__(self, model: str | None, timeout_s: float, pause: Callable[[int], float], pause_s: float) -> None:
        self._model, self._probe_s = model, min(timeout_s, PROBE_S)
        self._pause, self._pause_s = pause, pause_s

    async def find(self, server: Server) -> frozenset[str] | str:
        """Return a server's models, or the reason why several attempts found none; `server.reason` is set to it, too.

        Raises:
            EndpointError: the address is not an API that can be used.
        """
        began = time.monotonic()
        tries = 0
        while True:
            try:
                return await find_api(server, self._model, self._probe_s)
            except RetryableError as error:
                server.reason = str(error)
                pause = max(self._pause(tries), min(error.wait_s or 0.0, _LONGEST_WAIT_S))
            except KeyRefusedError as error:
                server.reason = str(error)
                server.key_refusals += 1
                return server.reason
            tries += 1
            if tries == START_TRIES or time.monotonic() + pause - began > _START_S:
                return server.reason
            await asyncio.sleep(pause)

    async def find_later(self, server: Server, model: str) -> None:
        """Look for a server that was not there at the start until it is, and serves the model."""
        pause = self._pause_s
        while True:
            server.retry_at = time.monotonic() + pause
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)
            try:
                names = await find_api(server, self._model, self._probe_s)
            except (RetryableError, KeyRefusedError) as error:
                server.reason = str(error)
            except EndpointError as error:
                server.reason = error.message.removeprefix(f"{server.name} ")
            else:
                if model in names or not server.is_vllm:
                    server.key_refusals = 0
                    return
                server.base = ""
                server.reason = f"does not serve {model}"
