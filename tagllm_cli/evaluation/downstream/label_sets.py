"""The same images with what each label set says about them, cut into training and test images."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tagllm_cli.errors import UsageError
from tagllm_cli.evaluation.downstream.options import DownstreamOptions
from tagllm_cli.evaluation.entries import (
    ABSENT,
    HUMAN,
    NOT_JUDGED,
    PREDICTED,
    PRESENT,
    UNDECIDED,
    Array,
    Comparison,
    Entries,
    by_decisions,
    compare,
)
from tagllm_cli.evaluation.model_entries import entries_for
from tagllm_cli.evaluation.truth import TableContext, TruthOptions, load_truth
from tagllm_cli.evaluation.truth.names import NameIndex
from tagllm_cli.records import SourceInfo, Status
from tagllm_cli.store.table import Table, open_table

# Targets are bytes, a quarter of float32: 0 to CERTAIN are probabilities from 0 to 1.
CERTAIN = 254
UNJUDGED = 255

TRUTH = "truth"
LEAST_IMAGES = 20  # to train on, and to test on
VALIDATION_SHARE = 0.1

_ROWS = 8192


@dataclass(frozen=True, slots=True)
class LabelSet:
    """Labels to train on: `targets` uint8 [images, labels], UNJUDGED where nothing is said."""

    name: str
    targets: Array


@dataclass(frozen=True, slots=True)
class LabelSets:
    """Images that every label set and the truth speak of, in source order, and what each set says.

    `sets` holds the measured table first and the truth last. `is_test` and `is_validation` are bool [images];
    validation images are among those to train on. `left_out` counts images by reason.
    """

    source: SourceInfo
    ids: tuple[str, ...]
    uris: tuple[str, ...]
    fingerprints: tuple[bytes, ...]
    names: tuple[str, ...]
    sets: tuple[LabelSet, ...]
    is_test: Array
    is_validation: Array
    left_out: Mapping[str, int]
    labels_left_out: tuple[str, ...]

    def restricted(self, kept: Array, left_out: Mapping[str, int]) -> LabelSets:
        """Return the images where `kept` is true; `left_out` counts the others."""
        places = np.flatnonzero(kept).tolist()
        ids, uris, prints = (tuple(each[n] for n in places) for each in (self.ids, self.uris, self.fingerprints))
        return LabelSets(
            *(self.source, ids, uris, prints, self.names),
            tuple(LabelSet(each.name, each.targets[kept]) for each in self.sets),
            *(self.is_test[kept], self.is_validation[kept]),
            dict(Counter(self.left_out) + Counter(left_out)),
            self.labels_left_out,
        )

    def check(self) -> None:
        """Raise UsageError where there is too little to train on or to test on."""
        training, test = np.count_nonzero(~self.is_test), np.count_nonzero(self.is_test)
        if min(training, test) < LEAST_IMAGES:
            said = ", ".join(f"{count:,} {reason}" for reason, count in self.left_out.items())
            raise UsageError(
                f"too few images: {training} to train on and {test} to test on, of at least {LEAST_IMAGES} each",
                f"Left out: {said}." if said else "Give a truth for more images, or another --test-share.",
            )
        true = self.sets[-1].targets
        if not ((true == CERTAIN).any(0) & (true[self.is_test] == CERTAIN).any(0)).any():
            raise UsageError("the truth has not one label in a test image", "Give a truth for more images.")


def load_label_sets(
    table: Path,
    truth: Path,
    options: DownstreamOptions,
    truth_options: TruthOptions = TruthOptions(),  # noqa: B008
) -> LabelSets:
    """Read the tables and the truth, and match them image by image and label by label.

    An image counts if every table has answers about the same bytes (`ok` or `partial`) and the truth knows it; a label,
    if all of them know it. Raises UsageError for files that cannot be used or have nothing in common.
    """
    opened = open_table(table)
    entries = entries_for(opened, human_only=truth_options.human_only)
    human = load_truth(truth, truth_options, TableContext(entries.ids, opened.info.vocabulary))
    ours = compare(entries, opened.info.vocabulary, human, stage=opened.info.stage, include_human=True)
    others = [_Other.of(path, ours, human_only=truth_options.human_only) for path in options.against]
    identities = _identities(opened)
    kept, left_out = _kept(ours, others, identities)
    left_out["no answer"] = sum(ours.statuses[each] for each in (Status.FAILED, Status.PENDING))
    left_out["not in the truth"] = len(ours.images.not_in_truth)
    labels = [n for n, _ in enumerate(ours.entries.names) if all(other.labels[n] >= 0 for other in others)]
    if not labels:
        raise UsageError("the tables have no label in common", "Compare tables of one vocabulary.")
    ids = [ours.entries.ids[row] for row in kept]
    prints = tuple(identities[image][1] for image in ids)
    is_test = _drawn(prints, b"test", options.test_share)
    found = LabelSets(
        *(opened.info.source, tuple(ids), tuple(identities[image][0] for image in ids), prints),
        tuple(ours.entries.names[label] for label in labels),
        tuple(_sets(table, options, ours, others, kept, labels)),
        is_test,
        _drawn(prints, b"validation", VALIDATION_SHARE) & ~is_test,
        {reason: count for reason, count in left_out.items() if count},
        tuple(name for name in opened.info.vocabulary.names if name not in {ours.entries.names[n] for n in labels}),
    )
    found.check()
    return found


def _sets(
    table: Path,
    options: DownstreamOptions,
    ours: Comparison,
    others: Sequence[_Other],
    kept: Sequence[int],
    labels: Sequence[int],
) -> Iterator[LabelSet]:
    """Yield what each table, then the truth, says about some rows and labels of `ours`."""
    judged = Judged(options.soft_labels, options.include_human)
    yield LabelSet(_title(table, options.against), judged.targets(ours.entries.restricted(kept, labels)))
    for other in others:
        targets = judged.targets(other.entries, other.rows[kept], other.labels[labels])
        yield LabelSet(_title(other.path, (table, *options.against)), targets)
    yield LabelSet(TRUTH, _true(ours, kept, labels))


@dataclass(frozen=True, slots=True)
class _Other:
    """Another table: where the images and labels of the measured one stand in it, int64, -1 where they do not."""

    path: Path
    entries: Entries
    fingerprints: Mapping[str, tuple[str, bytes]]
    rows: Array
    labels: Array

    @classmethod
    def of(cls, path: Path, ours: Comparison, *, human_only: bool) -> _Other:
        opened = open_table(path)
        entries = by_decisions(entries_for(opened, human_only=human_only))
        answered = (Status.OK, Status.PARTIAL)
        place = {image: row for row, image in enumerate(entries.ids) if entries.statuses[row] in answered}
        rows = np.array([place.get(image, -1) for image in ours.entries.ids], np.int64)
        if (rows < 0).all():
            example = f"{ours.entries.ids[0]!r} is not in it"
            raise UsageError(f"{path} and the measured table share no image: {example}", "Label the same images.")
        index, numbers = NameIndex(opened.info.vocabulary), {name: n for n, name in enumerate(entries.names)}
        found = [index.find(name) for name in ours.entries.names]
        labels = np.array([-1 if name is None else numbers[name] for name in found], np.int64)
        return cls(path, entries, _identities(opened), rows, labels)


@dataclass(frozen=True, slots=True)
class Judged:
    """What a table says as targets: `soft` takes scores instead of decisions, `human` also what people decided."""

    soft: bool = False
    human: bool = False

    def targets(self, entries: Entries, rows: Array | None = None, labels: Array | None = None) -> Array:
        """Return uint8 [rows, labels] of all rows and labels, or of some. What is not listed is absent."""
        part = entries if rows is None or labels is None else entries.restricted(rows, labels)
        predicted = (part.flags & PREDICTED) > 0
        values = np.where(predicted, CERTAIN, 0).astype(np.uint8)
        if self.soft:
            values = np.rint(np.clip(part.scores, 0, 1) * CERTAIN).astype(np.uint8)
        unjudged = UNDECIDED if self.human else UNDECIDED | HUMAN
        values[(part.flags & unjudged) > 0] = UNJUDGED
        found = np.zeros((len(part.ids), len(part.names)), np.uint8)
        found[part.rows, part.labels] = values
        return found


def _true(ours: Comparison, rows: Sequence[int], labels: Sequence[int]) -> Array:
    """Return the truth as targets, uint8 [rows, labels]."""
    height, width = len(ours.entries.ids), len(ours.entries.names)
    codes = np.array([0, CERTAIN, UNJUDGED], np.uint8)  # at ABSENT, PRESENT, NOT_JUDGED (the last of three)
    assert (ABSENT, PRESENT, NOT_JUDGED) == (0, 1, -1)
    found = np.full((height, width), codes[ours.judgments.rest], np.uint8)
    found.reshape(-1)[ours.judgments.cells] = codes[ours.judgments.values]
    return np.ascontiguousarray(found[np.ix_(rows, labels)])


def _kept(
    ours: Comparison, others: Sequence[_Other], identities: Mapping[str, tuple[str, bytes]]
) -> tuple[list[int], Counter[str]]:
    """Return the rows of images that all tables answered about the same bytes, and why others are left out."""
    kept: list[int] = []
    left_out: Counter[str] = Counter()
    for row, image in enumerate(ours.entries.ids):
        fingerprint = identities[image][1]
        missing = next((other for other in others if other.rows[row] < 0), None)
        if missing is not None:
            left_out[f"no answer in {missing.path}"] += 1
        elif any(other.fingerprints[image][1] != fingerprint for other in others):
            left_out["labeled from other bytes in another table"] += 1
        else:
            kept.append(row)
    return kept, left_out


def _identities(table: Table) -> dict[str, tuple[str, bytes]]:
    """Return the uri and the fingerprint of each image by its id."""
    found: dict[str, tuple[str, bytes]] = {}
    for batch in table.batches(_ROWS, ["image_id", "uri", "fingerprint"]):
        ids, uris, prints = (batch[name].to_pylist() for name in ("image_id", "uri", "fingerprint"))
        found.update(zip(ids, zip(uris, (each or b"" for each in prints), strict=True), strict=True))
    return found


def _drawn(fingerprints: Sequence[bytes], purpose: bytes, share: float) -> Array:
    """Return bool [images]: a stable draw by content, so that copies of a file are drawn together.

    >>> _drawn([b"one", b"three", b"one"], b"test", 0.5).tolist()
    [False, True, False]
    """
    limit = int(share * 2**64)
    hashes = (hashlib.blake2b(each, digest_size=8, person=purpose).digest() for each in fingerprints)
    return np.fromiter((int.from_bytes(each, "little") < limit for each in hashes), bool, len(fingerprints))


def _title(path: Path, others: Sequence[Path]) -> str:
    """Return a table's name: its file's, or its path where another has the same name."""
    is_alone = all(path.stem != other.stem for other in others if other != path) and path.stem != TRUTH
    return path.stem if is_alone else str(path)
