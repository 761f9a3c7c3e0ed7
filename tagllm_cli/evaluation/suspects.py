"""Disagreements between model and people, ranked, as a list, as tables and as a file."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tagllm_cli.evaluation.entries import Array
from tagllm_cli.evaluation.sections import Cells
from tagllm_cli.store.atomic import replacing, starts_with
from tagllm_cli.text import defused

Verdict = Literal["annotator", "both", "model"]
VERDICTS: tuple[Verdict, ...] = ("annotator", "both", "model")
ANNOTATOR, BOTH, MODEL = range(3)  # as `Suspects.verdicts` has them

SHOWN = 20
_IN_JSON = 100
_FEW = 100
_LABELS_SHOWN = 10
_COLUMNS = ("image", "label", "truth", "model", "probability", "verdict", "score")


@dataclass(frozen=True, slots=True)
class Suspect:
    """One disagreement: what people say, what the model says, and who is wrong.

    `score` in [0, 1] is how doubtful what people say is: 1 less its probability, by answers like the model's about
    other images. `probability` is the model's own, None where it has none. `both`: neither is clearly wrong.
    """

    image: str
    label: str
    truth: Literal["present", "absent"]
    model: Literal["yes", "no", "not proposed"]
    probability: float | None
    verdict: Verdict
    score: float


@dataclass(frozen=True, slots=True)
class Suspects:
    """All disagreements of a table and a truth, what people say most doubtfully first: arrays [disagreements].

    `seen`: people say that the label is there. `asked`: the model was asked about it. `probabilities` are the model's,
    NaN where it has none. `undecided` labels of the table, which nobody can be wrong about, are left out. `present`
    labels that people see were looked at. `shown` disagreements of either kind, seen or not, are printed.
    """

    ids: Sequence[str]
    names: Sequence[str]
    rows: Array  # int64
    labels: Array  # int64
    seen: Array  # bool
    asked: Array  # bool
    probabilities: Array  # float32
    verdicts: Array  # int8
    scores: Array  # float64, falling
    undecided: int
    present: int
    shown: int = SHOWN

    @property
    def notes(self) -> Sequence[str]:
        """What is left out by design."""
        return [f"undecided labels, about which nobody is wrong: {self.undecided:,}"] if self.undecided else []

    @property
    def warnings(self) -> Sequence[str]:
        """What makes the verdicts doubtful."""
        few = f"people see {self.present:,} labels: too few to tell how far the model can be trusted"
        return [f"{few}; the verdicts are guesses"] if self.present < _FEW else []

    def __len__(self) -> int:
        return len(self.rows)

    def top(self, count: int | None = None, *, seen: bool | None = None) -> Iterator[Suspect]:
        """Yield the first disagreements, or all; with `seen`, those about labels that people see, or do not see."""
        for n in np.flatnonzero(self.seen == seen)[:count] if seen is not None else range(len(self))[:count]:
            probability = float(self.probabilities[n])
            yield Suspect(
                image=self.ids[self.rows[n]],
                label=self.names[self.labels[n]],
                truth="present" if self.seen[n] else "absent",
                model="yes" if not self.seen[n] else "no" if self.asked[n] else "not proposed",
                probability=None if np.isnan(probability) else round(probability, 6),
                verdict=VERDICTS[self.verdicts[n]],
                score=round(float(self.scores[n]), 6),
            )

    def by_kind(self) -> dict[str, tuple[int, ...]]:
        """Return how many disagreements of each kind have each of VERDICTS."""
        kinds = {
            "people no, model yes": ~self.seen,
            "people yes, model no": self.seen & self.asked,
            "people yes, not proposed": self.seen & ~self.asked,
        }
        return {name: tuple(np.bincount(self.verdicts[which], minlength=3).tolist()) for name, which in kinds.items()}

    def by_label(self) -> dict[str, tuple[int, ...]]:
        """Return how many disagreements about each label have each of VERDICTS, labels without any left out."""
        counts = np.bincount(self.labels * 3 + self.verdicts, minlength=3 * len(self.names)).reshape(-1, 3).tolist()
        return {name: tuple(each) for name, each in zip(self.names, counts, strict=True) if any(each)}

    def to_json(self) -> dict[str, Any]:
        """Return the counts, and the first disagreements, at least 100, as plain JSON values."""
        counts = {"kinds": self.by_kind(), "labels": self.by_label()}
        named = {
            what: {name: dict(zip(VERDICTS, each, strict=True)) for name, each in found.items()}
            for what, found in counts.items()
        }
        listed = [asdict(each) for each in self.top(max(self.shown, _IN_JSON))]
        return {"disagreements": len(self), "undecided": self.undecided, **named, "suspects": listed}

    def tables(self) -> Sequence[tuple[str, Cells]]:
        """Return titles with (column names, rows): verdicts, the labels most in doubt, the first pairs."""
        headings = ("probably the annotator", "both defensible", "probably the model")
        kinds = [(name, *(f"{each:,}" for each in counts)) for name, counts in self.by_kind().items()]
        doubted = sorted(self.by_label().items(), key=lambda item: -item[1][ANNOTATOR])[:_LABELS_SHOWN]
        labels = [(name, *(f"{each:,}" for each in counts)) for name, counts in doubted if counts[ANNOTATOR]]
        return (
            (f"who is wrong in {len(self):,} disagreements", (("disagreement", *headings), kinds)),
            ("labels with most probable mistakes of people", (("label", *headings), labels)),
            ("labels that people may have left out, the most doubtful absences first", self._listed(seen=False)),
            ("labels that people may have added, the most doubtful ones first", self._listed(seen=True)),
        )

    def _listed(self, *, seen: bool) -> Cells:
        rows = [
            (
                *(each.image, each.label, each.truth, each.model),
                "-" if each.probability is None else f"{each.probability:.3f}",
                *(each.verdict, f"{each.score:.3f}"),
            )
            for each in self.top(self.shown, seen=seen)
        ]
        return _COLUMNS, rows

    def write_csv(self, path: Path) -> None:
        """Write all disagreements, a line each, over an earlier list; UsageError where another file is there."""
        head = ",".join(_COLUMNS)
        with (
            replacing(path, is_ours=starts_with(head.encode())) as new,
            new.open("w", encoding="utf-8", newline="") as file,
        ):
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(_COLUMNS)
            for each in self.top():
                values = asdict(each)
                writer.writerow([defused(value) if isinstance(value, str) else value for value in values.values()])
