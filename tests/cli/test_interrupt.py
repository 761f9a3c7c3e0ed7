"""Ctrl-C and SIGTERM: exit code 130, a table whose rest is pending, and the same command goes on from there."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tagllm_cli.pipeline.label import worker
from tests.support.label_process import command, plain_command, processes
from tests.support.object_store import object_store
from tests.support.packing import packed
from tests.support.workspace import Workspace

pytestmark = pytest.mark.slow

IMAGES = 10
ANSWERED = 4


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path, IMAGES)


def start(workspace: Workspace, step: str, drain_s: float = 0.1) -> tuple[BaseProcess, Event]:
    """Run `tagllm candidates` in a process of its own whose engine hangs at a step; return it and when it does."""
    words = [
        "candidates",
        str(workspace.images),
        "--vocab",
        str(workspace.vocabulary),
        "--out",
        str(workspace.out),
        "--quiet",
    ]
    words += ["--replay", "nothing", "--model-id", "rules", "--group-size", "5"]
    context = processes()
    reached = context.Event()
    process = context.Process(target=command, args=(words, reached, step, ANSWERED, drain_s))
    process.start()
    return process, reached


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("step", "answered"), [("start", 0), ("ask", ANSWERED)])
def test_a_signal_ends_the_run_with_a_table_whose_rest_is_pending(
    workspace: Workspace, number: signal.Signals, step: str, answered: int
) -> None:
    process, reached = start(workspace, step)
    assert reached.wait(60)
    os.kill(process.pid or 0, number)
    process.join(60)
    assert process.exitcode == 130
    statuses = list(workspace.statuses().values())
    assert statuses == ["ok"] * answered + ["pending"] * (IMAGES - answered)

    process, _ = start(workspace, "never")
    process.join(60)
    assert process.exitcode == 0
    interrupted = workspace.out.read_bytes()
    for path in workspace.out.parent.iterdir():
        path.unlink()
    workspace.candidates()
    assert workspace.out.read_bytes() == interrupted


def test_a_container_that_is_stopped_has_time_for_it(tmp_path: Path) -> None:
    many = Workspace(tmp_path, 300)
    process, reached = start(many, "ask", drain_s=worker.DRAIN_SECONDS)
    assert reached.wait(60)
    began = time.monotonic()
    process.terminate()
    process.join(60)
    assert process.exitcode == 130
    # `docker stop` kills after 10 s. What takes longer, a table of a million rows, say, is bounded (TABLE_SECONDS).
    assert time.monotonic() - began < 8.0
    assert len(many.statuses()) == 300


def test_who_does_not_want_to_wait_signals_again(workspace: Workspace) -> None:
    process, reached = start(workspace, "ask", drain_s=1000.0)
    assert reached.wait(60)
    while process.is_alive():
        os.kill(process.pid or 0, signal.SIGINT)
        process.join(0.2)
    assert process.exitcode == 130
    assert workspace.candidates().stats.asked == (IMAGES - ANSWERED) * 4


class Silence:
    """A server accepts requests for images and answers none of them before it is `over`."""

    def __init__(self) -> None:
        self.asked, self.over = threading.Event(), threading.Event()

    def wait(self) -> None:
        self.asked.set()
        self.over.wait(60)


@pytest.fixture(params=["manifest", "parquet of urls", "folder on S3", "tar on S3", "parquet on S3"])
def silence(request: pytest.FixtureRequest, workspace: Workspace) -> Iterator[Silence]:
    """The images of the workspace lie on a server that accepts requests for them, and never answers."""
    silence, place = Silence(), str(request.param)
    with contextlib.ExitStack() as stack:
        if "S3" in place:
            workspace.source = packed(workspace.images, place, workspace.images.parent / "packed")

            def fault(method: str, path: str) -> None:
                if method == "GET" and path.rpartition("/")[2]:
                    silence.wait()

            stack.enter_context(object_store().failing(fault))
        else:
            address = stack.enter_context(silent_server(silence))
            urls = [f"{address}/{number}.png" for number in range(40)]
            workspace.source = str(workspace.images.parent / f"urls.{'txt' if place == 'manifest' else 'parquet'}")
            if place == "manifest":
                Path(workspace.source).write_text("\n".join(urls))
            else:
                pq.write_table(pa.table({"image": urls}), workspace.source)
        stack.callback(silence.over.set)
        yield silence


@contextlib.contextmanager
def silent_server(silence: Silence) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            connection, _ = server.accept()
            with connection:
                silence.wait()

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_storage_that_does_not_answer_holds_up_no_signal(
    workspace: Workspace, silence: Silence, number: signal.Signals
) -> None:
    words = ["candidates", workspace.source or "", "--vocab", str(workspace.vocabulary), "--out", str(workspace.out)]
    words += ["--quiet", "--replay", "nothing", "--model-id", "rules"]
    storage = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    process = processes().Process(target=plain_command, args=(words, storage))
    process.start()
    assert silence.asked.wait(60)
    began = time.monotonic()
    os.kill(process.pid or 0, number)
    process.join(30)
    seconds = time.monotonic() - began
    process.kill()
    process.join()
    assert (process.exitcode, seconds < 6.0) == (130, True)
