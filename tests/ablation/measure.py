"""A cell's table against the truth: the tool's own metrics, and the counts per image that the bootstrap draws from."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tagllm_cli.evaluation.metrics import Evaluation, evaluate_rows
from tagllm_cli.evaluation.truth import Truth, load_truth
from tagllm_cli.records import Decision, Row, Status
from tagllm_cli.store.table import open_table
from tests.ablation.bootstrap import Array, Metric, samples
from tests.ablation.cells import Cell, Cost
from tests.demo.things import MEANS, NAMES

SUBSETS: Mapping[str, frozenset[str]] = {
    "all": frozenset(NAMES),
    "ambiguous": frozenset(MEANS),
    "unambiguous": frozenset(NAMES) - frozenset(MEANS),
}
"""Labels that are measured together, by the name of the subset."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A cell with its figures. `cost` includes that of the candidates which a label table was made from.

    `candidates` is the evaluation of those candidates, or of the table itself where it is a candidate table. `scores`
    and `counts` go by subset of the labels; counts are int64 [images, 3]: true positives, false positives and false
    negatives, 0 in rows that `answered` (bool [images]) leaves out: failed images say nothing.
    """

    cell: Cell
    cost: Cost
    candidates: Evaluation
    scores: Mapping[str, Evaluation]
    ids: tuple[str, ...]
    answered: npt.NDArray[np.bool_]
    counts: Mapping[str, npt.NDArray[np.int64]]


def measure(cell: Cell, candidates: Measured | None) -> Measured:
    """Measure a complete cell; `candidates` is what a label table was made from, None for a candidate table."""
    table, truth = open_table(cell.table), load_truth(cell.scenes.truth)
    rows, stage = list(table.rows()), table.info.stage
    scores = {
        subset: evaluate_rows(rows, table.info.vocabulary, _restricted(truth, names), stage=stage)
        for subset, names in SUBSETS.items()
    }
    return Measured(
        cell,
        cell.cost if candidates is None else candidates.cost.plus(cell.cost),
        scores["all"] if candidates is None else candidates.candidates,
        scores,
        tuple(row.image_id for row in rows),
        np.array([row.status in (Status.OK, Status.PARTIAL) for row in rows]),
        {subset: _counts(rows, truth, names, stage) for subset, names in SUBSETS.items()},
    )


def difference(metric: Metric, one: Measured, other: Measured, subset: str = "all", seed: int = 0) -> Array:
    """Return `one` less `other` [1 + resamples] over the images that both answered. ValueError: other images."""
    if one.ids != other.ids:
        raise ValueError(f"{one.cell.table} and {other.cell.table} are not about the same images")
    both = (one.answered & other.answered)[:, None]
    first, second = (samples(metric, each.counts[subset] * both, seed) for each in (one, other))
    return first - second


def _restricted(truth: Truth, names: Collection[str]) -> Truth:
    """The truth about some labels only: what a truth does not name, the evaluation does not judge."""
    labels = {image: present & frozenset(names) for image, present in truth.labels.items()}
    return Truth(labels, tuple(name for name in truth.names if name in names), exhaustive=True)


def _counts(rows: Sequence[Row], truth: Truth, names: frozenset[str], stage: str) -> npt.NDArray[np.int64]:
    decision = Decision.YES if stage == "labels" else None
    found = []
    for row in rows:
        true = truth.labels[row.image_id] & names
        if row.labels is None:
            found.append((0, 0, 0))
            continue
        said = {entry.name for entry in row.labels if entry.decision == decision} & names
        found.append((len(said & true), len(said - true), len(true - said)))
    return np.array(found, np.int64)
