"""Labeling in a child process, to be killed or interrupted; forked from one that has everything imported."""

from __future__ import annotations

import asyncio
import ctypes
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import replace
from multiprocessing.context import ForkServerContext
from multiprocessing.synchronize import Event
from pathlib import Path

from tagllm_cli import cli
from tagllm_cli.engines.factory import ModelOptions
from tagllm_cli.engines.replay import RecordingEngine, ReplayEngine, load_recording
from tagllm_cli.pipeline.label import jobs, recorder, worker
from tagllm_cli.pipeline.label.job import Job, RunOptions
from tagllm_cli.pipeline.label.jobs import candidates_job, disambiguate_job
from tagllm_cli.pipeline.label.run import run_job
from tagllm_cli.pipeline.progress import Silent
from tagllm_cli.records import DecodedImage, Request, Response
from tests.support.rule_engine import RuleEngine

OPTIONS = RunOptions()


def processes() -> ForkServerContext:
    """Return a context whose processes start in milliseconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.support.label_process", "pandas"])  # pyarrow imports pandas on first use
    return context


def both_stages(root: Path, out: Path, recording: Path) -> tuple[Job, Callable[[], Job]]:
    """Return the candidates job over `root`/images, and how to make the disambiguation job once there is a table."""
    model = ModelOptions(replay=recording, model_id="rules")
    vocabulary = str(root / "vocabulary.yaml")
    first = candidates_job(str(root / "images"), vocabulary, out / "c.parquet", model, OPTIONS, group_size=5)
    return first, lambda: disambiguate_job(out / "c.parquet", out / "l.parquet", model, OPTIONS)


def record(root: Path, recording: Path) -> None:
    """Run both stages with a synthetic engine and record its responses in a file."""
    first, second = both_stages(root, recording.parent / "recorded", recording)
    for make in (lambda: first, second):
        run_job(replace(make(), engine=lambda plan: RecordingEngine(RuleEngine(), recording)), OPTIONS, Silent())


class OneByOne(ReplayEngine):
    """Replays responses as a model gives them: one after the other, with time in between."""

    async def ask(
        self, picture: DecodedImage | None, requests: Sequence[Request]
    ) -> AsyncGenerator[tuple[Request, Response]]:
        async for pair in super().ask(picture, requests):
            await asyncio.sleep(self._delay_s)
            yield pair


def label(root: str, out: str, recording: str, delay_s: float, die_after: float | None) -> None:
    """Run both stages on recorded responses, and write the seconds of processor time that it took to `out`.seconds.

    With `die_after` the kernel kills this process when it has used that many. Commits are frequent, so that the kills
    fall between them.
    """
    recorder.COMMIT_SECONDS = 0.002
    if die_after is not None:
        kill_after(die_after)
    began = time.process_time()
    answers = load_recording(Path(recording))
    first, second = both_stages(Path(root), Path(out), Path(recording))
    for make in (lambda: first, second):
        job = replace(make(), engine=lambda plan: OneByOne(answers, delay_s))
        summary = run_job(job, OPTIONS, Silent())
        assert summary.error is None, summary.error
    Path(f"{out}.seconds").write_text(str(time.process_time() - began))


class _SignalEvent(ctypes.Structure):
    """`struct sigevent` of timer_create(2), with room for its union."""

    _fields_ = (
        ("value", ctypes.c_void_p),
        ("signal", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("rest", ctypes.c_char * 48),
    )


class _Interval(ctypes.Structure):
    """`struct itimerspec`: the period (none here), then the time until the first event."""

    _fields_ = tuple((name, ctypes.c_long) for name in ("every_s", "every_ns", "first_s", "first_ns"))


def kill_after(seconds: float) -> None:
    """Let the kernel send SIGKILL to this process once it has used `seconds` of processor time from now on.

    Processor time, so that the moment does not depend on how busy the machine is; the kernel, so that it may be in the
    middle of anything: of a write, a commit or a rename.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    timer, event = ctypes.c_void_p(), _SignalEvent(signal=signal.SIGKILL)
    nanoseconds = int((time.process_time() + seconds) * 1e9)
    when = _Interval(0, 0, *divmod(nanoseconds, 1_000_000_000))
    absolute = 1
    if libc.timer_create(time.CLOCK_PROCESS_CPUTIME_ID, ctypes.byref(event), ctypes.byref(timer)) or libc.timer_settime(
        timer, absolute, ctypes.byref(when), None
    ):
        raise OSError(ctypes.get_errno(), "no timer")


class Hanging(RuleEngine):
    """Sets `reached` and hangs in one step: `start`, or the `ask` after `answered` others."""

    def __init__(self, reached: Event, step: str, answered: int) -> None:
        super().__init__(capacity=1)
        self._reached, self._step, self._left = reached, step, answered

    async def start(self) -> None:
        if self._step == "start":
            await self._hang()

    async def ask(
        self, picture: DecodedImage | None, requests: Sequence[Request]
    ) -> AsyncGenerator[tuple[Request, Response]]:
        if self._left == 0 and self._step == "ask":
            await self._hang()
        self._left -= 1
        async for pair in super().ask(picture, requests):
            yield pair

    async def _hang(self) -> None:
        self._reached.set()
        await asyncio.Event().wait()


def command(arguments: Sequence[str], reached: Event, step: str, answered: int, drain_s: float) -> None:
    """Run a `tagllm` command line whose engine hangs; this process ends with its exit code."""
    worker.DRAIN_SECONDS = drain_s
    vars(jobs)["make_engine"] = lambda model, log_file, earlier: Hanging(reached, step, answered)
    sys.argv[1:] = arguments
    cli.main()


def plain_command(arguments: Sequence[str], environment: Mapping[str, str] = {}) -> None:
    """Run a `tagllm` command line with more in the environment; this process ends with its exit code."""
    os.environ.update(environment)
    sys.argv[1:] = arguments
    cli.main()
