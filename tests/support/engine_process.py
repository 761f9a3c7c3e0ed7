"""A program with an engine that tests interrupt and kill: `python -m tests.support.engine_process MODEL LOG`.

It prints one JSON object per event on stdout, and continues when it reads a line on stdin.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import signal
import sys
from pathlib import Path
from typing import Any

from tagllm_cli.engines.base import EngineDiedError, ask_all
from tagllm_cli.engines.local.engine import EngineSettings, InProcessEngine
from tagllm_cli.records import Request
from tests.support.live import CACHE_BYTES, demo_pictures

QUESTION = Request("", "Is a cat visible in the image? yes or no", max_tokens=1, top_logprobs=5)


def say(event: str, **facts: Any) -> None:
    print(json.dumps({"event": event, **facts}), flush=True)


def children() -> list[int]:
    return [process.pid for process in multiprocessing.active_children() if process.pid is not None]


async def wait_for_input() -> None:
    await asyncio.to_thread(sys.stdin.readline)


def new_engine(model: str, log_file: Path) -> InProcessEngine:
    engine_args = {"kv_cache_memory_bytes": str(CACHE_BYTES), "max_num_seqs": "16", "enforce_eager": "true"}
    return InProcessEngine(EngineSettings(model, engine_args, log_file=log_file))


async def abandoned_start(engine: InProcessEngine) -> None:
    """Cancel a start as soon as it has started a process."""
    start = asyncio.create_task(engine.start())
    while not children():
        await asyncio.sleep(0.05)
    start.cancel()
    outcome = await asyncio.gather(start, return_exceptions=True)
    await engine.close()
    say("abandoned", cancelled=isinstance(outcome[0], asyncio.CancelledError), children=children())


async def interrupted_engine(engine: InProcessEngine) -> None:
    """Be interrupted with the whole process group, then lose the engine's process."""
    interrupts: list[int] = []
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, lambda: interrupts.append(1))
    [picture] = demo_pictures(1)
    await engine.start()
    say("started", version=engine.version)
    await wait_for_input()
    responses = await ask_all(engine, picture, [QUESTION])
    say("interrupted", interrupts=len(interrupts), text=responses[0].text, failure=str(responses[0].failure or ""))
    os.kill(children()[0], signal.SIGKILL)
    try:
        while True:
            await ask_all(engine, picture, [QUESTION])
    except EngineDiedError as error:
        say("died", message=error.message, hint=error.hint, code=error.exit_code)
    await engine.close()
    say("closed", children=children())


async def killed_engine(engine: InProcessEngine) -> None:
    """Keep requests in flight until killed."""
    pictures = demo_pictures(8)
    await engine.start()
    say("ready")
    while True:
        await asyncio.gather(*(ask_all(engine, picture, [QUESTION] * 8) for picture in pictures))


async def main() -> None:
    model, log_file = sys.argv[1], Path(sys.argv[2])
    await abandoned_start(new_engine(model, log_file))
    await interrupted_engine(new_engine(model, log_file))
    await killed_engine(new_engine(model, log_file))


if __name__ == "__main__":
    asyncio.run(main())
