"""How often the arms of a candidate table err together: what two of them say wrongly, they may say for one reason.

A cell is one image and one label. Arms whose errors are independent share e_a e_b / n of them, with e_a and e_b the
errors of each and n the cells where the error can be made: a wrong proposal where the label is absent, a miss where it
is present. Cells differ (some labels are hard for every arm), so the same sum is also taken label by label: what is
shared beyond that is not explained by the label alone. phi is the correlation of the two errors as 0 or 1 per cell.

Compared are the `ok` rows of images that the truth knows: an arm whose request failed has not seen nothing. A table
that was made with more than one vote left out what a single arm proposed; it is measured as it is, errors hidden.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tagllm_cli.evaluation.truth import Truth, match_images, match_names
from tagllm_cli.records import Status
from tagllm_cli.store.table import Table

if TYPE_CHECKING:
    import pyarrow

ROWS_PER_BATCH = 16_384

_PROPOSED = ("labels.list.element.name", "labels.list.element.arms.list.element")

_Counts = npt.NDArray[np.int64]
_Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class ArmScores:
    """What one arm proposed alone; precision and recall in [0, 1], 0 without a denominator."""

    name: str
    proposed: int
    precision: float
    recall: float


@dataclass(frozen=True, slots=True)
class SharedErrors:
    """The errors of two arms, in cells.

    `expected` are the errors that they would share if independent, `expected_by_label` the same summed over the
    labels. `ratio` = both / expected and `ratio_by_label`: None where nothing is expected. `jaccard` = both / either,
    in [0, 1], None without errors. `phi` in [-1, 1], None where an arm errs never or always.
    """

    first: str
    second: str
    errors_first: int
    errors_second: int
    both: int
    expected: float
    expected_by_label: float
    ratio: float | None
    ratio_by_label: float | None
    jaccard: float | None
    phi: float | None


@dataclass(frozen=True, slots=True)
class VoteScores:
    """The candidates that at least `min_votes` arms propose; ratios in [0, 1], `per_image` is a mean."""

    min_votes: int
    precision: float
    recall: float
    per_image: float


@dataclass(frozen=True, slots=True)
class Agreement:
    """How the arms of a table compare on so many `images`; errors for every pair of arms."""

    images: int
    arms: tuple[ArmScores, ...]
    wrong: tuple[SharedErrors, ...]
    missed: tuple[SharedErrors, ...]
    votes: tuple[VoteScores, ...]

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain JSON values, ratios and means rounded to six digits."""
        rounded: dict[str, Any] = json.loads(json.dumps(asdict(self)), parse_float=lambda text: round(float(text), 6))
        return rounded


def measure_agreement(table: Table, truth: Truth) -> Agreement | None:
    """Compare the arms of a candidate table, read as a stream, with `truth`.

    Memory grows with labels times arms and with the images' ids, not with the candidates. None where there is nothing
    to compare: another kind of table, fewer than two arms, or no `ok` image or no label that both sides know.
    """
    names, arms = table.info.vocabulary.names, tuple(table.info.plan.get("arms", ()))
    if table.info.stage != "candidates" or len(arms) < 2:
        return None
    match = match_names(truth, table.info.vocabulary)
    ids = [image for batch in _batches(table, "image_id") for image in batch.column("image_id").to_pylist()]
    keys = match_images(truth, ids).keys
    unjudged = match.not_in_truth if truth.exhaustive else ()
    stats = _Tally(len(arms), np.array([name not in unjudged for name in names]))
    position = {name: index for index, name in enumerate(names)}
    labels = {name: position[own] for name, own in match.in_vocabulary.items()}
    for batch in _batches(table, "image_id", "status", *_PROPOSED):
        batch, images = _compared(batch, keys)
        true, unknown = (_cells(images, marked, labels, len(names)) for marked in (truth.labels, truth.unknown))
        stats.add(len(images), true, unknown, *_proposals(batch, names, arms))
    return _summed(arms, stats) if stats.images and labels else None


def _batches(table: Table, *columns: str) -> Iterator[pyarrow.RecordBatch]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(table.path) as file:
        yield from file.iter_batches(batch_size=ROWS_PER_BATCH, columns=list(columns))


def _compared(batch: pyarrow.RecordBatch, keys: Mapping[str, str]) -> tuple[pyarrow.RecordBatch, list[str]]:
    """Return the rows that are compared, and the truth's key of each."""
    import pyarrow as pa

    found = zip(batch.column("image_id").to_pylist(), batch.column("status").to_pylist(), strict=True)
    images = [keys.get(image) if status == Status.OK else None for image, status in found]
    return batch.filter(pa.array([key is not None for key in images])), [key for key in images if key is not None]


def _cells(
    images: Sequence[str], marked: Mapping[str, frozenset[str]], labels: Mapping[str, int], size: int
) -> _Counts:
    """Return the cells, as image times labels plus label, that the truth marks, sorted, each once."""
    cells = {
        row * size + labels[name] for row, key in enumerate(images) for name in marked.get(key, ()) if name in labels
    }
    return np.fromiter(sorted(cells), np.int64, len(cells))


