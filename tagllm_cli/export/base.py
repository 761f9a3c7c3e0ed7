"""What all export formats share: the images and labels that are exported, their numbers, and how files are replaced.

All formats agree on what an example is (`Examples`); outputs are put in place by `store.atomic.replacing`.
Imports nothing heavy, and neither does a format's module: the command line lists the formats in its help.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tagllm_cli.errors import TableError, UsageError
from tagllm_cli.labeling.answers.parse_yes_no import as_stored, is_yes
from tagllm_cli.records import Decision, LabelEntry, Row
from tagllm_cli.sources.folder import is_below
from tagllm_cli.vocabulary.model import Label

if TYPE_CHECKING:
    from tagllm_cli.store.table import Table, TableInfo


@dataclass(frozen=True, slots=True)
class ExportSettings:
    """What counts as a label of an image, and where the images are.

    `threshold` in [0, 1) takes the labels whose score is above it; None takes the decisions `yes`. Human decisions
    stand in any case. An undecided label is exported as present with `include_unknown` only. `root` is where the
    images are now, for the format that copies them (None: where the table says); `embed` copies them into it.
    `thresholds` is a file of thresholds of single labels (`tagllm calibrate`); `threshold` is then that of the others.
    """

    root: str | None = None
    threshold: float | None = None
    include_unknown: bool = False
    embed: bool = True
    thresholds: Path | None = None


@dataclass(frozen=True, slots=True)
class ExportSummary:
    """What an export wrote, and why it left images out, counted by reason (`failed`, `pending`, ...).

    `elsewhere` counts the images whose file names are URLs or paths that do not lie below the source root. `by_label`
    counts labels by name; `card` is the dataset card, which was left alone where somebody edited it (`card_kept`).
    """

    files: tuple[Path, ...]
    images: int
    labels: int
    unknown: int
    left_out: Mapping[str, int] = field(default_factory=dict)
    elsewhere: int = 0
    notes: Sequence[str] = ()
    by_label: Mapping[str, int] = field(default_factory=dict)
    human: int = 0
    card: Path | None = None
    card_kept: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values under stable keys."""
        return {
            "files": [str(path) for path in self.files],
            "images": self.images,
            "labels": self.labels,
            "unknown": self.unknown,
            "left_out": dict(self.left_out),
            "elsewhere": self.elsewhere,
            "card": None if self.card is None else str(self.card),
            "card_kept": self.card_kept,
        }

    def lines(self) -> list[str]:
        """Return the same as lines of text."""
        lines = [f"exported {self.images:,} images with {self.labels:,} labels: {', '.join(map(str, self.files))}"]
        if self.unknown:
            lines.append(f"{self.unknown:,} labels are undecided")
        if self.elsewhere:
            lines.append(f"{self.elsewhere:,} images are named by a URL, or by a path that leads out of the source")
        lines += [f"left out {count:,} images: {reason}" for reason, count in self.left_out.items()]
        if self.card_kept:
            lines.append(f"{self.card} is not as tagllm wrote it, and was left alone")
        return lines


@dataclass(frozen=True, slots=True)
class Format:
    """An export format: its name, one phrase for the command line's help, and what writes it.

    `export(table, out, settings)` raises UsageError for what cannot be exported and for an occupied `out`: one that
    holds something, and not `is_ours(out)`, an earlier export in this format.
    """

    name: str
    help: str
    export: Callable[[Table, Path, ExportSettings], ExportSummary]
    is_ours: Callable[[Path], bool]


@dataclass(frozen=True, slots=True)
class Example:
    """An answered image. `labels` and `unknown` are ascending positions in `Examples.vocabulary`.

    `scores` in [0, 1] are those of `labels`.
    """

    row: Row
    labels: tuple[int, ...]
    scores: tuple[float, ...]
    unknown: tuple[int, ...]


