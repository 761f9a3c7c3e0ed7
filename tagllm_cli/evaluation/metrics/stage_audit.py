"""What each stage of a label table did: what was never proposed, and what the decisions kept and removed.

A label table lists every candidate with its decision. A label that is present and was not proposed is lost for good:
no decision brings it back. Recall of the labels is candidate recall times the share of true candidates that are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tagllm_cli.evaluation.entries import ABSENT, PREDICTED, PRESENT, UNDECIDED, Array, Comparison
from tagllm_cli.evaluation.metrics.requests import Requests
from tagllm_cli.evaluation.sections import Cells, rounded, shown

SHOWN = 8


@dataclass(frozen=True, slots=True)
class StageCounts:
    """Pairs of image and label, judged ones only.

    Of the `present` ones, `proposed` were candidates: `kept` (decided yes), `removed` (no) or `unknown`. The candidates
    that are `absent` were `wrongly_kept`, `rightly_removed` or left `absent_unknown`.
    """

    name: str
    present: int
    proposed: int
    kept: int
    removed: int
    unknown: int
    absent: int
    wrongly_kept: int
    rightly_removed: int
    absent_unknown: int

    @property
    def lost(self) -> int:
        """Present and never proposed."""
        return self.present - self.proposed

    @property
    def candidate_recall(self) -> float | None:
        """The share of what is present that was proposed."""
        return self.proposed / self.present if self.present else None

    @property
    def candidate_precision(self) -> float | None:
        """The share of candidates that are present."""
        return self.proposed / (self.proposed + self.absent) if self.proposed + self.absent else None

    @property
    def label_recall(self) -> float | None:
        """The share of what is present that was decided yes."""
        return self.kept / self.present if self.present else None

    @property
    def label_precision(self) -> float | None:
        """The share of what was decided yes that is present."""
        return self.kept / (self.kept + self.wrongly_kept) if self.kept + self.wrongly_kept else None

    def to_json(self) -> dict[str, Any]:
        """Return counts and ratios, ratios rounded to six digits."""
        ratios = ("candidate_recall", "candidate_precision", "label_recall", "label_precision")
        return {**asdict(self), "lost": self.lost, **rounded({name: getattr(self, name) for name in ratios})}


@dataclass(frozen=True, slots=True)
class StageAudit:
    """Both stages, overall and by label. `requests` are None where no run is on record."""

    overall: StageCounts
    labels: tuple[StageCounts, ...]
    requests: Requests = Requests()  # noqa: RUF009 (frozen)
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def recall_per_request(self, stage: str) -> float | None:
        """Return recall after a stage over all requests per image up to then; None where these are not known."""
        asked, recall = self.requests.candidates, self.overall.candidate_recall
        if stage == "labels" and asked is not None:
            asked = None if self.requests.labels is None else asked + self.requests.labels
            recall = self.overall.label_recall
        return None if asked is None or recall is None else recall / asked

    def tables(self) -> Sequence[tuple[str, Cells]]:
        """Return the stages, what the decisions did, and where most was lost for good."""
        return [self._stages(), self._decisions(), *self._lost()]

    def _stages(self) -> tuple[str, Cells]:
        found, asked = self.overall, self.requests
        columns = ["after", "precision", "recall"]
        rows = [
            ["candidates", shown(found.candidate_precision), shown(found.candidate_recall)],
            ["decisions", shown(found.label_precision), shown(found.label_recall)],
        ]
        if asked != Requests():
            columns += ["requests per image", "recall per request"]
            rows[0] += [shown(asked.candidates, 2), shown(self.recall_per_request("candidates"))]
            rows[1] += [shown(asked.labels, 2), shown(self.recall_per_request("labels"))]
        return "stages", (columns, rows)

    def _decisions(self) -> tuple[str, Cells]:
        found = self.overall
        columns = ("candidates that are", "all", "yes", "no", "unknown", "never proposed")
        present = (found.proposed, found.kept, found.removed, found.unknown, found.lost)
        absent = (found.absent, found.wrongly_kept, found.rightly_removed, found.absent_unknown)
        rows = [
            ("present", *(f"{number:,}" for number in present)),
            ("absent", *(f"{number:,}" for number in absent), "-"),
        ]
        return "what the decisions kept (yes) and removed (no)", (columns, rows)

    def _lost(self) -> Sequence[tuple[str, Cells]]:
        ordered = sorted((each for each in self.labels if each.lost), key=lambda each: -each.lost)
        columns = ("label", "present", "never proposed", "candidate recall")
        rows = [
            (each.name, f"{each.present:,}", f"{each.lost:,}", shown(each.candidate_recall, 3))
            for each in ordered[:SHOWN]
        ]
        return [("lost for good, label by label, the most first", (columns, rows))] if rows else ()

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        per_request = {stage: self.recall_per_request(stage) for stage in ("candidates", "labels")}
        return {
            **self.overall.to_json(),
            "requests_per_image": rounded(asdict(self.requests)),
            "recall_per_request": rounded(per_request),
            "labels": [each.to_json() for each in self.labels],
        }


def audit_stages(
    comparison: Comparison,
    requests: Requests = Requests(),  # noqa: B008 (frozen)
) -> StageAudit | None:
    """Count what the stages of a label table did; None for a candidate table, which decides nothing."""
    if comparison.stage != "labels":
        return None
    entries, judgments = comparison.entries, comparison.judgments
    size = (len(entries.ids), len(entries.names))
    said = judgments.of(entries.cells)
    is_yes, is_unknown = (entries.flags & PREDICTED) > 0, (entries.flags & UNDECIDED) > 0

    def by_label(which: Array) -> Array:
        return np.bincount(entries.labels[which], minlength=size[1])

    counts = [judgments.count(PRESENT, *size)]
    for value in (PRESENT, ABSENT):
        here = said == value
        counts += map(by_label, (here, here & is_yes, here & ~is_yes & ~is_unknown, here & is_unknown))
    table = np.stack(counts, axis=1)
    labels = [StageCounts(name, *line) for name, line in zip(entries.names, table.tolist(), strict=True)]
    return StageAudit(StageCounts("overall", *table.sum(axis=0).tolist()), tuple(labels), requests)
