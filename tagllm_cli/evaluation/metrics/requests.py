"""How many requests an image took in each stage, by the run records beside a label table and its candidate table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tagllm_cli.errors import TableError
from tagllm_cli.evaluation.cost import Cost
from tagllm_cli.evaluation.frontier import candidates_of
from tagllm_cli.store.evidence_snapshot import read_evidence
from tagllm_cli.store.merge.parts import evidence_of


@dataclass(frozen=True, slots=True)
class Requests:
    """Requests per image, failed and repeated ones included; None where no run is on record."""

    candidates: float | None = None
    labels: float | None = None


def requests_on_record(table: Path, candidates: Path | None = None) -> Requests:
    """Return what was asked for a label table and for its candidates (`candidates_of`)."""
    return Requests(_per_image(candidates_of(table, candidates)), _per_image(table))


def _per_image(table: Path) -> float | None:
    try:
        evidence = read_evidence(evidence_of(table))
    except TableError:
        return None
    requests = sum(Cost.of(run).requests for run in evidence.runs) if evidence else 0
    return requests / evidence.images if evidence and evidence.images and requests else None