def _proposals(batch: pyarrow.RecordBatch, names: Sequence[str], arms: Sequence[str]) -> tuple[_Counts, _Flags]:
    """Return the cells [N] that were proposed, and by whom [N, arms]."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column = batch.column("labels")
    rows, entries = pc.list_parent_indices(column).to_numpy(), pc.list_flatten(column)
    labels = pc.index_in(pc.struct_field(entries, "name"), value_set=pa.array(names, pa.string())).to_numpy()
    voters = pc.struct_field(entries, "arms")
    proposals = np.zeros((len(rows), len(arms)), dtype=np.bool_)
    who = pc.index_in(pc.list_flatten(voters), value_set=pa.array(arms, pa.string())).to_numpy()
    proposals[pc.list_parent_indices(voters).to_numpy(), who] = True
    return rows * len(names) + labels, proposals


class _Tally:
    """Counts over cells; index 0 counts those that are false in the truth, index 1 the true ones.

    `judged` [labels] says which labels the truth judges at all.
    """

    def __init__(self, arms: int, judged: _Flags) -> None:
        self.judged = judged
        self.images = 0
        self.cells: _Counts = np.zeros((2, len(judged)), dtype=np.int64)
        self.proposed: _Counts = np.zeros((2, arms, len(judged)), dtype=np.int64)
        self.shared: _Counts = np.zeros((2, arms, arms), dtype=np.int64)
        self.votes: _Counts = np.zeros((2, arms + 1), dtype=np.int64)  # cells by their number of votes

    def add(self, images: int, true: _Counts, unknown: _Counts, proposed: _Counts, by: _Flags) -> None:
        """Count some images: which cells are true, unknown to the truth, proposed [N], and `by` whom [N, arms]."""
        size = len(self.judged)
        true = np.setdiff1d(true, unknown)
        present, doubtful = (np.bincount(cells % size, minlength=size) for cells in (true, unknown))
        self.images += images
        self.cells += np.stack([images * self.judged - doubtful - present, present])
        labels = proposed % size
        counted, hits = self.judged[labels] & ~np.isin(proposed, unknown), np.isin(proposed, true)
        for kind, some in enumerate((counted & ~hits, counted & hits)):
            votes = by[some].astype(np.int64)
            for arm, said in enumerate(by[some].T):
                self.proposed[kind, arm] += np.bincount(labels[some][said], minlength=size)
            self.shared[kind] += votes.T @ votes
            self.votes[kind] += np.bincount(votes.sum(axis=1), minlength=self.votes.shape[1])


def _summed(arms: Sequence[str], stats: _Tally) -> Agreement:
    false, true = stats.cells
    wrong, hits = stats.proposed
    found, there = hits.sum(axis=1), int(true.sum())
    missed_by_both = there - found[:, None] - found + stats.shared[1]
    return Agreement(
        stats.images,
        arms=tuple(
            ArmScores(name, said, _ratio(right, said) or 0.0, _ratio(right, there) or 0.0)
            for name, said, right in zip(arms, (wrong + hits).sum(axis=1).tolist(), found.tolist(), strict=True)
        ),
        wrong=_shared_errors(arms, false, wrong, stats.shared[0]),
        missed=_shared_errors(arms, true, true - hits, missed_by_both),
        votes=tuple(_at_votes(stats, least) for least in range(1, len(arms) + 1)),
    )


def _shared_errors(arms: Sequence[str], cells: _Counts, errors: _Counts, both: _Counts) -> tuple[SharedErrors, ...]:
    """Compare every pair of arms: `cells` [labels], `errors` [arms, labels], `both` [arms, arms]."""
    count = int(cells.sum())
    pairs = []
    for one, other in combinations(range(len(arms)), 2):
        first, second, shared = int(errors[one].sum()), int(errors[other].sum()), int(both[one, other])
        expected = first * second / max(1, count)
        by_label = float((errors[one] * errors[other] / np.maximum(cells, 1)).sum())
        spread = math.sqrt(first * (count - first) * second * (count - second))
        pairs.append(
            SharedErrors(
                *(arms[one], arms[other], first, second, shared, expected, by_label),
                ratio=_ratio(shared, expected),
                ratio_by_label=_ratio(shared, by_label),
                jaccard=_ratio(shared, first + second - shared),
                phi=_ratio(count * shared - first * second, spread),
            )
        )
    return tuple(pairs)


def _at_votes(stats: _Tally, least: int) -> VoteScores:
    wrong, right = stats.votes[:, least:].sum(axis=1).tolist()
    recall = _ratio(right, int(stats.cells[1].sum())) or 0.0
    return VoteScores(least, _ratio(right, wrong + right) or 0.0, recall, (wrong + right) / stats.images)


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None
