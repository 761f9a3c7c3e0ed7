"""A reviewer who knows the truth: answers what a review asks first, and has the answers taken over into the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tagllm_cli.evaluation.report.subject import read_subject
from tagllm_cli.evaluation.review.create import ReviewOptions, choose
from tagllm_cli.evaluation.truth import load_truth, match_images
from tagllm_cli.labeling.human import HumanOverlay
from tagllm_cli.records import Decision
from tagllm_cli.store.table import open_table, write_table


def true_labels(truth: Path, images: Sequence[str]) -> Mapping[str, frozenset[str]]:
    """Return what a truth says, by the table's names of images."""
    said = load_truth(truth)
    return {image: said.labels[key] for image, key in match_images(said, images).keys.items()}


def review(table: Path, truth: Path, answers: int, labels: Sequence[str] = ()) -> int:
    """Answer the first `answers` pairs of a review of the table, and write them into it; return how many there were."""
    opened = open_table(table)
    rows = list(opened.rows())
    true = true_labels(truth, [row.image_id for row in rows])
    pairs = choose(read_subject(table, None, ()), ReviewOptions(limit=answers, labels=labels)).pairs
    decisions: dict[str, dict[str, Decision]] = {}
    for image, label in pairs:
        decisions.setdefault(image, {})[label] = Decision.YES if label in true[image] else Decision.NO
    overlay = HumanOverlay(opened.info)
    write_table(table, opened.info, [overlay.row(row, decisions.get(row.image_id, {})) for row in rows])
    return len(pairs)
