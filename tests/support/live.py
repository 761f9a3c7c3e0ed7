"""Real vLLM for tests, started once per session: an engine in this process, and a server on loopback.

Both serve the demo model. An idle engine costs memory and nothing else, so they may be alive side by side.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import PIL.Image
import pytest

from tagllm_cli.engines.base import ask_all
from tagllm_cli.engines.local.cpu import emulates_bfloat16
from tagllm_cli.engines.local.engine import EngineSettings, InProcessEngine
from tagllm_cli.records import DecodedImage, Request, Response

T = TypeVar("T")

MODEL = Path(__file__).parents[1] / "demo" / "model"
IMAGES = Path(__file__).parents[1] / "demo" / "images"
CACHE_BYTES = 1 << 30  # small, so that several engines fit beside each other
START_S = 600


@dataclass(frozen=True)
class LiveEngine:
    """A started in-process engine and the event loop that it lives in."""

    engine: InProcessEngine
    runner: asyncio.Runner
    log_file: Path

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` in the engine's loop."""
        return self.runner.run(work)

    def ask(self, picture: DecodedImage | None, requests: Sequence[Request]) -> list[Response]:
        """Ask and wait."""
        return self.run(ask_all(self.engine, picture, requests))


@dataclass(frozen=True)
class LiveServer:
    """A vLLM server: its address without /v1, and the model's served name."""

    url: str
    model: str


def demo_pictures(count: int) -> list[DecodedImage]:
    """The first demo images, ready for an engine; PNG files travel as they are."""
    pictures = []
    for path in sorted(path for path in IMAGES.rglob("*") if path.suffix in (".jpg", ".png"))[:count]:
        pixels = PIL.Image.open(path).convert("RGB")
        encoded = path.read_bytes() if path.suffix == ".png" else None
        pictures.append(DecodedImage(pixels, f"demo-{path.stem}", encoded))
    return pictures


@pytest.fixture(scope="session")
def live_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveEngine]:
    """The demo model in this process."""
    log_file = tmp_path_factory.mktemp("live") / "vllm.log"
    engine_args = {"kv_cache_memory_bytes": str(CACHE_BYTES), "max_num_seqs": "64"}
    engine = InProcessEngine(EngineSettings(str(MODEL), engine_args, log_file=log_file))
    with asyncio.Runner() as runner:
        runner.run(engine.start())
        try:
            yield LiveEngine(engine, runner, log_file)
        finally:
            runner.run(engine.close())


@pytest.fixture(scope="session")
def live_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """The demo model behind vLLM's own server."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = LiveServer(f"http://127.0.0.1:{port}", "demo")
    log_file = tmp_path_factory.mktemp("server") / "vllm.log"
    options = {
        "model": MODEL, "served-model-name": server.model, "host": "127.0.0.1", "port": port, "block-size": 32,
        "kv-cache-memory-bytes": CACHE_BYTES, "max-num-seqs": 64, "limit-mm-per-prompt": '{"image": 1}',
    }  # fmt: skip
    if emulates_bfloat16():  # as the engine in this process
        options["dtype"] = "float32"
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--enable-prompt-tokens-details"]
    for name, value in options.items():
        command += [f"--{name}", str(value)]
    environment = {**os.environ, "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    with log_file.open("wb") as log:
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
            if httpx.get(f"{server.url}/health", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.5)  # it does not say when it begins to listen
    raise RuntimeError(f"the server did not start:\n{log_file.read_text(errors='replace')[-4000:]}")


def _kill_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return
