"""Sanity check of a run: the answers about its first images go to the stage, which says whether they make sense."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tagllm_cli.labeling.answers.sanity_check import SAMPLE_IMAGES
from tagllm_cli.labeling.stage import Stage
from tagllm_cli.pipeline.label.asking import TRUNCATED
from tagllm_cli.records import Request, Response

SAMPLE_REQUESTS = 100  # of one image, evenly spaced: `binary` may ask about 10,000 labels


class SanityCheck:
    """Collects the answers about the first SAMPLE_IMAGES images that got any, and judges them once."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._sample: list[tuple[Request, Response]] = []
        self._images = 0

    def add(self, responses: Sequence[tuple[Request, Response]]) -> str | None:
        """Take the responses about one image; return what is wrong with the sample once it is complete, else None."""
        answers = [(request, _answer(response)) for request, response in responses]
        if self._images >= SAMPLE_IMAGES or all(answer.failure is not None for _, answer in answers):
            return None
        self._sample += answers[:: -(-len(answers) // SAMPLE_REQUESTS)]
        self._images += 1
        return self._judge() if self._images == SAMPLE_IMAGES else None

    def finish(self) -> str | None:
        """Return what is wrong with a sample that never became complete, else None."""
        return self._judge() if self._sample else None

    def _judge(self) -> str | None:
        sample, self._sample = self._sample, []
        return self._stage.complaint(sample)


def _answer(response: Response) -> Response:
    """Return a truncated answer as the model gave it: that answers end is a part of what is judged."""
    if response.failure is not None and response.failure.kind == TRUNCATED:
        return replace(response, failure=None)
    return response