class Examples:
    """The answered images of a table, in its order, counted as they are read.

    Images that failed or are pending are left out: nothing is known about them, which is not the same as no labels.
    `vocabulary` has the labels by ascending permanent id, and `ids` these ids: a label that is added later gets the
    next one wherever it stands in the vocabulary. Raises UsageError for a candidate table without a threshold, since
    nothing in it is decided.
    """

    def __init__(self, table: Table, settings: ExportSettings) -> None:
        threshold = settings.threshold
        if threshold is not None and not 0 <= threshold < 1:
            raise UsageError(
                f"the threshold {threshold} is not from 0 to below 1",
                "Labels with a score above it are exported, and scores end at 1.",
            )
        if table.info.stage != "labels" and threshold is None and settings.thresholds is None:
            hint = "Run `tagllm disambiguate` on it, or give a --threshold for the share of arms."
            raise UsageError(f"{table.path} is a candidate table: nothing in it is decided", hint)
        self._table = table
        self._settings = settings
        self._thresholds: dict[str, float] | None = None
        self.notes: Sequence[str] = ()
        if settings.thresholds is not None:
            from tagllm_cli.labeling.threshold_file import thresholds_for

            limits, self.notes = thresholds_for(table, settings.thresholds, threshold)
            self._thresholds = {name: as_stored(limits.of(name)) for name in table.info.vocabulary.names}
        elif threshold is not None:
            self._thresholds = dict.fromkeys(table.info.vocabulary.names, as_stored(threshold))
        numbered = numbered_labels(table.info)
        self.ids = tuple(numbered)
        self.vocabulary = tuple(numbered.values())
        self._position = {label.name: index for index, label in enumerate(self.vocabulary)}
        self._images = self._labels = self._unknown = self._elsewhere = self._human = 0
        self._by_label: Counter[int] = Counter()
        self._left_out: Counter[str] = Counter()

    def __iter__(self) -> Iterator[Example]:
        for row in self._table.rows():
            if row.labels is None:
                self._left_out[row.status.value] += 1
                continue
            if self._table.info.source.kind == "folder" and not is_below(row.uri):
                # No listing has such a path: whoever reads the export would be led out of the images' folder.
                self._left_out["bad_name"] += 1
                continue
            entries = {self._place(entry): entry for entry in row.labels}
            unknown = {place for place, entry in entries.items() if entry.decision == Decision.UNKNOWN}
            present = {place for place, entry in entries.items() if self._is_present(entry)}
            labels = tuple(sorted(present | unknown if self._settings.include_unknown else present))
            scores = tuple(round(entries[place].score, 6) for place in labels)
            example = Example(row, labels, scores, tuple(sorted(unknown - set(labels))))
            self._count(example, 1)
            yield example

    def with_file_names(self) -> Iterator[tuple[Example, str]]:
        """Yield the examples with the paths of their files, for formats that name files and do not hold them.

        A path is relative to the source root; that of a member of a shard is its id: where it lies once each shard is
        unpacked into a folder of the shard's name. Manifests may name a URL or any path. A member whose path leads out
        of that folder is left out.
        """
        kind = self._table.info.source.kind
        for example in self:
            name = example.row.uri if kind in ("folder", "manifest") else example.row.image_id
            is_elsewhere = "://" in name or not is_below(name)
            if is_elsewhere and kind != "manifest":
                self.drop(example, "bad_name")
            else:
                self._elsewhere += is_elsewhere
                yield example, name

    def drop(self, example: Example, reason: str) -> None:
        """Take an example back that cannot be exported after all."""
        self._count(example, -1)
        self._left_out[reason] += 1

    def summary(self, files: Iterable[Path]) -> ExportSummary:
        """Return the counts of what was read so far."""
        return ExportSummary(
            tuple(files),
            self._images,
            self._labels,
            self._unknown,
            dict(sorted(self._left_out.items())),
            self._elsewhere,
            self.notes,
            {self.vocabulary[place].name: count for place, count in self._by_label.items() if count},
            self._human,
        )

    def _place(self, entry: LabelEntry) -> int:
        if entry.name not in self._position:
            raise TableError(f"{self._table.path} has the label {entry.name!r}, which its own vocabulary lacks")
        return self._position[entry.name]

    def _is_present(self, entry: LabelEntry) -> bool:
        if self._thresholds is None or entry.source == "human":
            return entry.decision == Decision.YES
        return entry.decision != Decision.UNKNOWN and is_yes(entry.score, self._thresholds[entry.name])

    def _count(self, example: Example, times: int) -> None:
        self._images += times
        self._labels += times * len(example.labels)
        self._unknown += times * len(example.unknown)
        self._human += times * sum(entry.source == "human" for entry in example.row.labels or ())
        for place in example.labels:
            self._by_label[place] += times


def export_card(table: Table, summary: ExportSummary, settings: ExportSettings, data_files: str = "") -> str:
    """Return the dataset card of an export; `data_files` is what `datasets` loads beside it."""
    import tagllm_cli
    from tagllm_cli.store.dataset_card import CardFacts, card_text

    facts = CardFacts(
        summary.images,
        summary.by_label,
        unknown=summary.unknown,
        human=summary.human,
        left_out=summary.left_out,
        threshold=settings.threshold,
        data_files=data_files,
    )
    return card_text(table.info, facts, tagllm_cli.__version__)


def numbered_labels(info: TableInfo) -> dict[int, Label]:
    """Return a table's labels by permanent id, ascending; by position where the table has no ids (older releases)."""
    ids = info.plan.get("label_ids") or {}
    if not all(name in ids for name in info.vocabulary.names):
        ids = {name: position for position, name in enumerate(info.vocabulary.names)}
    return dict(sorted(((ids[label.name], label) for label in info.vocabulary.labels), key=lambda item: item[0]))
