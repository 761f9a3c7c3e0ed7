"""(12) one driver and workers on Ray that only replay or only wait: answers recorded per second, and how it scales."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tagllm_cli.engines.base import Usage
from tagllm_cli.engines.factory import ModelOptions
from tagllm_cli.pipeline.progress import Silent
from tagllm_cli.records import DecodedImage, Request, Response

Child = Callable[..., dict[str, Any]]
Say = Callable[[str, str, str, bool], None]

IMAGES = 3_000
REPLAYING = 4
SLEEP_S = 0.2
STEADY = (0.4, 0.9)  # shares of the images between which the clock runs
SLEEPING_IMAGES = {1: 600, 2: 1_200, 4: 2_400}


def ray_driver(chosen: argparse.Namespace, child: Child, say: Say) -> None:
    """(12) images of 8 x 8 pixels, sixteen requests each; the clock runs while all workers are at work."""
    from tests.bench.__main__ import tiny_images

    folder = chosen.out / f"tiny-{IMAGES}"
    tiny_images(folder, IMAGES)
    found = child("on_ray", str(folder), str(chosen.out / "ray.parquet"), str(REPLAYING), "0", str(IMAGES))
    rate = found["responses"] / found["seconds"]
    what = f"(12) Ray, {REPLAYING} replaying workers: responses/s recorded by one driver"
    say(what, f"{rate:,.0f}", ">= 3,000", rate >= 3_000)
    print(f"     evidence: {found['evidence_bytes'] / found['all_responses']:.0f} bytes a response")
    rates = {}
    for workers, images in SLEEPING_IMAGES.items():
        found = child("on_ray", str(folder), str(chosen.out / "ray.parquet"), str(workers), str(SLEEP_S), str(images))
        rates[workers] = found["images"] / found["seconds"]
    for few, many in ((1, 2), (2, 4)):
        ratio = rates[many] / rates[few]
        what = f"(12) Ray, {many} sleeping workers over {few}, images/s ({rates[many]:.0f} / {rates[few]:.0f})"
        say(what, f"{ratio:.2f}", ">= 1.9", ratio >= 1.9)


@dataclass
class Sleeper:
    """An engine that gives every request the same answer, `delay_s` seconds after it is asked."""

    delay_s: float
    capacity: int = 64
    version: str = "sleeper"
    trouble: str | None = None
    gpus: int | None = None
    answer: Response = field(default_factory=lambda: Response("person, car, dog", prompt_tokens=300, output_tokens=6))

    async def start(self) -> None:
        """Nothing to load."""

    async def ask(
        self, decoded_image: DecodedImage | None, requests: Sequence[Request]
    ) -> AsyncGenerator[tuple[Request, Response]]:
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        for request in requests:
            yield request, self.answer

    def usage(self) -> Usage:
        return Usage()

    async def close(self) -> None:
        """Nothing to release."""


class _Clock(Silent):
    """Remembers when answers were recorded, and how many."""

    def __init__(self) -> None:
        self.times: list[tuple[float, int, int]] = []

    def update(self, stats: Any, usage: Any) -> None:
        self.times.append((time.monotonic(), stats.images, stats.asked))

    def at(self, images: float) -> tuple[float, int, int]:
        """Return the time, images and responses when so many images were done."""
        return next(each for each in self.times if each[1] >= images)


def on_ray(folder: str, out: str, workers: str, delay_s: str, images: str) -> dict[str, Any]:
    """Label images with so many workers; return what was recorded while all of them were at work."""
    from tagllm_cli.pipeline.label.job import RunOptions
    from tagllm_cli.pipeline.label.jobs import candidates_job
    from tagllm_cli.pipeline.label.ray.options import RayOptions
    from tagllm_cli.pipeline.label.run import run_job

    table = Path(out)
    evidence = table.with_suffix(".evidence")
    for old in (table, evidence):
        old.unlink(missing_ok=True)
    recording = table.with_suffix(".jsonl")
    recording.touch()
    options = RunOptions(preflight=False, limit=int(images), ray=RayOptions("local", int(workers), 0))
    job = candidates_job(folder, "coco", table, ModelOptions(replay=recording), options, group_size=10)
    clock, delay = _Clock(), float(delay_s)
    run_job(replace(job, engine=lambda plan: Sleeper(delay)), options, clock)
    (began, before, asked_before), (ended, after, asked_after) = (clock.at(share * int(images)) for share in STEADY)
    return {
        "seconds": ended - began,
        "images": after - before,
        "responses": asked_after - asked_before,
        "evidence_bytes": evidence.stat().st_size,
        "all_responses": clock.times[-1][2],
    }
