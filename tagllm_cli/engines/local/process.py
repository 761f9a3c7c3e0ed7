"""Start vLLM's processes: redirect their output, mask SIGINT, end them with their parent (also after SIGKILL).

vLLM starts an engine core process, which starts workers. Their output goes to the log and never to stdout. Ctrl-C
reaches this process only, which then finishes or cancels what is in flight.
"""

from __future__ import annotations

import asyncio
import io
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TextIO, TypeVar

_T = TypeVar("_T")

_GRACE_S = 10.0
_STDOUT, _STDERR = 1, 2


class LogStream(io.TextIOBase):
    """The stream of vLLM's loggers (VLLM_LOGGING_STREAM names the one below); writes to the current log.

    In child processes, which import this module again, it stays stderr: their descriptors 1 and 2 are the log.
    """

    def __init__(self) -> None:
        self.target: TextIO | None = sys.stderr

    def write(self, text: str) -> int:
        """Write to the current log; without one, discard."""
        return len(text) if self.target is None else self.target.write(text)

    def flush(self) -> None:
        """Flush the current log."""
        if self.target is not None:
            self.target.flush()


stream = LogStream()

_ENVIRONMENT = {
    "VLLM_LOGGING_STREAM": f"ext://{__name__}.stream",
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # forking a process with threads, as this one, can deadlock the child
    "TRANSFORMERS_VERBOSITY": "error",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # on a CPU it lets the model run in the engine's process (`cpu_defaults`)
}
_NO_TELEMETRY = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_DO_NOT_TRACK": "1"}
# OpenMP's threads spin while they wait, by default for a millisecond, and keep cores from other processes: beside a
# busy one, a shorter spin made the same run on CPU five times as fast.
_SHORT_SPIN = {"GOMP_SPINCOUNT": "3000"}
_OPENMP_WAITS = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


class LaunchAbandonedError(Exception):
    """The start was cancelled."""


class Launch:
    """One start of vLLM: where its output goes, and the processes that it started.

    Args:
        log_file: gets everything that vLLM and its processes print (appended); None: stderr.
    """

    def __init__(self, log_file: Path | None) -> None:
        self.log_file = log_file
        self.processes: list[BaseProcess] = []
        self._log: TextIO | None = None
        self._stdout: int | None = None
        self._abandoned = threading.Event()
        self._lock = threading.Lock()

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Wrap the import and start of vLLM, in the thread that does it."""
        with ExitStack() as stack:
            stack.enter_context(_environment())
            self._open_log()
            stack.enter_context(_root_logger_to_log())
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")  # about vLLM's internals
            self._divert_stdout()
            stack.callback(self.release_stdout)
            # Started here: started together with the first process, it would unblock SIGINT again.
            with _descriptor(_STDERR, self._log.fileno() if self._log else _STDERR):
                resource_tracker.ensure_running()
            stack.enter_context(_interrupts_blocked())
            stack.enter_context(self._watched_starts())
            yield

    def _open_log(self) -> None:
        if self.log_file is not None:
            self.log_file.parent.mkdir(parents=True, exist_ok=True)
            self._log = self.log_file.open("a", encoding="utf-8", buffering=1)
        stream.target = self._log or sys.stderr

    def _divert_stdout(self) -> None:
        """Point descriptor 1 at the log until `release_stdout`: libraries print, and stdout is for results."""
        sys.stdout.flush()
        self._stdout = os.dup(_STDOUT)
        os.dup2(self._log.fileno() if self._log else _STDERR, _STDOUT)

    def release_stdout(self) -> None:
        """Restore stdout; safe to call from any thread, and twice."""
        with self._lock:
            if self._stdout is not None:
                os.dup2(self._stdout, _STDOUT)
                os.close(self._stdout)
                self._stdout = None

    @contextmanager
    def _watched_starts(self) -> Iterator[None]:
        """Make every process that this thread starts inherit the log as stderr and end with its parent; record it.

        The stderr of this process is the log for the milliseconds of a start only.
        """
        start, starter = BaseProcess.start, threading.get_ident()

        def watched(process: Any) -> None:
            if threading.get_ident() != starter:
                start(process)
                return
            if self._abandoned.is_set():
                raise LaunchAbandonedError
            process._args = (process._target, *process._args)
            process._target = run_until_parent_ends
            with _descriptor(_STDERR, self._log.fileno() if self._log else _STDERR):
                start(process)
            self.processes.append(process)

        BaseProcess.start = watched  # type: ignore[method-assign, assignment]
        try:
            yield
        finally:
            BaseProcess.start = start  # type: ignore[method-assign]

    def abandon(self) -> None:
        """Cancel the start from another thread: end the started processes, start no more."""
        self._abandoned.set()
        self.release_stdout()
        self.end_processes()

    def end_processes(self) -> None:
        """Kill the started processes that are still alive, their children first."""
        for process in self.processes:
            if process.is_alive() and process.pid is not None:
                from vllm.utils.system_utils import kill_process_tree

                kill_process_tree(process.pid)
            process.join()

    def close_log(self) -> None:
        """Close the log file; later records of vLLM's loggers in this process are discarded."""
        if self._log is not None:
            stream.target = None
            self._log.close()
            self._log = None


def run_until_parent_ends(target: Callable[..., None], *args: Any, **kwargs: Any) -> None:
    """Run a process's target; end the process when its parent ends, which vLLM's processes do not by themselves."""
    threading.Thread(target=_end_with_parent, name="end-with-parent", daemon=True).start()
    target(*args, **kwargs)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)  # vLLM's handler ends the workers
    time.sleep(_GRACE_S)
    os.kill(os.getpid(), signal.SIGKILL)  # the workers see their pipe close


async def in_daemon_thread(work: Callable[[], _T]) -> _T:
    """Return `work()`, run in a thread that does not keep the interpreter alive after a cancellation."""
    loop = asyncio.get_running_loop()
    is_done = asyncio.Event()
    # Emptied when read: vLLM keeps frames of this thread alive, and with them all that their variables refer to.
    results: list[_T] = []
    errors: list[BaseException] = []

    def body() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(is_done.set)

    threading.Thread(target=body, name="vllm-start", daemon=True).start()
    await is_done.wait()
    if errors:
        raise errors.pop()
    return results.pop()


@contextmanager
def _environment() -> Iterator[None]:
    os.environ.update(_NO_TELEMETRY)
    is_users_choice = any(name in os.environ for name in _OPENMP_WAITS)
    added = _ENVIRONMENT if is_users_choice else {**_ENVIRONMENT, **_SHORT_SPIN}
    before = {name: os.environ[name] for name in added if name in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]
        os.environ.update(before)


@contextmanager
def _root_logger_to_log() -> Iterator[None]:
    """Send records without a handler to the log; Python would print the warnings among them on stderr."""
    handler = logging.StreamHandler(stream)
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Block SIGINT in this thread: the processes that it starts, and theirs, inherit the mask."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _descriptor(number: int, target: int) -> Iterator[None]:
    """Make descriptor `number` a copy of `target` within the context."""
    saved = os.dup(number)
    os.dup2(target, number)
    try:
        yield
    finally:
        os.dup2(saved, number)
        os.close(saved)
