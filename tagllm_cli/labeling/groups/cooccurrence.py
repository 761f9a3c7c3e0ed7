"""Which labels share an image: counted over a label table, or read from a file of scenes.

A file of scenes is YAML: `scenes:` is a list of mappings with `name` and `labels`, the labels that are often seen there
together; `vocabulary` and `author` say where it comes from. A person writes it, or `tagllm vocab scenes` has an LLM
propose it.

Affinity is the Ochiai coefficient: a_ij = c_ij / sqrt(c_i c_j), with c_i the images (or scenes) that hold label i and
c_ij those that hold both. Source: Ochiai, Bulletin of the Japanese Society of Scientific Fisheries 22 (1957), 526-530.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from tagllm_cli.errors import UsageError, VocabularyError
from tagllm_cli.labeling.groups.partition import affinity_by_parent
from tagllm_cli.records import Decision
from tagllm_cli.resources import UserModel, in_one_line, read_yaml, validated
from tagllm_cli.store.table import Table, open_table
from tagllm_cli.text import shortened
from tagllm_cli.vocabulary.forms import folded
from tagllm_cli.vocabulary.model import Vocabulary

ROWS_PER_BATCH = 16_384
ENTRIES_PER_BATCH = 2**21  # at most: of `binary`, every row lists every label

_Indices = npt.NDArray[np.int64]
# Which label is in which image of some images: parallel arrays of image numbers and of label positions.
_Members = tuple[_Indices, _Indices]


@dataclass(frozen=True, slots=True)
class Cooccurrence:
    """How often the labels of a vocabulary share an image.

    `affinity` is float32 [L, L] in [0, 1], symmetric, 1 on the diagonal, in the vocabulary's order. `about` names
    its origin, for messages and the plan; `notes` are sentences about labels that the file or the vocabulary lacks.
    """

    affinity: npt.NDArray[np.float32]
    about: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Scene:
    """A kind of place or situation, and the labels that are often seen in it together."""

    name: str
    labels: tuple[str, ...]


_Text = Annotated[str, Field(min_length=1, pattern=r"\S")]


class _SceneModel(UserModel):
    name: _Text
    labels: Annotated[tuple[_Text, ...], Field(min_length=1)]


class _ScenesModel(UserModel):
    vocabulary: str = ""
    author: str = ""
    scenes: list[_SceneModel]


def load_cooccurrence(path: Path, vocabulary: Vocabulary) -> Cooccurrence:
    """Return how often labels share an image in a label or candidate table, or a scene in a YAML file of scenes.

    Names are matched exactly, else with case, spaces and hyphens left aside. A label counts where the table decides
    yes or, in a candidate table, where it is proposed. A pair with a label that the file never shows takes the
    affinity of the parents, times the factor that fits it best (least squares) to the counted affinities of the other
    pairs; where no such pair has a parent in common, the mean of the counted ones is the factor. Memory depends on the
    labels, not on the images. Raises UsageError for a file that cannot be used or shows no label of the vocabulary.
    """
    if path.suffix.lower() in (".yaml", ".yml"):
        scenes = load_scenes(path)
        theirs = tuple(dict.fromkeys(name for scene in scenes for name in scene.labels))
        members, what = iter([_scene_members(scenes, theirs)]), "scenes"
    else:
        table = open_table(path)
        theirs = table.info.vocabulary.names
        members, what = _table_members(table), "images"
    own = _matched(theirs, vocabulary)
    shared, alone, together = _count(((images, own[labels]) for images, labels in members), len(vocabulary.names))
    shown = alone > 0
    if not shown.any():
        raise UsageError(
            f"{path} shows no label of {vocabulary.name}",
            "Give a table or a file of scenes whose labels the vocabulary shares.",
        )
    affinity = _ochiai(alone, together)
    if not shown.all():
        _fill(affinity, shown, affinity_by_parent(vocabulary))
    notes = []
    if unseen := [name for name, info in zip(vocabulary.names, shown, strict=True) if not info]:
        notes.append(f"{path.name} never shows {shortened(unseen)}: their parents say what they are related to")
    if foreign := [name for name, label in zip(theirs, own, strict=True) if label < 0]:
        notes.append(f"{vocabulary.name} lacks {shortened(foreign)} of {path.name}: not used")
    return Cooccurrence(affinity, f"{path.name}, {shared:,} {what}", tuple(notes))


@dataclass(frozen=True, slots=True)
class PairCounts:
    """How many images hold any label of a table, each label [L], and each pair of labels [L, L], symmetric."""

    images: int
    alone: npt.NDArray[np.int64]
    together: npt.NDArray[np.int32]


def count_pairs(table: Table) -> PairCounts:
    """Count labels and pairs of labels in a table; memory depends on the labels, not on the images."""
    images, alone, together = _count(_table_members(table), len(table.info.vocabulary.names))
    together += together.T
    return PairCounts(images, alone, together)


def load_scenes(path: Path) -> tuple[Scene, ...]:
    """Return the scenes of a YAML file. Raises VocabularyError, with the place, for a key or a value that is wrong."""
    found, problems = validated(_ScenesModel, read_yaml(path))
    if found is None:
        raise VocabularyError(
            f"{path}: {in_one_line(problems)}",
            "A file of scenes has the key `scenes`, a list of mappings with `name` and `labels`, a list of names.",
        )
    return tuple(Scene(each.name, each.labels) for each in found.scenes)


def _scene_members(scenes: Sequence[Scene], names: Sequence[str]) -> _Members:
    position = {name: index for index, name in enumerate(names)}
    numbers = [number for number, scene in enumerate(scenes) for _ in scene.labels]
    labels = [position[name] for scene in scenes for name in scene.labels]
    return np.array(numbers, dtype=np.int64), np.array(labels, dtype=np.int64)


def _table_members(table: Table) -> Iterator[_Members]:
    """Yield who is in which image of a table, batch by batch, as positions in the table's own vocabulary."""
    import pyarrow as pa
    import pyarrow.compute as pc

    names = pa.array(table.info.vocabulary.names, pa.string())
    rows = min(ROWS_PER_BATCH, max(1, ENTRIES_PER_BATCH // len(names)))
    columns = [f"labels.list.element.{field}" for field in ("name", "decision")]
    for batch in table.batches(rows, columns):
        column = batch.column("labels")  # null where nothing can be said
        images, entries = pc.list_parent_indices(column), pc.list_flatten(column)
        decision = pc.struct_field(entries, "decision")
        says = pc.is_null(decision) if table.info.stage == "candidates" else pc.equal(decision, Decision.YES.value)
        labels = pc.index_in(pc.struct_field(entries, "name"), value_set=names)
        present = pc.fill_null(says, False).to_numpy(zero_copy_only=False)
        yield images.to_numpy()[present], labels.to_numpy()[present].astype(np.int64)


def _matched(names: Sequence[str], vocabulary: Vocabulary) -> _Indices:
    """Return the position in the vocabulary of each name, -1 for one that it lacks."""
    exact = {name: index for index, name in enumerate(vocabulary.names)}
    alike: dict[str, int] = {}
    for name, index in exact.items():
        alike[folded(name)] = -1 if folded(name) in alike else index  # a form that two labels share is neither
    return np.array([exact.get(name, alike.get(folded(name), -1)) for name in names], dtype=np.int64)


def _count(batches: Iterable[_Members], size: int) -> tuple[int, _Indices, npt.NDArray[np.int32]]:
    """Return how many images hold any label, each label [size], and each pair [size, size], above the diagonal."""
    shared, one = 0, np.int32(1)  # of the matrix's own type: with another, `add.at` takes 30 times as long
    alone, together = np.zeros(size, dtype=np.int64), np.zeros((size, size), dtype=np.int32)
    for images, labels in batches:
        known = labels >= 0
        # Sorted by image and label, each once: two names of a file may be one label.
        cells = np.sort(images[known] * size + labels[known])
        images, labels = np.divmod(cells[np.diff(cells, prepend=-1) > 0], size)
        shared += int(np.count_nonzero(np.diff(images, prepend=-1)))
        alone += np.bincount(labels, minlength=size)
        step = 1
        while (same := images[step:] == images[:-step]).any():
            np.add.at(together.ravel(), labels[:-step][same] * size + labels[step:][same], one)
            step += 1
    return shared, alone, together


def _ochiai(alone: _Indices, together: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
    """Return the affinity [L, L], row by row: 10,000 labels are 400 MB."""
    scale = 1 / np.sqrt(np.maximum(alone, 1))
    affinity = np.empty(together.shape, dtype=np.float32)
    for index in range(len(together)):
        affinity[index] = (together[index] + together[:, index]) * scale * scale[index]
    np.minimum(affinity, 1, out=affinity)
    np.fill_diagonal(affinity, 1)
    return affinity


def _fill(affinity: npt.NDArray[np.float32], shown: npt.NDArray[np.bool_], parents: npt.NDArray[np.float32]) -> None:
    """Give the pairs of labels that were never shown what their parents say, in place, on the scale of the others."""
    fit = squares = total = 0.0
    for index in np.flatnonzero(shown):
        others = shown.copy()
        others[index] = False
        counted, related = affinity[index, others].astype(np.float64), parents[index, others].astype(np.float64)
        fit, squares, total = fit + counted @ related, squares + related @ related, total + counted.sum()
    pairs = max(1, int(shown.sum()) * (int(shown.sum()) - 1))
    factor = np.float32(fit / squares if squares else total / pairs)
    for index in np.flatnonzero(~shown):
        affinity[index] = affinity[:, index] = np.minimum(parents[index] * factor, 1)
    np.fill_diagonal(affinity, 1)
