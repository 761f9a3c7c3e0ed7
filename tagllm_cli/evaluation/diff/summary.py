"""What `tagllm diff` says: as one JSON object, as lines and tables of text, and which gates were missed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tagllm_cli.errors import GateError, TagllmError
from tagllm_cli.evaluation.diff.causes import CAUSES, MEANINGS
from tagllm_cli.evaluation.diff.compare import KINDS, Comparison, Example
from tagllm_cli.evaluation.diff.gates import missed_gates
from tagllm_cli.evaluation.diff.side import STATUSES, Side
from tagllm_cli.evaluation.sections import Cells, shown

SHOWN_LABELS = 20
_WORDS = {"added": "added", "removed": "removed", "undecided": "now unknown", "decided": "no longer unknown"}


@dataclass(frozen=True)
class DiffSummary:
    """Two tables compared. `page` is the HTML page that was written, None: none; `limit` is the number of examples.

    Shares are of what either table says yes or unknown to, in images that both tables have; that of images is of the
    images of both tables together.
    """

    comparison: Comparison
    limit: int
    gates: Mapping[str, float] = field(default_factory=dict)
    page: Path | None = None
    warnings: Sequence[str] = ()

    @property
    def error(self) -> TagllmError | None:
        """The gates that were missed, if any."""
        missed = missed_gates(self.shares, self.gates)
        return (
            GateError("; ".join(missed), "--fail-over sets the gate; the causes say where to look.") if missed else None
        )

    @cached_property
    def kinds(self) -> dict[str, int]:
        """Flips in images that both tables have, by kind."""
        return dict(zip(KINDS, self.comparison.counts.shared.sum(axis=(0, 1)).tolist(), strict=True))

    @cached_property
    def shares(self) -> dict[str, float]:
        """What the gates are about, each in [0, 1]."""
        pairs = max(1, int(self.comparison.counts.pairs.sum()))
        images = max(1, len(self.comparison.images.first))
        return {
            "labels": sum(self.kinds.values()) / pairs,
            "images": self.comparison.counts.differing / images,
            "unknown": self.kinds["undecided"] / pairs,
            "added": self.kinds["added"] / pairs,
            "removed": self.kinds["removed"] / pairs,
        }

    @cached_property
    def images(self) -> dict[str, int]:
        """Images of each table, of both, and what became of them."""
        images, counts = self.comparison.images, self.comparison.counts
        both = int(images.shared.sum())
        return {
            "a": int((images.first >= 0).sum()),
            "b": int((images.second >= 0).sum()),
            "both": both,
            "added": int((images.first < 0).sum()),
            "removed": int((images.second < 0).sum()),
            "renamed": int(images.renamed.sum()),
            "other_bytes": int(images.replaced.sum()),
            "with_changed_labels": counts.images,
            "differing": counts.differing,
        }

    @cached_property
    def causes(self) -> dict[str, dict[str, int]]:
        """Flips by cause and kind, those in images of one table only included; the most frequent cause first."""
        counts = self.comparison.counts
        by_cause = {
            cause: dict(zip(KINDS, row, strict=True))
            for cause, row in zip(CAUSES, counts.shared.sum(axis=0).tolist(), strict=True)
        }
        by_cause[CAUSES[0]]["added"] += int(counts.of_added.sum())
        by_cause[CAUSES[1]]["removed"] += int(counts.of_removed.sum())
        found = {cause.value: each for cause, each in by_cause.items() if any(each.values())}
        return dict(sorted(found.items(), key=lambda each: -sum(each[1].values())))

    @cached_property
    def labels(self) -> list[dict[str, Any]]:
        """Each label's counts, the most changed first; labels of which nothing changed last."""
        counts = self.comparison.counts
        rows = [self._label(number) for number in range(len(self.comparison.names))]
        changed = counts.shared.sum(axis=(1, 2)) + counts.of_added + counts.of_removed
        return [rows[number] for number in np.argsort(-changed, kind="stable")]

    def _label(self, number: int) -> dict[str, Any]:
        counts = self.comparison.counts
        kinds = dict(zip(KINDS, counts.shared[number].sum(axis=0).tolist(), strict=True))
        causes = counts.shared[number].sum(axis=1)
        pairs, changed = int(counts.pairs[number]), sum(kinds.values())
        moved = counts.moved[number]
        return {
            "name": self.comparison.names[number],
            **kinds,
            "changed": changed,
            "pairs": pairs,
            "share": round(changed / pairs, 6) if pairs else None,
            "in_added_images": int(counts.of_added[number]),
            "in_removed_images": int(counts.of_removed[number]),
            "mean_move": None if np.isnan(moved) else round(float(moved), 6),
            "causes": {CAUSES[place].value: int(causes[place]) for place in np.flatnonzero(causes).tolist()},
        }

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain JSON values."""
        first, second = self.comparison.sides
        counts = self.comparison.counts
        own = [set(side.names) for side in (first, second)]
        return {
            "a": str(first.table.path),
            "b": str(second.table.path),
            "stage": first.table.info.stage,
            "images": self.images,
            "statuses": {"a": _statuses(first), "b": _statuses(second)},
            "labels": {
                **self.kinds,
                "changed": sum(self.kinds.values()),
                "pairs": int(counts.pairs.sum()),
                "in_added_images": int(counts.of_added.sum()),
                "in_removed_images": int(counts.of_removed.sum()),
            },
            "shares": {name: round(value, 6) for name, value in self.shares.items()},
            "vocabulary": {
                "added": [name for name in second.names if name not in own[0]],
                "removed": [name for name in first.names if name not in own[1]],
            },
            "settings": [each.to_json() for each in self.comparison.settings.told],
            "causes": self.causes,
            "per_label": self.labels,
            "examples": [_example(each) for each in self.comparison.examples(self.limit)],
            "missed_gates": missed_gates(self.shares, self.gates),
            "html": None if self.page is None else str(self.page),
        }

    def lines(self) -> list[str]:
        """Return images and labels in a line each, and where the page is."""
        counts = self.comparison.counts
        changed, pairs = sum(self.kinds.values()), int(counts.pairs.sum())
        kinds = ", ".join(f"{count:,} {_WORDS[kind]}" for kind, count in self.kinds.items() if count)
        where = f": {kinds}, in {counts.images:,} images" if changed else ""
        lines = [self._images_line(), f"labels: {changed:,} of {pairs:,} changed ({self.shares['labels']:.2%}){where}"]
        if counts.of_added.any() or counts.of_removed.any():
            added, removed = int(counts.of_added.sum()), int(counts.of_removed.sum())
            lines.append(f"beside these: {added:,} in images that only B has, {removed:,} in images that only A has")
        return lines if self.page is None else [*lines, f"page: {self.page}"]

    def _images_line(self) -> str:
        found = self.images
        notes = [
            f"{found[key]:,} {words}"
            for key, words in (("renamed", "under another name"), ("other_bytes", "with other bytes"))
            if found[key]
        ]
        told = f" ({', '.join(notes)})" if notes else ""
        return f"images: {found['both']:,} in both{told}, {found['removed']:,} only in A, {found['added']:,} only in B"

    def tables(self) -> list[tuple[str, Cells]]:
        """Return titles with (column names, rows): settings, causes, labels, examples; none that is empty."""
        changed = [row for row in self.labels if row["changed"] or row["in_added_images"] or row["in_removed_images"]]
        few = len(changed) <= SHOWN_LABELS
        title = "labels" if few else f"the {SHOWN_LABELS} most changed of {len(changed):,} labels"
        examples = [*map(_cells, self.comparison.examples(self.limit))]
        found: list[tuple[str, Cells]] = [
            (title, (_LABEL_COLUMNS, [_label_cells(row) for row in changed[:SHOWN_LABELS]])),
            ("the flips that tell most", (_EXAMPLE_COLUMNS, examples)),
        ]
        return [*self.reasons(), *((title, cells) for title, cells in found if cells[1])]

    def reasons(self) -> list[tuple[str, Cells]]:
        """Return the tables of settings that differ and of causes; none that is empty."""
        settings = [(each.what, each.first, each.second) for each in self.comparison.settings.told]
        causes = [
            (cause, f"{sum(kinds.values()):,}", *(f"{kinds[kind]:,}" for kind in KINDS), MEANINGS[CAUSES[place]])
            for cause, kinds in self.causes.items()
            for place in [[each.value for each in CAUSES].index(cause)]
        ]
        found: list[tuple[str, Cells]] = [
            ("settings that differ", (("setting", "A", "B"), settings)),
            ("likely causes", (("cause", "flips", *_WORDS.values(), "meaning"), causes)),
        ]
        return [(title, cells) for title, cells in found if cells[1]]


_LABEL_COLUMNS = ("label", "changed", "share", *_WORDS.values(), "mean move", "cause")
_EXAMPLE_COLUMNS = ("image", "label", "A", "B", "cause")


def _label_cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    causes = Counter(row["causes"])
    causes.update({CAUSES[0].value: row["in_added_images"], CAUSES[1].value: row["in_removed_images"]})
    return (
        row["name"],
        f"{row['changed']:,}",
        shown(row["share"]),
        *(f"{row[kind]:,}" for kind in KINDS),
        shown(row["mean_move"]),
        ", ".join(f"{cause} {count:,}" for cause, count in causes.most_common(3) if count),
    )


def _cells(each: Example) -> tuple[str, ...]:
    said = [
        state if probability is None else f"{state} {probability:.2f}"
        for state, probability in zip(each.states, each.probabilities, strict=True)
    ]
    return (each.image + (f" (was {each.earlier})" if each.earlier else ""), each.label, *said, each.cause.value)


def _example(each: Example) -> dict[str, Any]:
    return {
        "image": each.image,
        "earlier": each.earlier or None,
        "label": each.label,
        "kind": each.kind,
        "a": {"state": each.states[0], "probability": each.probabilities[0]},
        "b": {"state": each.states[1], "probability": each.probabilities[1]},
        "cause": each.cause.value,
        "move": round(each.move, 4),
    }


def _statuses(side: Side) -> dict[str, int]:
    counts = np.bincount(side.statuses, minlength=len(STATUSES)).tolist()
    return {status.value: count for status, count in zip(STATUSES, counts, strict=True) if count}
