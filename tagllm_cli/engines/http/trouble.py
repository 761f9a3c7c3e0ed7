"""What keeps requests from being answered, in one line for people."""

from __future__ import annotations

from collections.abc import Sequence

from tagllm_cli.engines.http.server import Server

_SILENT_S = 10.0  # without an answer: worth telling
_SERVERS = 3


def describe(
    servers: Sequence[Server], now: float, *, waiting: int, silent_since: float, timeout_s: float
) -> str | None:
    """Return the line; None: nothing is wrong.

    Args:
        servers: all of them.
        now: `time.monotonic`.
        waiting: requests that wait for a server or for another attempt.
        silent_since: when something last came back.
        timeout_s: of one response, in seconds.
    """
    told = [text for server in servers if (text := _of_server(server, now, waiting))]
    in_flight = sum(server.in_flight for server in servers)
    if in_flight and not told and now - silent_since > _SILENT_S:
        told.append(f"no answer for {now - silent_since:.0f} s ({in_flight:,} in flight, timeout {timeout_s:g} s)")
    if len(told) > _SERVERS:
        told[_SERVERS:] = [f"and {len(told) - _SERVERS} more servers"]
    if waiting:
        told.append(f"{waiting:,} request{'s wait' if waiting > 1 else ' waits'} for a retry")
    return "; ".join(told) or None


def _of_server(server: Server, now: float, waiting: int) -> str | None:
    in_a_row = f" ({server.failures} in a row)" if server.failures > 1 else ""
    if not server.is_healthy:
        if not server.reason:
            return None
        wait = server.retry_at - now
        then = f"next try in {wait:.0f} s" if wait > 0 else "being tried again"
        return f"{server.name} left out: {server.reason}{in_a_row}, {then}"
    if server.not_before > now:
        return f"{server.name} asks to wait {server.not_before - now:.0f} s: {server.reason}"
    if server.failures and waiting:
        return f"{server.name}: {server.reason}{in_a_row}"
    return None
