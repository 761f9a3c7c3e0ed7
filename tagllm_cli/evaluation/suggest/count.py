"""Two passes over the texts outside the vocabulary: how often each occurs, then in how many images each name does.

Memory depends on the different texts, of which the rarest are forgotten beyond MOST_TEXTS, not on the images. Only
where several tables are read is one number kept for each image of each name, so that an image counts once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tagllm_cli.evaluation.entry_arrays import Array, as_numpy
from tagllm_cli.evaluation.suggest.names import read_name
from tagllm_cli.records import Status
from tagllm_cli.store.damage import damage_as_table_error
from tagllm_cli.store.table import Table

MOST_TEXTS = 500_000  # different ones in memory
EXAMPLES = 3  # images of a name
_ROWS = 8192


@dataclass(slots=True)
class Texts:
    """What the first pass found: how often each name occurs, as it is folded, and each form in which it was written.

    `junk` counts texts by what they are instead of names, `samples` has a text of each kind; `answered` counts rows
    with an answer, of each table; `forgotten` tells that rare names were dropped.
    """

    names: Counter[str] = field(default_factory=Counter)
    junk: Counter[str] = field(default_factory=Counter)
    samples: dict[str, str] = field(default_factory=dict)
    answered: list[int] = field(default_factory=list)
    forgotten: bool = False

    def add(self, text: str, count: int) -> None:
        """Count a text."""
        found = read_name(text)
        if found.junk:
            self.junk[found.junk] += count
            self.samples.setdefault(found.junk, text)
        else:
            self.names[found.name] += count
            if len(self.names) > MOST_TEXTS:
                self.names = Counter(dict(self.names.most_common(MOST_TEXTS // 2)))
                self.forgotten = True


@dataclass(frozen=True, slots=True)
class Occurrences:
    """In how many images a name occurs, and the first of them."""

    images: int
    examples: tuple[str, ...]


def count_texts(tables: Sequence[Table]) -> Texts:
    """Count all texts outside the vocabulary. Raises TableError where a table is damaged."""
    found = Texts()
    for table in tables:
        answered = 0
        for batch in _batches(table, ["status", "unmatched"]):
            answered += int(pc.sum(pc.is_in(batch["status"], _KNOWN)).as_py() or 0)
            for each in pc.value_counts(pc.list_flatten(batch["unmatched"])).to_pylist():
                found.add(each["values"], each["counts"])
        found.answered.append(answered)
    return found


_KNOWN = pa.array([Status.OK.value, Status.PARTIAL.value], pa.string())


def count_images(tables: Sequence[Table], number_of: Mapping[str, int], size: int) -> list[Occurrences]:
    """Count the images of `size` names; `number_of` maps folded forms to the number of their name."""
    counts, examples = np.zeros(size, np.int64), [dict[str, None]() for _ in range(size)]
    seen: list[Array] = []  # (name, image) of all tables, where there are several
    for table in tables:
        for batch in _batches(table, ["image_id", "unmatched"]):
            texts = pc.list_flatten(batch["unmatched"]).dictionary_encode()
            numbers = np.array(
                [number_of.get(read_name(text).name, -1) for text in texts.dictionary.to_pylist()], np.int64
            )
            if not len(numbers):
                continue
            names = numbers[as_numpy(texts.indices)]
            rows = as_numpy(pc.list_parent_indices(batch["unmatched"]))
            cells = np.unique(rows[names >= 0].astype(np.int64) * size + names[names >= 0])
            rows, names = np.divmod(cells, size)
            _add_examples(batch["image_id"], rows, names, examples)
            if len(tables) == 1:
                counts += np.bincount(names, minlength=size)
            else:
                ids = np.fromiter(map(hash, batch["image_id"].to_pylist()), np.int64, len(batch))
                seen.append(np.stack([names, ids[rows]], axis=1))
    if seen:
        counts += np.bincount(np.unique(np.concatenate(seen), axis=0)[:, 0], minlength=size)
    return [Occurrences(int(count), tuple(images)) for count, images in zip(counts, examples, strict=True)]


def _add_examples(ids: pa.StringArray, rows: Array, names: Array, examples: list[dict[str, None]]) -> None:
    for name in np.unique(names).tolist():
        if len(examples[name]) < EXAMPLES:
            for row in rows[names == name][: EXAMPLES - len(examples[name])].tolist():
                examples[name][ids[row].as_py()] = None


def _batches(table: Table, columns: list[str]) -> Iterator[pa.RecordBatch]:
    with damage_as_table_error(table.path):
        yield from table.batches(_ROWS, columns)
