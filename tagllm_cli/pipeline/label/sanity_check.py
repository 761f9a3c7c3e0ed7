"""Sanity check of a run: the answers about its first images go to the stage, which says whether they make sense."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeAlias

from tagllm_cli.labeling.answers.sanity_check import SAMPLE_IMAGES
from tagllm_cli.labeling.stage import Stage
from tagllm_cli.pipeline.label.asking import TRUNCATED
from tagllm_cli.records import Request, Response

SAMPLE_REQUESTS = 100  # of one image, evenly spaced: `binary` may ask about 10,000 labels


Sample: TypeAlias = list[tuple[Request, Response]]


class SanityCheck:
    """Collects the answers about the first SAMPLE_IMAGES images that got any, and judges them once."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._sample: Sample = []
        self._images = 0

    def add(self, responses: Sequence[tuple[Request, Response]]) -> Sample | None:
        """Take the responses about one image; return the sample when it is complete, which it is once, else None."""
        answers = [(request, _answer(response)) for request, response in responses]
        if self._images >= SAMPLE_IMAGES or all(answer.failure is not None for _, answer in answers):
            return None
        self._sample += answers[:: -(-len(answers) // SAMPLE_REQUESTS)]
        self._images += 1
        if self._images < SAMPLE_IMAGES:
            return None
        sample, self._sample = self._sample, []
        return sample

    def judge(self, sample: Sample) -> str | None:
        """Return what is wrong with a sample, else None. It reads every answer: a second's work where they are long."""
        return self._stage.complaint(sample)

    def finish(self) -> str | None:
        """Return what is wrong with a sample that never became complete, else None."""
        return self.judge(self._sample) if self._sample else None


def _answer(response: Response) -> Response:
    """Return a truncated answer as the model gave it: that answers end is a part of what is judged."""
    if response.failure is not None and response.failure.kind == TRUNCATED:
        return replace(response, failure=None)
    return response
