"""The dataset card of a table that was measured: `tagllm report --card README.md`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import tagllm_cli
from tagllm_cli.errors import UsageError
from tagllm_cli.evaluation.entries import HUMAN, UNDECIDED
from tagllm_cli.evaluation.metrics import Evaluation
from tagllm_cli.evaluation.report.contents import figures, label_rows, status_counts
from tagllm_cli.evaluation.report.measured import Measured
from tagllm_cli.evaluation.report.subject import Subject
from tagllm_cli.evaluation.truth_summary import limits_of, not_judged
from tagllm_cli.store.atomic import check_writable_path
from tagllm_cli.store.dataset_card import CardFacts, Quality, card_text, is_untouched, put_card
from tagllm_cli.text import shortened

_WORST = 5
_LEAST_SUPPORT = 10  # a label with fewer positives says little about the model


def check_card(path: Path) -> None:
    """Raise UsageError where a card cannot be written: somebody's own file is never replaced."""
    check_writable_path(path)
    if path.exists() and not is_untouched(path):
        raise UsageError(f"{path} is not as tagllm wrote it", "Move it away, or choose another --card.")


def write_card(path: Path, subject: Subject, measured: Measured | None) -> None:
    """Write the card of the table, with its quality where it was measured."""
    statuses = status_counts(subject)
    left_out: dict[str, int] = {status: statuses[status] for status in ("failed", "pending") if status in statuses}
    flags = subject.entries.flags
    facts = CardFacts(
        images=sum(statuses.values()) - sum(left_out.values()),
        labels={row["name"]: row["yes"] for row in label_rows(subject)},
        unknown=int(((flags & UNDECIDED) > 0).sum()),
        human=int(((flags & HUMAN) > 0).sum()),
        left_out=left_out,
        quality=None if measured is None else _quality(subject, measured),
    )
    put_card(path, card_text(subject.table.info, facts, tagllm_cli.__version__))


def _quality(subject: Subject, measured: Measured) -> Quality:
    assert subject.judged is not None
    evaluation = measured.evaluation
    shown = [(each.name, each.value, each.interval, each.meaning) for each in figures(evaluation, measured.intervals)]
    name = subject.judged.truth.path.name
    return Quality(name, evaluation.images, shown, list(_weak(subject, evaluation)))


def _weak(subject: Subject, evaluation: Evaluation) -> Iterator[str]:
    for limit in (*limits_of(evaluation), *not_judged(evaluation)):
        yield f"{limit[0].upper()}{limit[1:]}."
    supported = [each for each in evaluation.labels if each.support >= _LEAST_SUPPORT]
    if worst := sorted(supported, key=lambda label: label.f1)[:_WORST]:
        shown = (
            f"{each.name} (precision {each.precision:.2f}, recall {each.recall:.2f}, {each.support:,} in the truth)"
            for each in worst
        )
        yield f"The weakest labels by F1: {', '.join(shown)}."
    judged = {each.name for each in evaluation.labels if each.support}
    if unmeasured := [name for name in subject.entries.names if name not in judged]:
        yield f"Labels without an example in the truth, whose recall is not known: {shortened(unmeasured, 12)}."
