"""Both stages over the same images, in one pass or in two, by an engine that is started once and cold each time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import PIL.Image

from tagllm_cli.engines.base import ask_all
from tagllm_cli.engines.factory import ModelOptions
from tagllm_cli.engines.local.engine import InProcessEngine
from tagllm_cli.pipeline.label.job import Job, RunOptions
from tagllm_cli.pipeline.label.jobs import candidates_job, disambiguate_job, follow_up_job
from tagllm_cli.pipeline.label.one_pass import run_both
from tagllm_cli.pipeline.label.run import run_job
from tagllm_cli.pipeline.label.summary import DryRun, Summary
from tagllm_cli.pipeline.progress import Silent
from tagllm_cli.records import DecodedImage, Request
from tests.support.shared_engine import SharedEngine

# Answers by rule, or of a small model, are no reason to stop.
_OPTIONS = RunOptions(preflight=False, max_failed_rate=1.0)
_WARM_UP = tuple(Request("", f"Is the number {number} visible?", max_tokens=8, top_logprobs=20) for number in range(64))


@dataclass(frozen=True, slots=True)
class Cost:
    """What the requests about some images took; `seconds` are from the first request to the last, over all passes.

    `cpu_seconds` are of processor time, of this process and vLLM's: what other programs do beside does not change it.
    """

    images: int
    requests: int
    failed: int
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    seconds: float
    cpu_seconds: float
    candidates: int

    @property
    def computed(self) -> int:
        """Prompt tokens that were not in the prefix cache."""
        return self.prompt_tokens - self.cached_tokens

    @property
    def per_second(self) -> float:
        """Images per second."""
        return self.images / self.seconds


def shared(engine: InProcessEngine, size: tuple[int, int]) -> SharedEngine:
    """Return the engine for several jobs, not started: warm when the first one begins, with empty caches for each.

    `size` is of the image that it is warmed up with.
    """

    async def warm_up() -> None:
        await ask_all(engine, DecodedImage(PIL.Image.new("RGB", size), "warm-up"), _WARM_UP)

    async def forget() -> None:
        llm: Any = engine._llm  # no user needs a cold cache, so the engine offers none
        asker: Any = engine._asker
        if not await llm.reset_prefix_cache():
            raise RuntimeError("vLLM kept its prefix cache: requests of the last job are still running")
        await llm.reset_mm_cache()
        await llm.reset_encoder_cache()
        engine._asker = type(asker)(asker._prompts, asker._generate, asker._long_image)

    return SharedEngine(engine, warm_up, forget)


@dataclass(frozen=True, slots=True)
class Labeling:
    """What is labeled, with which vocabulary and model, by which engine; the tables go into `folder`."""

    source: str
    vocabulary: str
    model: ModelOptions
    engine: SharedEngine
    folder: Path

    def one_pass(self) -> Cost:
        """Label anew as `tagllm run` does."""
        first = self._candidates()
        second = self._with_engine(follow_up_job(first, self._fresh("labels"), self.model, _OPTIONS))
        before = cpu_seconds()
        return _cost(run_both(first, second, _OPTIONS, Silent()), before)

    def two_passes(self) -> Cost:
        """Label anew as `tagllm candidates` and `tagllm disambiguate` do, with cold caches before each."""
        first, before = self._candidates(), cpu_seconds()
        found = run_job(first, _OPTIONS, Silent())
        second = disambiguate_job(first.out, self._fresh("labels"), self.model, _OPTIONS)
        return _cost([found, run_job(self._with_engine(second), _OPTIONS, Silent())], before)

    def _candidates(self) -> Job:
        out = self._fresh("candidates")
        return self._with_engine(candidates_job(self.source, self.vocabulary, out, self.model, _OPTIONS))

    def _with_engine(self, job: Job) -> Job:
        return replace(job, engine=lambda plan: self.engine.handle())

    def _fresh(self, name: str) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        out = self.folder / f"{name}.parquet"
        for old in (out, out.with_suffix(".evidence")):
            old.unlink(missing_ok=True)
        return out


def cpu_seconds() -> float:
    """Return the processor time so far of this process and of those that it started and that run."""
    import psutil  # vLLM brings it

    own = psutil.Process()
    times = [each.cpu_times() for each in (own, *own.children(recursive=True))]
    return float(sum(each.user + each.system for each in times))


def _cost(summaries: Sequence[Summary | DryRun | None], cpu_before: float) -> Cost:
    done = [each for each in summaries if isinstance(each, Summary)]
    usage = done[0].usage.add(done[1].usage)
    return Cost(
        images=done[0].rows.total,
        requests=usage.requests,
        failed=sum(each.stats.failed_requests for each in done),
        prompt_tokens=usage.prompt_tokens,
        cached_tokens=usage.cached_tokens,
        output_tokens=usage.output_tokens,
        seconds=sum(each.stats.seconds for each in done),
        cpu_seconds=cpu_seconds() - cpu_before,
        candidates=done[0].rows.labels,
    )
