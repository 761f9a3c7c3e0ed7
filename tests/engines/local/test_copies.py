"""Two copies of the model in this process, which is what `--gpus 2` asks vLLM for; here both share the CPU."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tagllm_cli.engines.base import ask_all
from tagllm_cli.engines.local.engine import EngineSettings, InProcessEngine, rank_of
from tagllm_cli.records import Request, Response
from tests.support.live import MODEL, QUICK_START, demo_pictures

NAMES = ("boat", "cat", "cup", "dog", "glasses", "keyboard")
IMAGES = 6
BLOCK = 32

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("no_engine")]


def test_an_image_stays_with_one_of_two_copies_and_is_paid_for_once(tmp_path: Path):
    pictures = demo_pictures(IMAGES)
    assert {rank_of(picture.uuid, 2) for picture in pictures} == {0, 1}
    requests = [Request("You label images.", f"Is {name} visible? Answer yes or no.", max_tokens=1) for name in NAMES]
    settings = EngineSettings(
        str(MODEL), {**QUICK_START, "data_parallel_size": "2", "max_num_seqs": "8"}, log_file=tmp_path / "vllm.log"
    )

    async def ask() -> tuple[int | None, int, list[list[Response]]]:
        engine = InProcessEngine(settings)
        await engine.start()
        try:
            answers = await asyncio.gather(*(ask_all(engine, picture, requests) for picture in pictures))
            return engine.gpus, engine.capacity, answers
        finally:
            await engine.close()

    gpus, capacity, answers = asyncio.run(ask())
    assert (gpus, capacity) == (2, 2 * 2 * 8)
    for responses in answers:
        assert all(response.failure is None for response in responses)
        cached = sorted(response.cached_tokens for response in responses)
        prefix = min(response.prompt_tokens for response in responses) // BLOCK * BLOCK
        assert cached[0] == 0  # whichever copy was asked, the image was new to it
        assert cached[1] >= prefix - BLOCK > 0  # and it was asked about everything else
    log = settings.log_file.read_text() if settings.log_file else ""
    assert "EngineCore_DP0" in log
    assert "EngineCore_DP1" in log
