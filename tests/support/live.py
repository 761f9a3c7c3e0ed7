"""Real vLLM for tests: the demo model in this process, or behind vLLM's own server. One of them runs at a time.

On two cores an engine beside another one is several times slower. `pytest_collection_modifyitems` in conftest.py orders
the live tests by what they need, so that each is started once per session.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import warnings
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import PIL.Image
import pytest

from tagllm_cli.engines.base import Engine, ask_all
from tagllm_cli.engines.local.cpu import emulates_bfloat16
from tagllm_cli.engines.local.engine import EngineSettings, InProcessEngine
from tagllm_cli.records import DecodedImage, Request, Response
from tests.support.shared_engine import SharedEngine

T = TypeVar("T")

MODEL = Path(__file__).parents[1] / "demo" / "model"
IMAGES = Path(__file__).parents[1] / "demo" / "images"
CACHE_BYTES = 1 << 30
START_S = 600
# Compiling takes longer than a test's few thousand requests gain from it. The worker in the engine's own process spares
# the start of another one, which imports vLLM again; on a CPU vLLM wants this variable for it.
QUICK_START = {
    "enforce_eager": "true",
    "kv_cache_memory_bytes": str(CACHE_BYTES),
    "distributed_executor_backend": "uni",
}
ONE_PROCESS = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}


@dataclass(frozen=True)
class LiveEngine:
    """A started in-process engine that lives in a loop of its own."""

    engine: InProcessEngine
    shared: SharedEngine
    log_file: Path

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` in the engine's loop."""
        return self.shared.run(work)

    def ask(self, picture: DecodedImage | None, requests: Sequence[Request]) -> list[Response]:
        """Ask and wait."""
        return self.run(ask_all(self.engine, picture, requests))

    def handle(self) -> Engine:
        """Return the engine for one job, which runs in a loop of its own."""
        return self.shared.handle()


@dataclass(frozen=True)
class LiveServer:
    """A vLLM server: its address without /v1, and the model's served name."""

    url: str
    model: str


class Live:
    """Starts the engine or the server when it is asked for, and ends the other one first."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: LiveEngine | LiveServer | None = None
        self._stack = ExitStack()

    def engine(self) -> LiveEngine:
        """Return the demo model in this process."""
        if not isinstance(self._running, LiveEngine):
            self.close()
            self._running = self._stack.enter_context(running(self._demo_settings()))
        return self._running

    def _demo_settings(self) -> EngineSettings:
        arguments = {**QUICK_START, "max_num_seqs": "64"}
        return EngineSettings(str(MODEL), arguments, log_file=self._folder / "vllm.log")

    def server(self) -> LiveServer:
        """Return the demo model behind vLLM's own server."""
        if not isinstance(self._running, LiveServer):
            self.close()
            self._running = self._stack.enter_context(_server(self._folder / "server.log"))
        return self._running

    def close(self) -> None:
        """End what is running."""
        self._running = None
        self._stack.close()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # vLLM leaves its ZeroMQ context to the collector
            gc.collect()


def demo_pictures(count: int) -> list[DecodedImage]:
    """The first demo images, ready for an engine; PNG files travel as they are."""
    pictures = []
    for path in sorted(path for path in IMAGES.rglob("*") if path.suffix in (".jpg", ".png"))[:count]:
        pixels = PIL.Image.open(path).convert("RGB")
        encoded = path.read_bytes() if path.suffix == ".png" else None
        pictures.append(DecodedImage(pixels, f"demo-{path.stem}", encoded))
    return pictures


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """What runs vLLM in this session."""
    live = Live(tmp_path_factory.mktemp("live"))
    try:
        yield live
    finally:
        live.close()


@pytest.fixture
def live_engine(live: Live) -> LiveEngine:
    """The demo model in this process."""
    return live.engine()


@pytest.fixture
def live_server(live: Live) -> LiveServer:
    """The demo model behind vLLM's own server."""
    return live.server()


@pytest.fixture(scope="module")
def no_engine(live: Live) -> None:
    """Nothing else runs while a test starts engines of its own."""
    live.close()


@contextmanager
def running(settings: EngineSettings) -> Iterator[LiveEngine]:
    """Run the engine of these settings, which name a log file."""
    assert settings.log_file is not None
    engine = InProcessEngine(settings)
    shared = SharedEngine(engine)
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in ONE_PROCESS.items():
                patch.setenv(name, value)
            shared.run(shared.prepare())
        yield LiveEngine(engine, shared, settings.log_file)
    finally:
        shared.close()


@contextmanager
def _server(log_file: Path) -> Iterator[LiveServer]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = LiveServer(f"http://127.0.0.1:{port}", "demo")
    options = {
        "model": MODEL, "served-model-name": server.model, "host": "127.0.0.1", "port": port, "block-size": 32,
        "kv-cache-memory-bytes": CACHE_BYTES, "max-num-seqs": 64, "limit-mm-per-prompt": '{"image": 1}',
        "dtype": "float32" if emulates_bfloat16() else "auto",
    }  # fmt: skip
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--enable-prompt-tokens-details"]
    command += ["--enforce-eager", "--distributed-executor-backend", "uni"]
    for name, value in options.items():
        command += [f"--{name}", str(value)]
    environment = {**os.environ, **ONE_PROCESS, "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    with log_file.open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
        try:
            _wait_until_ready(server, process, log_file)
            yield server
        finally:
            process.terminate()
            try:
                process.wait(timeout=30)
            finally:
                _kill_group(process.pid)


def _wait_until_ready(server: LiveServer, process: subprocess.Popen[bytes], log_file: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(f"{server.url}/health", timeout=5):
                return
        except OSError:
            time.sleep(0.5)  # it does not say when it begins to listen
    raise RuntimeError(f"the server did not start:\n{log_file.read_text(errors='replace')[-4000:]}")


def _kill_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return
