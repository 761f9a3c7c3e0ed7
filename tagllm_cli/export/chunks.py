"""Rows of a table as columns of numbers: what each label of each image is after the export's settings.

A million rows take seconds this way, and minutes as Python objects. Imports numpy and pyarrow in functions only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from tagllm_cli.errors import TableError
from tagllm_cli.labeling.answers.parse_yes_no import as_stored, is_yes
from tagllm_cli.records import Decision
from tagllm_cli.store.damage import damage_as_table_error

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

YES, NO, UNKNOWN = 1, 0, -1
COLUMNS = ("image_id", "uri", "fingerprint", "width", "height", "status", "labels")
ENTRY_COLUMNS = ("name", "decision", "probability", "score", "source")
_NOBODY: frozenset[int] = frozenset()
_SCORE_DIGITS = 6  # of float32


class ImageRow(NamedTuple):
    """What an export knows about an image beside its labels; width and height are 0 where they are not known."""

    image_id: str
    uri: str
    fingerprint: bytes
    width: int
    height: int
    status: str


class Example(NamedTuple):
    """An image with labels. `labels` and `unknown` are ascending positions in `Examples.vocabulary`.

    `scores` in [0, 1] are those of `labels`, 1 where a person said yes. `human` are the positions that people decided,
    no among them. `split` is "" without --split.
    """

    row: ImageRow
    labels: tuple[int, ...]
    scores: tuple[float, ...]
    unknown: tuple[int, ...]
    human: frozenset[int] = _NOBODY
    split: str = ""


@dataclass(frozen=True, slots=True)
class Rules:
    """What makes a label present, absent or undecided.

    `place` has the position of each label that is exported, by name, and `known` all names of the vocabulary.
    `thresholds`, by name, take the place of the decisions where they are given. A `yes` of the model with a probability
    below `least` is undecided; with `count_unknown` what the model left undecided is a yes.
    """

    place: Mapping[str, int]
    known: frozenset[str]
    thresholds: Mapping[str, float] | None = None
    least: float | None = None
    count_unknown: bool = False


@dataclass(frozen=True)
class Chunk:
    """Some images and what is said about their labels, sorted by image and position.

    Of the arrays [entries], `image` is the number of a row of `batch` (int64), `place` a position in the vocabulary
    (int64), `state` YES, NO or UNKNOWN (int8), `score` and `probability` in [0, 1] (float32; nan: there is none), and
    `human` whether a person decided (bool). `splits` are those of the images, () without --split.
    """

    batch: pa.RecordBatch
    image: npt.NDArray[np.int64]
    place: npt.NDArray[np.int64]
    state: npt.NDArray[np.int8]
    score: npt.NDArray[np.float32]
    probability: npt.NDArray[np.float32]
    human: npt.NDArray[np.bool_]
    splits: Sequence[str] = ()

    def __len__(self) -> int:
        return int(self.batch.num_rows)

    @cached_property
    def rows(self) -> list[ImageRow]:
        """The images."""
        import pyarrow.compute as pc

        filled = {"fingerprint": b"", "width": 0, "height": 0}
        columns = [pc.fill_null(self.batch[name], value) for name, value in filled.items()]
        texts = (self.batch["image_id"], self.batch["uri"], *columns, self.batch["status"])
        return list(map(ImageRow._make, zip(*(column.to_pylist() for column in texts), strict=True)))

    def taken(self, kept: npt.NDArray[np.bool_]) -> Chunk:
        """Return the chunk with the images for which `kept` is true."""
        import numpy as np
        import pyarrow as pa

        entries = kept[self.image]
        number = np.cumsum(kept) - 1
        splits = [split for split, keep in zip(self.splits, kept, strict=True) if keep] if self.splits else ()
        return Chunk(
            self.batch.filter(pa.array(kept)),
            number[self.image[entries]],
            self.place[entries],
            self.state[entries],
            self.score[entries],
            self.probability[entries],
            self.human[entries],
            splits,
        )

    def examples(self) -> Iterator[Example]:
        """Yield the images one by one."""
        labels = self._lists(self.state == YES)
        scores = self._lists(self.state == YES, self.exported_scores())
        unknown = self._lists(self.state == UNKNOWN)
        humans = map(frozenset, self._lists(self.human)) if self.human.any() else [_NOBODY] * len(self)
        splits = self.splits or [""] * len(self)
        yield from map(Example._make, zip(self.rows, labels, scores, unknown, humans, splits, strict=True))

    def exported_scores(self) -> npt.NDArray[np.float64]:
        """Return the scores of all entries, [entries], rounded to what float32 holds."""
        import numpy as np

        return np.asarray(np.round(np.asarray(self.score, np.float64), _SCORE_DIGITS), np.float64)

    def _lists(self, chosen: npt.NDArray[np.bool_], values: npt.NDArray[Any] | None = None) -> list[tuple[Any, ...]]:
        """Return the values (default: the positions) of the chosen entries, a tuple per image."""
        import numpy as np

        ends = np.cumsum(np.bincount(self.image[chosen], minlength=len(self))).tolist()
        flat = tuple((self.place if values is None else values)[chosen].tolist())
        if not flat:
            return [()] * len(self)
        return [flat[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def chunk_of(batch: pa.RecordBatch, rules: Rules, path: Any) -> Chunk:
    """Return what a batch of a table says after the rules.

    `batch` has the columns COLUMNS. Raises TableError for labels that the vocabulary lacks and for decisions that
    are none.
    """
    import numpy as np
    import pyarrow.compute as pc

    counts = pc.fill_null(pc.list_value_length(batch["labels"]), 0).to_numpy()
    entries = batch["labels"].flatten()
    field = {name: pc.struct_field(entries, name) for name in ENTRY_COLUMNS}
    place = _coded(field["name"], _places(rules, path))
    human = _coded(field["source"], lambda name: name == "human").astype(np.bool_)
    score = field["score"].to_numpy(zero_copy_only=False)
    probability = pc.fill_null(field["probability"], float("nan")).to_numpy(zero_copy_only=False)
    with damage_as_table_error(path):
        state = _states(rules, field["decision"], human, place, score, probability)
    image = np.repeat(np.arange(len(counts)), counts)
    order = np.lexsort((place, image))
    # Of a label that stands twice in a row, which no table of ours does, the last counts.
    last = np.append((np.diff(image[order]) != 0) | (np.diff(place[order]) != 0), True)[: len(order)]
    order = order[last & (place[order] >= 0)]
    score = np.where(human & (state != UNKNOWN), state, score).astype(np.float32)  # 1 for yes, 0 for no
    columns = (image, place, state, score, probability, human)
    images = batch.drop_columns(["labels"]).append_column("answered", batch["labels"].is_valid())
    return Chunk(images, *(column[order] for column in columns))


def _places(rules: Rules, path: Any) -> Any:
    def place(name: str) -> int:
        if name not in rules.known:
            raise TableError(f"{path} has the label {name!r}, which its own vocabulary lacks")
        return rules.place.get(name, -1)

    return place


def _coded(texts: Any, number: Any) -> npt.NDArray[np.int64]:
    """Return a number for each text, which is asked for once per distinct text."""
    import numpy as np

    coded = texts.dictionary_encode(null_encoding="encode")
    numbers = np.array([number(each) for each in coded.dictionary.to_pylist()], np.int64)
    found: npt.NDArray[np.int64] = numbers[coded.indices.to_numpy()]
    return found


def _said(decision: str | None) -> int:
    return (
        NO if decision is None else {Decision.YES: YES, Decision.UNKNOWN: UNKNOWN, Decision.NO: NO}[Decision(decision)]
    )


def _states(
    rules: Rules,
    decisions: Any,
    human: npt.NDArray[np.bool_],
    place: npt.NDArray[np.int64],
    score: npt.NDArray[np.float32],
    probability: npt.NDArray[np.float32],
) -> npt.NDArray[np.int8]:
    import numpy as np

    said = state = _coded(decisions, _said).astype(np.int8)
    if rules.thresholds is not None:
        limits = np.array([rules.thresholds[name] for name in rules.place] or [0], np.float32)
        by_score = np.where(is_yes(score, limits[place]), YES, NO)  # type: ignore[arg-type]
        state = np.where(human | (said == UNKNOWN), said, by_score).astype(np.int8)
    low = np.zeros(len(state), np.bool_)
    if rules.least is not None:
        sure = np.where(np.isnan(probability), score, probability)
        low = (state == YES) & ~human & (sure < np.float32(as_stored(rules.least)))
    if rules.count_unknown:  # a person's `unknown` stands: it cannot be told
        state = np.where((state == UNKNOWN) & ~human, np.int8(YES), state)
    return np.where(low, np.int8(UNKNOWN), state)
