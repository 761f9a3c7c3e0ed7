"""The images and labels of a table that are exported: all formats agree on what an example is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tagllm_cli.errors import UsageError
from tagllm_cli.export.chunks import COLUMNS, ENTRY_COLUMNS, UNKNOWN, YES, Chunk, Example, Rules, chunk_of
from tagllm_cli.export.groups import Groups
from tagllm_cli.export.names import selected
from tagllm_cli.export.settings import ExportSettings
from tagllm_cli.export.splits import Splits
from tagllm_cli.export.summary import ExportSummary
from tagllm_cli.labeling.answers.parse_yes_no import as_stored
from tagllm_cli.sources.folder import is_below
from tagllm_cli.vocabulary.model import Label

if TYPE_CHECKING:
    from tagllm_cli.store.table import Table, TableInfo

_ROWS, _ENTRIES = 8192, 1 << 20  # of a chunk


class Examples:
    """The answered images of a table, in its order, counted as they are read.

    Images that failed or are pending are left out: nothing is known about them, which is not the same as no labels.
    `vocabulary` has the labels by ascending permanent id, and `ids` these ids: a label that is added later gets the
    next one wherever it stands in the vocabulary. Raises UsageError for a candidate table without a threshold, since
    nothing in it is decided, and for labels that are not in the vocabulary.
    """

    def __init__(self, table: Table, settings: ExportSettings) -> None:
        _check_decided(table, settings)
        self._table = table
        self._settings = settings
        self.notes: Sequence[str] = ()
        names = table.info.vocabulary.names
        wanted = selected(settings.labels, names, str(table.path)) if settings.labels else frozenset(names)
        numbered = {number: label for number, label in numbered_labels(table.info).items() if label.name in wanted}
        self.ids = tuple(numbered)
        self.vocabulary = tuple(numbered.values())
        self._rules = self._read_rules()
        self._splits = Splits.of(settings.split, settings.seed) if settings.split else None
        self._images = self._labels = self._unknown = self._elsewhere = self._human = 0
        self._by_label = [0] * len(self.vocabulary)
        self._left_out: Counter[str] = Counter()
        self._in_split: Counter[str] = Counter()

    def __iter__(self) -> Iterator[Example]:
        for chunk in self.chunks():
            yield from chunk.examples()

    def chunks(self) -> Iterator[Chunk]:
        """Yield the same as columns of numbers, some thousand images at a time."""
        yield from self._chunks()

    def named_chunks(self) -> Iterator[tuple[Chunk, list[str]]]:
        """Yield chunks with the paths of their images' files, as `with_file_names` names them."""
        for chunk in self._chunks(self._unnamed):
            names = self._file_names(chunk)
            self._elsewhere += sum(map(_is_elsewhere, names))
            yield chunk, names

    def _chunks(self, *more: Callable[[Chunk], Sequence[str]]) -> Iterator[Chunk]:
        """Yield chunks of what is kept; `more` are further reasons to leave images out."""
        rows = min(_ROWS, max(1, _ENTRIES // max(1, len(self._table.info.vocabulary.labels))))
        groups = Groups(self._table, self._settings) if self._splits else None
        for batch in self._table.batches(rows, self._table.columns(COLUMNS, ENTRY_COLUMNS)):
            splits = [self._splits.split_of(key) for key in groups.keys(batch)] if self._splits and groups else ()
            chunk = self._kept(chunk_of(batch, self._rules, self._table.path), splits, more)
            self._count(chunk)
            if len(chunk):
                yield chunk
        if groups is not None:
            self.notes = [*self.notes, *groups.notes]

    def with_file_names(self) -> Iterator[tuple[Example, str]]:
        """Yield the examples with the paths of their files, for formats that name files and do not hold them.

        A path is relative to the source root; that of a member of a shard is its id: where it lies once each shard is
        unpacked into a folder of the shard's name. Manifests may name a URL or any path. A member whose path leads out
        of that folder is left out.
        """
        for chunk, names in self.named_chunks():
            yield from zip(chunk.examples(), names, strict=True)

    def drop(self, example: Example, reason: str) -> None:
        """Take an example back that cannot be exported after all."""
        self._images -= 1
        self._labels -= len(example.labels)
        self._unknown -= len(example.unknown)
        self._human -= len(example.human)
        for place in example.labels:
            self._by_label[place] -= 1
        if example.split:
            self._in_split[example.split] -= 1
        self._left_out[reason] += 1

    def summary(self, files: Iterable[Path]) -> ExportSummary:
        """Return the counts of what was read so far."""
        names = [self._settings.only] if self._settings.only else self._splits.names if self._splits else ()
        return ExportSummary(
            tuple(files),
            self._images,
            self._labels,
            self._unknown,
            dict(sorted(self._left_out.items())),
            self._elsewhere,
            self.notes,
            {self.vocabulary[place].name: count for place, count in enumerate(self._by_label) if count},
            self._human,
            splits={name: self._in_split[name] for name in names},
        )

    def _read_rules(self) -> Rules:
        settings, names = self._settings, self._table.info.vocabulary.names
        thresholds: dict[str, float] | None = None
        if settings.thresholds is not None:
            from tagllm_cli.labeling.threshold_file import thresholds_for

            limits, self.notes = thresholds_for(self._table, settings.thresholds, settings.threshold)
            thresholds = {name: as_stored(limits.of(name)) for name in names}
        elif settings.threshold is not None:
            thresholds = dict.fromkeys(names, as_stored(settings.threshold))
        place = {label.name: index for index, label in enumerate(self.vocabulary)}
        return Rules(place, frozenset(names), thresholds, settings.min_probability, settings.unknown == "yes")

    def _kept(self, chunk: Chunk, splits: Sequence[str], more: Iterable[Callable[[Chunk], Sequence[str]]]) -> Chunk:
        """Return the chunk without what belongs to another split or is left out, which is counted."""
        import numpy as np

        chunk = replace(chunk, splits=splits)
        if self._settings.only:
            chunk = chunk.taken(np.array([split == self._settings.only for split in splits], np.bool_))
        for why in (_unanswered, self._misnamed, *more, self._undecided):
            reasons = why(chunk)
            if any(reasons):
                self._left_out.update(filter(None, reasons))
                chunk = chunk.taken(np.array([not reason for reason in reasons], np.bool_))
        return chunk

    def _misnamed(self, chunk: Chunk) -> Sequence[str]:
        """No listing of a folder has a path that leads out of it: whoever reads the export would be led there."""
        if self._table.info.source.kind != "folder":
            return ()
        return ["" if is_below(uri) else "bad_name" for uri in chunk.batch["uri"].to_pylist()]

    def _file_names(self, chunk: Chunk) -> list[str]:
        names: list[str] = chunk.batch[path_column(self._table.info.source.kind)].to_pylist()
        return names

    def _unnamed(self, chunk: Chunk) -> Sequence[str]:
        if self._table.info.source.kind == "manifest":
            return ()
        return ["bad_name" if _is_elsewhere(name) else "" for name in self._file_names(chunk)]

    def _undecided(self, chunk: Chunk) -> Sequence[str]:
        if self._settings.unknown != "drop":
            return ()
        undecided = set(chunk.image[chunk.state == UNKNOWN].tolist())
        return ["undecided" if image in undecided else "" for image in range(len(chunk))]

    def _count(self, chunk: Chunk) -> None:
        import numpy as np

        places = chunk.place[chunk.state == YES]
        self._images += len(chunk)
        self._labels += len(places)
        self._unknown += int(np.count_nonzero(chunk.state == UNKNOWN))
        self._human += int(np.count_nonzero(chunk.human))
        for place, count in enumerate(np.bincount(places).tolist()):
            self._by_label[place] += count
        self._in_split.update(chunk.splits)


def path_column(kind: str) -> str:
    """Return the column of a table that holds the paths of its images, by the kind of its source.

    >>> path_column("folder"), path_column("tar")
    ('uri', 'image_id')
    """
    return "uri" if kind in ("folder", "manifest") else "image_id"


def _is_elsewhere(name: str) -> bool:
    return "://" in name or not is_below(name)


def _unanswered(chunk: Chunk) -> Sequence[str]:
    answered = chunk.batch["answered"]
    if answered.true_count == len(chunk):
        return ()
    both = zip(answered.to_pylist(), chunk.batch["status"].to_pylist(), strict=True)
    return ["" if is_answered else status for is_answered, status in both]


def _check_decided(table: Table, settings: ExportSettings) -> None:
    threshold = settings.threshold
    if threshold is not None and not 0 <= threshold < 1:
        raise UsageError(
            f"the threshold {threshold} is not from 0 to below 1",
            "Labels with a score above it are exported, and scores end at 1.",
        )
    if table.info.stage != "labels" and threshold is None and settings.thresholds is None:
        hint = "Run `tagllm disambiguate` on it, or give a --threshold for the share of arms."
        raise UsageError(f"{table.path} is a candidate table: nothing in it is decided", hint)


def numbered_labels(info: TableInfo) -> dict[int, Label]:
    """Return a table's labels by permanent id, ascending; by position where the table has no ids (older releases)."""
    ids = info.plan.get("label_ids") or {}
    if not all(name in ids for name in info.vocabulary.names):
        ids = {name: position for position, name in enumerate(info.vocabulary.names)}
    return dict(sorted(((ids[label.name], label) for label in info.vocabulary.labels), key=lambda item: item[0]))
