"""What `tagllm review` writes: one page with the pairs of image and label that are most worth a person's look."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

import tagllm_cli
from tagllm_cli.errors import TagllmError, UsageError
from tagllm_cli.evaluation.audit.design import TableIdentity, pair_id
from tagllm_cli.evaluation.audit.population import answered
from tagllm_cli.evaluation.entries import NOT_JUDGED, PREDICTED, PRESENT, Array, Entries, read_entries
from tagllm_cli.evaluation.html.page import check_page, is_page, render
from tagllm_cli.evaluation.html.thumbnails import Thumbnail, Wanted, judging_pictures
from tagllm_cli.evaluation.report.rows import RowDetails, read_rows
from tagllm_cli.evaluation.report.subject import Subject, read_subject, thresholds_of
from tagllm_cli.evaluation.review.opinions import Doubts, Opinion, doubts
from tagllm_cli.evaluation.review.order import gains, ordered
from tagllm_cli.evaluation.truth.base import TruthOptions
from tagllm_cli.records import digest16
from tagllm_cli.store.atomic import replacing
from tagllm_cli.store.table import open_table
from tagllm_cli.text import shortened
from tagllm_cli.vocabulary.cards import Card, cards_of, load_cards

HERE = Path(__file__).parent / "html"
VERSION = 1
LIMIT = 300

# What is being done, how much of it is done, of how much.
Report = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class ReviewOptions:
    """What is asked, and how it is shown.

    Args:
        second: another table of the same images; None: none.
        truth: a file of human labels; its disagreements with the table are asked about.
        labels: only these; none: all.
        limit: how many pairs at most.
        again: also those that people decided.
        blind: what tables and people said is hidden until it is asked for.
        root: where the images are now; None: where the table says.
        concepts: a card file to show, as `disambiguate` took it.
    """

    second: Path | None = None
    truth: Path | None = None
    truth_options: TruthOptions = field(default_factory=TruthOptions)
    labels: Sequence[str] = ()
    limit: int = LIMIT
    again: bool = False
    blind: bool = False
    root: str | None = None
    concepts: Path | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """The pairs of a page, in the order in which they are asked: arrays [pairs].

    `doubts` are all pairs of which something is said; `places` says which of them are asked. `possible` could be asked
    about, `decided` were decided by people and are left out. `pairs` are (image, label), `ids` their names in files.
    """

    doubts: Doubts
    places: Array  # int64
    rows: Array  # int64
    labels: Array  # int64
    pairs: Sequence[tuple[str, str]]
    ids: Sequence[str]
    page: str
    possible: int
    decided: int


@dataclass(frozen=True, slots=True)
class ReviewSummary:
    """A page for review. `possible` pairs could be asked about, `decided` ones people decided before.

    `unseen` images have no picture, for the first `reason`.
    """

    table: Path
    out: Path
    page: str
    pairs: int
    images: int
    labels: int
    possible: int
    decided: int
    bytes: int = 0
    unseen: int = 0
    reason: str = ""

    @property
    def error(self) -> TagllmError | None:
        """Nothing: a page is written, or refused."""
        return None

    @property
    def warnings(self) -> list[str]:
        """What is missing, a sentence each."""
        if not self.unseen:
            return []
        return [f"images without a picture on the page: {self.unseen:,} (the first: {self.reason})"]

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain JSON values."""
        return {
            "table": str(self.table),
            "out": str(self.out),
            "id": self.page,
            "pairs": self.pairs,
            "images": self.images,
            "labels": self.labels,
            "possible": self.possible,
            "decided": self.decided,
            "bytes": self.bytes,
            "without_picture": self.unseen,
        }

    def lines(self) -> list[str]:
        """Return the same as lines of text."""
        more = f" of {self.possible:,} that could be asked about" if self.possible > self.pairs else ""
        shown = f"{self.labels:,} labels of {self.images:,} images"
        lines = [f"{self.out}: {self.pairs:,} pairs of image and label{more}, {shown}"]
        if self.decided:
            lines.append(f"pairs that people decided before, left out: {self.decided:,}")
        lines.append("open it in a browser, decide with the keys y, n, u, and save the decisions")
        lines.append(f"next: tagllm import {self.table} decisions.jsonl")
        return lines


def create_review(
    path: Path, out: Path, options: ReviewOptions = ReviewOptions(), report: Report = lambda *_: None
) -> ReviewSummary:
    """Write the page of a table, over an earlier page; `report` is told of each picture.

    Raises UsageError for tables, labels or a truth that cannot be used, where nothing is to be asked, and where `out`
    is another file.
    """
    check_page(out)
    subject = read_subject(path, options.truth, (), options.truth_options)
    asked = choose(subject, options)
    if not len(asked.places):
        raise _nothing_to_ask(path, asked, options)
    cards = cards_of(subject.table.info.vocabulary)
    if options.concepts is not None:
        cards = {**cards, **load_cards(options.concepts, subject.table.info.vocabulary)}
    rows = sorted(set(asked.rows.tolist()))
    details = read_rows(subject.table, rows).details
    ids = subject.entries.ids
    images = [Wanted(ids[row], details[row].uri, details[row].fingerprint) for row in rows]
    pictures: dict[int, Thumbnail] = {}
    made = judging_pictures(subject.table.info.source, options.root, images)
    for row, picture in zip(rows, made, strict=True):
        pictures[row] = picture
        report("pictures", len(pictures), len(rows))
    data = _data(subject, asked, details, pictures, cards, options)
    title = f"Review of {path.name}"
    values = {"title": title, "pairs": len(asked.places)}
    missing = [each.reason for each in pictures.values() if not each.webp]
    counts = (len(asked.places), len(rows), len(set(asked.labels.tolist())), asked.possible, asked.decided)
    summary = ReviewSummary(path, out, asked.page, *counts, 0, len(missing), missing[0] if missing else "")
    with replacing(out, is_ours=is_page) as new:
        new.write_text(render(HERE, "review", data, values, libraries=["decide"]), encoding="utf-8")
        return replace(summary, bytes=new.stat().st_size)


