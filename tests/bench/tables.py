"""Synthetic label tables with a truth, of any size, written by Arrow: what `evaluate` and its siblings are timed on.

Labels occur as in COCO: about three an image, the frequent ones a thousand times as often as the rare ones. A latent
score of each pair of image and label decides what an arm proposes and what the model answers; a label whose neighbor is
in the image scores higher, so that some pairs are confused. One image in a hundred failed, one in fifty in part.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from tagllm_cli.labeling.plan import PlanOptions
from tagllm_cli.labeling.replan import new_plan
from tagllm_cli.labeling.templates import load_templates
from tagllm_cli.records import SourceInfo
from tagllm_cli.store.schema import table_schema
from tagllm_cli.store.table import TableInfo, write_file
from tagllm_cli.vocabulary.load import load_vocabulary
from tagllm_cli.vocabulary.model import Label, Vocabulary

ARMS = ("cooccurring", "disjoint")
PER_IMAGE = 2.9
_BLOCK = 16_384

Array = npt.NDArray[np.generic]


def tables(folder: Path, images: int = 1_000_000, labels: int = 80, seed: int = 0) -> tuple[Path, Path]:
    """Write `labels.parquet` and `truth.csv` (a line per image and label) unless they are there; return their paths."""
    table, truth = folder / "labels.parquet", folder / "truth.csv"
    if truth.exists():
        return table, truth
    folder.mkdir(parents=True, exist_ok=True)
    schema = pa.schema([("image", pa.string()), ("label", pa.string())])
    vocabulary = _vocabulary(labels)
    unfinished = truth.with_suffix(".new")
    with pa.csv.CSVWriter(unfinished, schema) as writer:

        def pieces() -> Iterator[pa.Table]:
            for start in range(0, images, _BLOCK):
                block = _Block(vocabulary, start, min(images, start + _BLOCK), seed)
                writer.write_table(block.truth(schema))
                yield block.table()

        write_file(table, _info(vocabulary), pieces())
    unfinished.replace(truth)
    return table, truth


def _vocabulary(labels: int) -> Vocabulary:
    coco = load_vocabulary("coco")
    if labels == len(coco.labels):
        return coco
    return Vocabulary("synthetic", tuple(Label(f"label {number:04}") for number in range(labels)))


def _info(vocabulary: Vocabulary) -> TableInfo:
    options = PlanOptions("labels", vocabulary, load_templates(), model="synthetic", model_digest=bytes(16))
    derivation = {"threshold": 0.5, "min_mass": 0.5, "cards": "none"}
    return TableInfo(
        "labels", SourceInfo("folder", "images"), vocabulary, {**new_plan(options).to_json(), **derivation}
    )


class _Block:
    """Images `start` to `stop`: what is in them, what was proposed and what was answered, [images, labels]."""

    def __init__(self, vocabulary: Vocabulary, start: int, stop: int, seed: int) -> None:
        random = np.random.default_rng([seed, start])
        count, labels = stop - start, len(vocabulary.labels)
        self.names = pa.array(vocabulary.names, pa.string())
        self.ids = pa.array([f"{number // 1000:05}/{number:08}.jpg" for number in range(start, stop)])
        frequency = 1 / np.arange(1, labels + 1) ** 1.2
        frequency = np.minimum(0.45, frequency / frequency.sum() * PER_IMAGE * 1.2)
        self.true = random.random((count, labels)) < np.random.default_rng(seed).permutation(frequency)
        score = np.where(self.true, 2.5, -4.5) + np.random.default_rng(seed + 1).normal(0, 0.6, labels)
        score += 2.0 * (np.roll(self.true, 1, axis=1) & ~self.true)
        score += random.normal(0, 1.4, score.shape)
        self.proposed = np.stack([score + random.normal(0, 1.5, score.shape) > -0.5 for _ in ARMS])
        answer = 1 / (1 + np.exp(-1.2 * score - random.normal(0, 0.8, score.shape)))
        self.probability = np.clip(answer, 1e-6, 1 - 1e-6).astype(np.float32)
        self.mass = random.beta(60, 1, score.shape).astype(np.float32)
        self.mass[random.random(score.shape) < 0.003] = 0.2
        self.failed, self.partial = random.random((2, count)) < [[0.01], [0.02]]
        self.sides = np.exp(random.normal(6.2, 0.4, (2, count))).astype(np.int32)
        self.random = random

    def truth(self, schema: pa.Schema) -> pa.Table:
        """Return a line per image and label; an image without labels has a line with no label."""
        rows, labels = np.nonzero(self.true)
        empty = np.flatnonzero(~self.true.any(axis=1))
        columns = (pa.concat_arrays([self.ids.take(pa.array(rows)), self.ids.take(pa.array(empty))]),
                   pa.concat_arrays([self.names.take(pa.array(labels)), pa.array([""] * len(empty))]))  # fmt: skip
        return pa.table(columns, schema=schema)

    def table(self) -> pa.Table:
        schema, count = table_schema(), len(self.ids)
        status = np.where(self.failed, "failed", np.where(self.partial, "partial", "ok"))
        known = ~self.failed
        errors = pa.array(np.where(self.failed, "truncated_file: it ends early", ""), mask=known)
        columns = [
            self.ids,
            self.ids,
            pa.array([self.random.bytes(16) for _ in range(count)], pa.binary()),
            *(pa.array(side, mask=self.failed) for side in self.sides),
            pa.array(status, pa.string()),
            errors,
            self._lists(schema.field("labels").type),
            pa.array([None if failed else [] for failed in self.failed], schema.field("unmatched").type),
        ]
        return pa.table(columns, schema=schema)

    def _lists(self, kind: pa.DataType) -> pa.Array:
        listed = self.proposed.any(axis=0) & ~self.failed[:, None]
        rows, labels = np.nonzero(listed)
        starts = np.concatenate([[0], np.cumsum(listed.sum(axis=1))])
        probability, mass = self.probability[rows, labels], self.mass[rows, labels]
        decision = np.where(mass < 0.5, "unknown", np.where(probability > 0.5, "yes", "no"))
        by = self.proposed[:, rows, labels].T
        which = np.nonzero(by)[1]
        group = pa.array([f"{arm}/{label // 12}" for arm in ARMS for label in range(len(self.names))])
        at = np.nonzero(by)[0]
        voters = pa.array(np.concatenate([[0], np.cumsum(by.sum(axis=1))]).astype(np.int32))
        entry = kind.value_type
        columns = [
            self.names.take(pa.array(labels)),
            pa.array(decision, pa.string()),
            pa.array(probability),
            pa.array(mass),
            pa.array(probability),
            pa.ListArray.from_arrays(voters, pa.array(ARMS).take(pa.array(which))),
            pa.ListArray.from_arrays(voters, group.take(pa.array(which * len(self.names) + labels[at]))),
            pa.array(["model"]).take(pa.array(np.zeros(len(rows), np.int64))),
        ]
        columns = [each.cast(field.type) for each, field in zip(columns, entry, strict=True)]
        values = pa.StructArray.from_arrays(columns, fields=list(entry))
        return pa.ListArray.from_arrays(
            pa.array(starts.astype(np.int32)), values, type=kind, mask=pa.array(self.failed)
        )
