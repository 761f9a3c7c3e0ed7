"""Rows and truths to measure: by hand, and at random."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tagllm_cli.evaluation.metrics import Evaluation, evaluate_rows
from tagllm_cli.evaluation.truth import Truth
from tagllm_cli.records import Decision, LabelEntry, Row, Status
from tagllm_cli.vocabulary.model import Label, Vocabulary


def vocabulary(*names: str) -> Vocabulary:
    return Vocabulary("test", tuple(Label(name) for name in names))


def row(image: str, *entries: LabelEntry, status: Status = Status.OK) -> Row:
    answered = status in (Status.OK, Status.PARTIAL)
    return Row(image, image, b"", 4, 4, status, None, entries if answered else None)


def truth(labels: Mapping[str, Sequence[str]], *names: str, exhaustive: bool = True, **more: Any) -> Truth:
    return Truth({image: frozenset(present) for image, present in labels.items()}, names, exhaustive, **more)


class Problem:
    """Random scores, decisions and truth, with labels that are never or always true, never or always predicted."""

    def __init__(self, seed: int, images: int = 200, labels: int = 12) -> None:
        random = np.random.default_rng(seed)
        self.names = [f"label {number}" for number in range(labels)]
        self.true = random.random((images, labels)) < random.random(labels) * 0.6
        self.scores = np.where(random.random((images, labels)) < 0.6, random.random((images, labels)), 0)
        self.scores = np.round(self.scores, 1).astype(np.float32)  # many ties
        self.said = self.scores > 0.4
        for label, column in enumerate((False, True, False, True)):
            target = self.true if label < 2 else self.said
            target[:, label] = column
        self.scores[:, 3] = np.maximum(self.scores[:, 3], 0.1)
        self.scores[:, 4] = 0
        self.said[:, 4] = False

    def rows(self) -> list[Row]:
        # A label with score 0 is left out of the list, as in a table.
        return [
            row(
                f"{image}.jpg",
                *(
                    LabelEntry(name, Decision.YES if said else Decision.NO, score=float(score))
                    for name, said, score in zip(self.names, self.said[image], self.scores[image], strict=True)
                    if score
                ),
            )
            for image in range(len(self.true))
        ]

    def truth(self) -> Truth:
        present = {
            f"{image}.jpg": [name for name, true in zip(self.names, line, strict=True) if true]
            for image, line in enumerate(self.true)
        }
        return truth(present, *self.names)


def evaluated() -> Evaluation:
    problem = Problem(7)
    return evaluate_rows(problem.rows(), vocabulary(*problem.names), problem.truth())
