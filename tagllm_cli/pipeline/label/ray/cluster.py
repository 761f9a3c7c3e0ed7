"""The only file that imports Ray: connect to a cluster or start one here, and start workers on it."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import Any, TextIO, cast

from tagllm_cli.errors import UsageError
from tagllm_cli.pipeline.label.ray.actor import RayWorker
from tagllm_cli.pipeline.label.ray.options import LOCAL, RayOptions
from tagllm_cli.pipeline.label.ray.wire import Batch, Block, Setup

CONNECT_SECONDS = 10.0
_SHOWN = 300  # characters of what Ray says
_INSTALL = "Install it on every machine: pip install 'tagllm[ray]'."
# How a client of HTTP/2, and so of gRPC, begins; a server's first frame is of the same type. Ray itself would wait for
# minutes for a port that says nothing.
_SETTINGS = b"\x04"
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + _SETTINGS + bytes(5)
# Blocks, `leave` and `stop` must reach a worker beside the stream that it is in.
_CALLS = 1000

logger = logging.getLogger(__name__)


class WorkerDied(Exception):
    """A worker's process or machine is gone."""


class Cluster:
    """A connection to Ray. `workers` is how many workers there are to be."""

    def __init__(self, options: RayOptions) -> None:
        self._ray = ray = _ray()
        self._options = options
        self._quiet = _quiet()
        self._quiet.__enter__()
        try:
            with _own_signal_handlers():
                _init(ray, options)
            nodes = [node for node in ray.nodes() if node["Alive"]]
            per_worker = max(1, options.gpus_per_worker)
            gpus = sum(int(node["Resources"].get("GPU", 0)) // per_worker for node in nodes)
            self._gpus = per_worker if gpus and options.gpus_per_worker else 0
            machines = sum(node["Resources"].get("CPU", 0) >= 1 for node in nodes)
            self.workers = options.workers or (gpus if self._gpus else machines) or 1
            actor = ray.remote(RayWorker).options(
                num_cpus=1, num_gpus=self._gpus, max_concurrency=_CALLS, scheduling_strategy="SPREAD"
            )
            self._start = actor.remote
        except BaseException:
            self.close()
            raise
        logger.info("Ray %s at %s: %d machines, %d workers", ray.__version__, options.address, len(nodes), self.workers)

    def share(self, setup: Setup) -> Any:
        """Return a reference by which every worker gets the setup."""
        return self._ray.put(setup)

    def worker(self, setup: Any) -> RemoteWorker:
        """Start a worker; `setup` is what `share` returned. It waits for a place in the cluster."""
        return RemoteWorker(self._ray, self._start(), setup)

    def close(self) -> None:
        """End the workers, and a cluster that was started here."""
        try:
            self._ray.shutdown()
        finally:
            self._quiet.__exit__(None, None, None)


class RemoteWorker:
    """One worker as the driver sees it."""

    def __init__(self, ray: Any, actor: Any, setup: Any) -> None:
        self._ray, self._actor, self._setup = ray, actor, setup

    async def batches(self) -> AsyncIterator[Batch]:
        """Yield what happens, until the worker has ended. Raises WorkerDied."""
        try:
            async for reference in self._actor.run.options(num_returns="streaming").remote(self._setup):
                yield await reference
        except self._ray.exceptions.RayTaskError as error:
            raise UsageError(f"a worker on Ray failed: {_last_line(error)}", "Ray's own logs tell more.") from error
        except self._ray.exceptions.RayError as error:
            logger.info("a worker on Ray died: %s", error)
            raise WorkerDied(_last_line(error)) from error

    def take(self, block: Block) -> None:
        """Give it a block. Where it is dead, `batches` raises WorkerDied."""
        self._actor.take.remote(block)

    def leave(self) -> None:
        """Let it end after the images in flight."""
        self._actor.leave.remote()

    def stop(self) -> None:
        """Let it end after answers that arrive within a moment."""
        self._actor.stop.remote()

    def kill(self) -> None:
        """End it, if it has not ended."""
        with suppress(Exception):
            self._ray.kill(self._actor)


def _ray() -> Any:
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise UsageError("--ray needs Ray, which is not installed", _INSTALL) from error
    return ray


def _init(ray: Any, options: RayOptions) -> None:
    """Connect. Raises UsageError where nothing answers, or where the cluster has another Ray or Python."""
    address = options.address
    if address.startswith("ray://"):
        raise UsageError(
            f"--ray takes the address of the cluster itself, not of a Ray client ({address})",
            "Run the command on a machine of the cluster, with --ray auto.",
        )
    if address not in (LOCAL, "auto"):
        _check_reachable(address)
    # What workers write to stdout and stderr is in Ray's logs and on its dashboard.
    given = {"log_to_driver": False, "configure_logging": False, "logging_level": logging.ERROR}
    if options.address == LOCAL:
        given |= {"include_dashboard": False, "num_cpus": max(os.cpu_count() or 1, options.workers or 1)}
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else Ray warns about its next release
    try:
        ray.init(address=address, **given)
    except getattr(ray.exceptions, "AuthenticationError", ()) as error:  # older releases have none
        raise UsageError(
            f"the Ray cluster at {address} wants a token: {_in_one_line(error)}",
            "Bring ~/.ray/auth_token from a machine of the cluster.",
        ) from error
    except (ConnectionError, RuntimeError, ValueError, TimeoutError, ray.exceptions.RayError) as error:
        raise UsageError(
            f"no Ray cluster answers at {address}: {_in_one_line(error)}",
            "Start one with `ray start --head`, or let this machine do the work: --ray local.",
        ) from error


def _check_reachable(address: str) -> None:
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit():
        raise UsageError(f"--ray takes local, auto or HOST:PORT, not {address}", "Ray listens on port 6379 by default.")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS) as connection:
            if not os.environ.get("RAY_USE_TLS"):
                connection.sendall(_GREETING)
                if connection.recv(9)[3:4] != _SETTINGS:
                    raise ConnectionError("what listens there is not Ray")
    except OSError as error:
        raise UsageError(
            f"no Ray cluster answers at {address}: {error}",
            "Start one with `ray start --head`, or let this machine do the work: --ray local.",
        ) from error


@contextmanager
def _own_signal_handlers() -> Iterator[None]:
    """Keep the handlers of this process: Ray puts in one of its own."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            with suppress(ValueError):  # not in the main thread: nothing was changed
                signal.signal(number, handler)


@contextmanager
def _quiet() -> Iterator[None]:
    """Send what Ray logs and its threads print to our log: stdout is for results, stderr for our messages."""
    rays, handler = logging.getLogger("ray"), _ToLog()
    rays.addHandler(handler)
    propagates, rays.propagate = rays.propagate, False
    out, err = cast(TextIO, _Others(sys.stdout)), cast(TextIO, _Others(sys.stderr))
    try:
        with redirect_stdout(out), redirect_stderr(err):
            yield
    finally:
        rays.removeHandler(handler)
        rays.propagate = propagates


class _ToLog(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        logger.log(record.levelno, "Ray: %s", record.getMessage())


class _Others:
    """A stream of which the text of Ray's threads goes to the log."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        if not threading.current_thread().name.startswith("ray"):
            return self._stream.write(text)
        if text.strip():
            logger.info("Ray: %s", text.strip())
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _in_one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]} ..."
