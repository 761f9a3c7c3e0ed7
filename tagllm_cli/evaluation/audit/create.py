"""What `tagllm audit` writes: a folder with the page, the CSV and the design of one audit.

A folder that holds an audit is never written again: its answers are somebody's work.
"""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tagllm_cli.errors import TagllmError, UsageError
from tagllm_cli.evaluation.audit import answers, design
from tagllm_cli.evaluation.audit.answers import read_answers
from tagllm_cli.evaluation.audit.design import Design, TableIdentity, audit_id, design_of, load_design
from tagllm_cli.evaluation.audit.population import KINDS, answered, population
from tagllm_cli.evaluation.audit.sample import draw
from tagllm_cli.evaluation.entries import HUMAN, read_entries
from tagllm_cli.evaluation.html.page import render
from tagllm_cli.evaluation.html.thumbnails import Thumbnail, Wanted, judging_pictures
from tagllm_cli.evaluation.report.rows import read_rows
from tagllm_cli.store.atomic import check_writable_path, replacing
from tagllm_cli.store.table import Table, open_table
from tagllm_cli.text import defused
from tagllm_cli.vocabulary.cards import Card, cards_of, load_cards
from tagllm_cli.vocabulary.model import Vocabulary

PAGE = "audit.html"


@dataclass(frozen=True, slots=True)
class AuditSummary:
    """An audit in a folder. `kinds` counts its pairs by what the table says of them.

    `existed` says that it was there, with `answered` of its pairs answered in its CSV (None: none, or the CSV cannot be
    read). Of the table, `unanswered_images` failed or are pending and `human` pairs were decided by people: neither are
    drawn. `unseen` images have no picture, for the first `reason`.
    """

    table: Path
    out: Path
    design: Design
    existed: bool
    answered: int | None
    unanswered_images: int = 0
    human: int = 0
    unseen: int = 0
    reason: str = ""

    @property
    def error(self) -> TagllmError | None:
        """Nothing: an audit is written, or refused."""
        return None

    @property
    def kinds(self) -> dict[str, int]:
        """How many pairs are of which kind."""
        counts = dict.fromkeys(KINDS, 0)
        for pair in self.design.pairs:
            counts[self.design.strata[pair.stratum].kind] += 1
        return counts

    @property
    def warnings(self) -> list[str]:
        """What is missing, a sentence each."""
        counted = {
            "images without an answer, of which no pair is drawn": self.unanswered_images,
            "pairs that people decided, which are not drawn": self.human,
        }
        found = [f"{what}: {count:,}" for what, count in counted.items() if count]
        if self.unseen:
            found.append(f"images without a picture on the page: {self.unseen:,} (the first: {self.reason})")
        return found

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain JSON values."""
        return {
            "table": str(self.table),
            "out": str(self.out),
            "id": self.design.id,
            "pairs": len(self.design.pairs),
            "images": len({pair.image for pair in self.design.pairs}),
            "kinds": self.kinds,
            "seed": self.design.seed,
            "existed": self.existed,
            "answered": self.answered,
            "unanswered_images": self.unanswered_images,
            "human": self.human,
            "without_picture": self.unseen,
        }

    def lines(self) -> list[str]:
        """Return the same as lines of text."""
        pairs = len(self.design.pairs)
        if self.existed:
            told = "" if self.answered is None else f": {self.answered:,} of {pairs:,} pairs are answered in its CSV"
            first = f"{self.out} holds this audit already, and is left as it is{told}"
        else:
            counts = self.kinds
            never = counts.pop("near") + counts.pop("far")
            named = {**counts, "never proposed": never}
            kinds = ", ".join(f"{count:,} {kind}" for kind, count in named.items() if count)
            first = f"drew {pairs:,} pairs of image and label ({kinds}) from {self.design.table.images:,} images"
        return [
            first,
            f"answer on {self.out / PAGE} and save its answers.csv in {self.out}, or fill in {self.out / answers.FILE}",
            f"next: tagllm evaluate {self.table} --audit {self.out / answers.FILE}",
        ]


def create_audit(
    path: Path, out: Path, *, size: int, seed: int = 0, root: str | None = None, concepts: Path | None = None
) -> AuditSummary:
    """Draw an audit from a table and write it into the folder `out`; the same audit there is left as it is.

    Raises UsageError for a table without anything to draw, and where `out` holds another audit or anything else, or
    cannot be written.
    """
    check_writable_path(out, may_be_folder=True)
    table = open_table(path)
    whole = read_entries(table)
    entries = answered(whole)
    identity = TableIdentity.of(table, entries)
    if (out / design.FILE).exists():
        return _existing(path, out, load_design(out), audit_id(identity, size, seed))
    drawn_from = population(entries, table.info.vocabulary)
    if not drawn_from.sizes.any():
        raise UsageError(f"{path} has no answered image with a label to ask about", "Finish the run first.")
    made = design_of(identity, drawn_from, draw(drawn_from, size, seed), size, seed)
    cards = _cards(concepts, table.info.vocabulary)
    with replacing(out, is_ours=lambda path: False) as new:
        new.mkdir(exist_ok=True)
        (new / design.FILE).write_text(made.to_text(), encoding="utf-8")
        _write_csv(new / answers.FILE, made)
        pictures = _pictures(table, made, root)
        (new / PAGE).write_text(_page(made, cards, pictures, table), encoding="utf-8")
    missing = [each.reason for each in pictures.values() if not each.webp]
    left_out = (len(whole.ids) - len(entries.ids), int(np.count_nonzero(entries.flags & HUMAN)))
    return AuditSummary(path, out, made, False, 0, *left_out, len(missing), missing[0] if missing else "")


def _existing(path: Path, out: Path, found: Design, wanted: str) -> AuditSummary:
    if found.id != wanted:
        raise UsageError(
            f"{out} holds another audit (--size {found.size} --seed {found.seed}, of {found.table.name} as it was), "
            "whose answers are not to be lost",
            "Choose another --out; `evaluate --audit` takes the answers of an old audit for a table made anew, too.",
        )
    given: int | None = None
    with contextlib.suppress(UsageError, OSError):
        given = len(read_answers(out / answers.FILE, found).given)
    return AuditSummary(path, out, found, True, given)


def _cards(concepts: Path | None, vocabulary: Vocabulary) -> Mapping[str, Card]:
    own = cards_of(vocabulary)
    return own if concepts is None else {**own, **load_cards(concepts, vocabulary)}


def _write_csv(path: Path, made: Design) -> None:
    # With a byte order mark, without which Excel takes UTF-8 for something else.
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)
        writer.writerow(answers.HEADER)
        writer.writerows((pair.id, defused(pair.image), defused(pair.label), "") for pair in made.pairs)


def _pictures(table: Table, made: Design, root: str | None) -> dict[str, Thumbnail]:
    """Return a picture of each image, by id, in the table's order."""
    wanted = {pair.image for pair in made.pairs}
    rows: list[int] = []
    names: list[str] = []
    start = 0
    for batch in table.batches(8192, ["image_id"]):
        for place, name in enumerate(batch["image_id"].to_pylist()):
            if name in wanted:
                rows.append(start + place)
                names.append(name)
        start += len(batch)
    details = read_rows(table, rows).details
    images = [Wanted(name, details[row].uri, details[row].fingerprint) for name, row in zip(names, rows, strict=True)]
    return dict(zip(names, judging_pictures(table.info.source, root, images), strict=True))


def _page(made: Design, cards: Mapping[str, Card], pictures: Mapping[str, Thumbnail], table: Table) -> str:
    images = list(pictures)
    labels = sorted({pair.label for pair in made.pairs})
    image_at, label_at = ({name: place for place, name in enumerate(names)} for names in (images, labels))
    shown = [pictures[name] for name in images]
    data = {
        "id": made.id,
        "images": [
            {"name": name, "src": each.url, "width": each.width, "height": each.height, "reason": each.reason}
            for name, each in zip(images, shown, strict=True)
        ],
        "labels": [_label(name, cards.get(name)) for name in labels],
        "pairs": [[pair.id, image_at[pair.image], label_at[pair.label]] for pair in made.pairs],
    }
    title = f"Audit of {table.path.name}"
    return render(
        Path(__file__).parent / "html", "audit", data, {"title": title, "pairs": len(made.pairs)}, libraries=["decide"]
    )


def _label(name: str, card: Card | None) -> dict[str, Any]:
    similar: Sequence[str] = card.similar if card else ()
    return {"name": name, "card": card.description if card else "", "similar": list(similar)}
