"""The cards of a report's gallery as plain JSON: what each table and the truth say about the labels of one image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tagllm_cli.evaluation.entries import HUMAN, NOT_JUDGED, PREDICTED, PRESENT, UNDECIDED, Array
from tagllm_cli.evaluation.html.thumbnails import Thumbnail, Wanted
from tagllm_cli.evaluation.report.rows import RowDetails
from tagllm_cli.evaluation.report.subject import JudgedCells, Subject

# What is said about a label; NOT_LISTED: the table does not mention it, and that means no.
NO, YES, UNKNOWN, NOT_LISTED = 0, 1, 2, 3
NO_VERDICT = -1  # else ANNOTATOR, BOTH or MODEL
MOST_DENIED = 12  # labels with the answer no in one card, the likeliest first


@dataclass(frozen=True, slots=True)
class _Lists:
    """What is listed elsewhere about each row: cells sorted by row, for a search."""

    cells: Array
    width: int

    def labels(self, row: int) -> list[int]:
        start, stop = np.searchsorted(self.cells, (row * self.width, (row + 1) * self.width))
        return [int(cell) for cell in self.cells[start:stop] % self.width]


def wanted(subject: Subject, chosen: Sequence[tuple[int, str]], details: Mapping[int, RowDetails]) -> list[Wanted]:
    """Return the images of the chosen rows, for their thumbnails."""
    return [Wanted(subject.entries.ids[row], details[row].uri, details[row].fingerprint) for row, _ in chosen]


def cards(
    subject: Subject,
    chosen: Sequence[tuple[int, str]],
    details: Mapping[int, RowDetails],
    pictures: Iterable[Thumbnail],
) -> list[dict[str, Any]]:
    """Return a card for each chosen row.

    `labels` of a card are lists [label, what our table says, probability or null, judgment of the truth, bits of the
    arms that proposed it, whether a person decided it, bits of the other tables that give it, who is wrong];
    `covered` are the bits of the other tables that know the image.
    """
    width = len(subject.entries.names)
    others = [_Lists(each.cells, width) for each in subject.others]
    present, verdicts = None, dict[int, int]()
    if subject.judged is not None:
        rows, labels = subject.judged.present()
        present = _Lists(np.sort(rows * width + labels), width)
        verdicts = _verdicts(subject, subject.judged, [row for row, _ in chosen])
    return [
        _card(subject, row, why, details[row], picture, others, present, verdicts)
        for (row, why), picture in zip(chosen, pictures, strict=True)
    ]


def _card(
    subject: Subject,
    row: int,
    why: str,
    details: RowDetails,
    picture: Thumbnail,
    others: Sequence[_Lists],
    present: _Lists | None,
    verdicts: Mapping[int, int],
) -> dict[str, Any]:
    entries = subject.entries
    given: dict[int, int] = {}
    for bit, each in enumerate(others):
        for label in each.labels(row):
            given[label] = given.get(label, 0) | 1 << bit
    labels = _labels(subject, row, given, present.labels(row) if present else ())
    first = row * len(entries.names)
    return {
        "name": entries.ids[row],
        "status": entries.statuses[row].value,
        "why": why,
        "size": [int(entries.widths[row]), int(entries.heights[row])],
        "error": details.error,
        "unmatched": list(details.unmatched),
        "picture": picture.url,
        "shown": [picture.width, picture.height],
        "reason": picture.reason,
        "judged": subject.judged is not None and bool(subject.judged.row_of[row] >= 0),
        "covered": sum(1 << bit for bit, each in enumerate(subject.others) if each.covers[row]),
        "labels": [[*line, verdicts.get(first + line[0], NO_VERDICT)] for line in labels],
    }


def _labels(subject: Subject, row: int, given: Mapping[int, int], true: Sequence[int]) -> list[list[Any]]:
    entries = subject.entries
    start, stop = np.searchsorted(entries.rows, (row, row + 1))
    own = entries.labels[start:stop]
    unlisted = sorted({*given, *true}.difference(own.tolist()))
    said = _judgments(subject.judged, row, np.concatenate([own, np.asarray(unlisted, np.int64)]))
    found: list[list[Any]] = []
    denied: list[list[Any]] = []
    for place, label in enumerate(own.tolist()):
        at = start + place
        flags, probability = int(entries.flags[at]), float(entries.probabilities[at])
        state = YES if flags & PREDICTED else UNKNOWN if flags & UNDECIDED else NO
        line = [
            *(label, state, None if np.isnan(probability) else round(probability, 4), said[place]),
            *(int(entries.arms[at]), int(flags & HUMAN > 0), given.get(label, 0)),
        ]
        plain = state == NO and said[place] != PRESENT and label not in given
        (denied if plain else found).append(line)
    found += [
        [label, NOT_LISTED, None, said[len(own) + place], 0, 0, given.get(label, 0)]
        for place, label in enumerate(unlisted)
    ]
    return found + sorted(denied, key=lambda line: -(line[2] or 0))[:MOST_DENIED]


def _judgments(judged: JudgedCells | None, row: int, labels: Array) -> list[int]:
    if judged is None:
        return [NOT_JUDGED] * len(labels)
    return [int(each) for each in judged.of(np.full(len(labels), row), labels)]


def _verdicts(subject: Subject, judged: JudgedCells, rows: Sequence[int]) -> dict[int, int]:
    """Return who is wrong about the disputed cells of some rows, by cell."""
    disputed, labels = judged.disputed()
    inside = np.isin(disputed, np.asarray(rows, np.int64))
    cells = disputed[inside] * len(subject.entries.names) + labels[inside]
    return dict(zip(cells.tolist(), judged.suspects.verdicts[inside].tolist(), strict=True))