def choose(subject: Subject, options: ReviewOptions = ReviewOptions()) -> Asked:
    """Return the pairs to ask about, in their order."""
    entries, width = subject.entries, len(subject.entries.names)
    found = doubts(entries, subject.thresholds, _second(options.second, entries), subject.judged)
    labels = found.cells % width
    chosen, is_open = np.isin(labels, _positions(options.labels, entries.names)), ~found.own.human | options.again
    given = np.bincount(entries.labels[(entries.flags & PREDICTED) > 0], minlength=width)
    gain = np.where(chosen & is_open, gains(found.wrong, labels, given), 0.0)
    possible, decided = int(np.count_nonzero(gain)), int(np.count_nonzero(chosen & ~is_open))
    places = ordered(gain, found.cells // width, labels, options.limit)
    rows, labels = found.cells[places] // width, labels[places]
    pairs = [
        (entries.ids[row], entries.names[label]) for row, label in zip(rows.tolist(), labels.tolist(), strict=True)
    ]
    identity = TableIdentity.of(subject.table, answered(entries))
    known = [str(VERSION), identity.vocabulary_digest, *(f"{image}\n{label}" for image, label in pairs)]
    page = digest16("\0".join(known).encode("utf-8", "surrogatepass")).hex()
    ids = [pair_id(page, image, label) for image, label in pairs]
    return Asked(found, places, rows, labels, pairs, ids, page, possible, decided)


def _second(path: Path | None, entries: Entries) -> tuple[Entries, Array] | None:
    if path is None:
        return None
    table = open_table(path)
    theirs = read_entries(table)
    if not set(theirs.ids) & set(entries.ids) or not set(theirs.names) & set(entries.names):
        raise UsageError(f"{path} has no image or no label of the table", "Name a table of the same images.")
    return theirs, thresholds_of(table)


def _positions(labels: Sequence[str], names: Sequence[str]) -> Array:
    unknown = [label for label in labels if label not in names]
    if unknown:
        raise UsageError(
            f"--labels has names that are no labels of the table: {shortened(unknown)}",
            "Spell them as `tagllm info` lists them.",
        )
    return np.array([names.index(label) for label in labels] or range(len(names)), np.int64)


def _nothing_to_ask(path: Path, asked: Asked, options: ReviewOptions) -> UsageError:
    if asked.decided and not options.again:
        return UsageError(
            f"people decided all {asked.decided:,} pairs of {path} that could be asked about",
            "With --again they are asked once more.",
        )
    return UsageError(f"{path} has no pair of image and label to ask about", "Name more labels, or finish the run.")


def _data(
    subject: Subject,
    asked: Asked,
    details: Mapping[int, RowDetails],
    pictures: Mapping[int, Thumbnail],
    cards: Mapping[str, Card],
    options: ReviewOptions,
) -> dict[str, Any]:
    entries = subject.entries
    labels = sorted(set(asked.labels.tolist()))
    image_at = {row: place for place, row in enumerate(pictures)}
    label_at = {label: place for place, label in enumerate(labels)}
    identity = TableIdentity.of(subject.table, answered(entries))
    other = asked.doubts.other
    return {
        "id": asked.page,
        "version": VERSION,
        "tool": tagllm_cli.__version__,
        "table": {"name": identity.name, "images": identity.images, "vocabulary": identity.vocabulary_digest},
        "blind": options.blind,
        "candidates": subject.table.info.stage != "labels",
        "arms": list(entries.arm_names),
        "second": options.second.name if options.second else "",
        "images": [_image(entries.ids[row], details[row], each) for row, each in pictures.items()],
        "labels": [_label(entries.names[label], subject.thresholds[label], cards) for label in labels],
        "pairs": [
            [
                *(name, image_at[int(row)], label_at[int(label)]),
                _said(asked.doubts.own, place, entries.arm_names),
                None if other is None else _said(other, place, ()),
                _people(int(asked.doubts.people[place])),
            ]
            for name, row, label, place in zip(asked.ids, asked.rows, asked.labels, asked.places, strict=True)
        ],
    }


def _image(name: str, details: RowDetails, picture: Thumbnail) -> dict[str, Any]:
    return {
        "name": name,
        "src": picture.url,
        "width": picture.width,
        "height": picture.height,
        "reason": picture.reason,
        "fingerprint": details.fingerprint.hex(),
    }


def _label(name: str, threshold: float, cards: Mapping[str, Card]) -> dict[str, Any]:
    card = cards.get(name)
    return {
        "name": name,
        "threshold": round(float(threshold), 4),
        "card": card.description if card else "",
        "similar": list(card.similar) if card else [],
    }


def _said(opinion: Opinion, place: int, arm_names: Collection[str]) -> list[Any]:
    """Return decision, probability, the arms that proposed it (positions), and whether a person decided it."""
    probability, arms = float(opinion.probabilities[place]), int(opinion.arms[place])
    return [
        int(opinion.said[place]),
        None if np.isnan(probability) else round(probability, 4),
        [number for number in range(len(arm_names)) if arms >> number & 1],
        int(opinion.human[place]),
    ]


def _people(judgment: int) -> str:
    return "" if judgment == NOT_JUDGED else "yes" if judgment == PRESENT else "no"
