"""`tagllm report`: one HTML file about a table, with or without a truth, beside other tables or alone."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import tagllm_cli
from tagllm_cli.errors import UsageError
from tagllm_cli.evaluation import info_text
from tagllm_cli.evaluation.cost import HUMAN_PRICE, Prices
from tagllm_cli.evaluation.frontier import candidates_of
from tagllm_cli.evaluation.html.page import check_page, is_page, render
from tagllm_cli.evaluation.html.thumbnails import Thumbnail, make_thumbnails
from tagllm_cli.evaluation.report import contents, gallery
from tagllm_cli.evaluation.report.card import check_card, write_card
from tagllm_cli.evaluation.report.contents import Section
from tagllm_cli.evaluation.report.measured import Measured, measure, reliability_curve
from tagllm_cli.evaluation.report.rows import TableRows, read_rows
from tagllm_cli.evaluation.report.selection import choose, counted
from tagllm_cli.evaluation.report.subject import Subject, read_subject
from tagllm_cli.evaluation.table_info import InfoReport, report_tables
from tagllm_cli.evaluation.truth.base import TruthOptions
from tagllm_cli.evaluation.truth_summary import doubts, not_judged
from tagllm_cli.sources.registry import reopen
from tagllm_cli.store.atomic import replacing
from tagllm_cli.store.table import open_table

HERE = Path(__file__).parent
IMAGES = 500
PICTURE_BYTES = 13_000  # of WebP, of one image
MOST_PICTURE_BYTES = 27_000_000  # of all; a third more as text: the file stays below 40 MB


@dataclass(frozen=True, slots=True)
class ReportOptions:
    """What a report shows.

    Args:
        truth: a file of human labels; None: none.
        others: tables of the same images to compare with.
        images: how many images the gallery shows.
        root: where the images are now; None: where the table says.
        seed: of the share of the gallery that is random.
    """

    truth: Path | None = None
    others: Sequence[Path] = ()
    images: int = IMAGES
    root: str | None = None
    seed: int = 0
    truth_options: TruthOptions = field(default_factory=TruthOptions)
    include_human: bool = False
    prices: Prices = field(default_factory=Prices)
    human_price: float = HUMAN_PRICE


@dataclass(frozen=True, slots=True)
class ReportSummary:
    """What was written: a page, a dataset card, or both.

    `chosen` counts the images of the gallery by why they were chosen, `reasons` those without a picture by why there is
    none; `bytes` is the size of the page.
    """

    page: Path | None
    card: Path | None
    images: int
    measured: Measured | None
    bytes: int = 0
    chosen: Mapping[str, int] = field(default_factory=dict)
    reasons: Mapping[str, int] = field(default_factory=dict)
    warnings: Sequence[str] = ()

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain JSON values."""
        return {
            "report": None if self.page is None else str(self.page),
            "card": None if self.card is None else str(self.card),
            "bytes": self.bytes,
            "images": self.images,
            "chosen": dict(self.chosen),
            "without_picture": dict(self.reasons),
            "warnings": list(self.warnings),
            "evaluation": self.measured.evaluation.to_json() if self.measured else None,
            "intervals": self.measured.intervals.to_json() if self.measured else None,
        }

    def lines(self) -> list[str]:
        """Return the same as lines of text."""
        lines = []
        if self.page is not None:
            lines.append(f"report of {self.images:,} images: {self.page}, {self.bytes / 1e6:,.1f} MB")
        if self.chosen:
            reasons = ", ".join(f"{count:,} {_REASONS[why]}" for why, count in self.chosen.items())
            lines.append(f"the gallery shows {sum(self.chosen.values()):,} of them: {reasons}")
        if self.card is not None:
            lines.append(f"dataset card: {self.card}")
        return lines


_REASONS = {
    "error": "by errors",
    "suspect": "where people are probably wrong",
    "disagreement": "by disagreement of tables",
    "doubt": "by doubt",
    "random": "at random",
    "rest": "as the rest of the table",
    "failed": "that failed",
}


def write_report(path: Path, out: Path | None, card: Path | None, options: ReportOptions) -> ReportSummary:
    """Write the report of the table at `path`, a dataset card, or both.

    Raises UsageError for tables, a truth or a `root` that cannot be used, and where `out` or `card` is another file.
    """
    if out is not None:
        check_page(out)
    if card is not None:
        if out is not None and os.path.realpath(out) == os.path.realpath(card):
            raise UsageError(f"--out and --card both name {out}", "Give the page and the card a file each.")
        check_card(card)
    if out is not None and options.root is not None:
        reopen(open_table(path).info.source, options.root)
    subject = read_subject(
        path, options.truth, options.others, options.truth_options, include_human=options.include_human
    )
    summary = ReportSummary(out, card, len(subject.entries.ids), None)
    chosen = choose(subject, options.images, options.seed) if out is not None else []
    rows = read_rows(subject.table, [row for row, _ in chosen])
    with ThreadPoolExecutor(1) as pool:  # pictures are decoded while the figures are computed
        shown = pool.submit(_pictures, subject, chosen, rows, options)
        measured = measure(subject, include_human=options.include_human, seed=options.seed, prices=options.prices)
        if measured and subject.judged:
            found = measured.evaluation
            summary = replace(
                summary, measured=measured, warnings=[*doubts(found, subject.judged.truth), *not_judged(found)]
            )
        if out is not None:
            summary = _write_page(out, summary, subject, chosen, rows, shown, options)
    if card is not None:
        write_card(card, subject, measured)
    return summary


def _write_page(
    out: Path,
    summary: ReportSummary,
    subject: Subject,
    chosen: Sequence[tuple[int, str]],
    rows: TableRows,
    shown: Future[list[Thumbnail]],
    options: ReportOptions,
) -> ReportSummary:
    curves = contents.plots(subject)
    info = report_tables(_with_candidates(subject.table.path), options.prices, options.human_price)
    pictures = shown.result()
    reasons = Counter(each.reason.partition(":")[0] for each in pictures if not each.webp)
    warnings = [*summary.warnings, *info.warnings]
    if reasons:
        counts = ", ".join(f"{why} ({count:,})" for why, count in reasons.most_common())
        warnings.append(f"images of the gallery without a picture: {reasons.total():,}, for {counts}")
    summary = replace(summary, chosen=counted(chosen), reasons=reasons, warnings=warnings)
    data = {**_data(subject, summary.measured, chosen, rows, pictures), **curves}
    values = _values(subject, summary, rows, info)
    with replacing(out, is_ours=is_page) as new:
        new.write_text(render(HERE, "report", data, values, libraries=["uplot", "gallery"]), encoding="utf-8")
        return replace(summary, bytes=new.stat().st_size)


def _with_candidates(path: Path) -> list[Path]:
    """Return the table, after the candidate table that `tagllm run` wrote beside it, if it did: for the whole cost."""
    candidates = candidates_of(path)
    return [candidates, path] if candidates.is_file() else [path]


def _pictures(
    subject: Subject, chosen: Sequence[tuple[int, str]], rows: TableRows, options: ReportOptions
) -> list[Thumbnail]:
    images = gallery.wanted(subject, chosen, rows.details)
    limit = min(MOST_PICTURE_BYTES, PICTURE_BYTES * len(images))
    return list(make_thumbnails(subject.table.info.source, options.root, images, limit))


def _data(
    subject: Subject,
    measured: Measured | None,
    chosen: Sequence[tuple[int, str]],
    rows: TableRows,
    pictures: Sequence[Thumbnail],
) -> dict[str, Any]:
    """Return what the page's script shows."""
    return {
        "labels": list(subject.entries.names),
        "arms": list(subject.entries.arm_names),
        "tables": [each.name for each in subject.others],
        "thresholds": subject.thresholds.tolist(),
        "stage": subject.table.info.stage,
        "judged": subject.judged is not None,
        "rows": contents.label_rows(subject, measured.evaluation, measured.intervals)
        if measured
        else contents.label_rows(subject),
        "reliability": reliability_curve(measured.reliability if measured else None),
        "frontier": measured.frontier.to_json() if measured and measured.frontier else None,
        "concepts": contents.cards_of(subject),
        "images": gallery.cards(subject, chosen, rows.details, pictures),
    }


def _values(subject: Subject, summary: ReportSummary, rows: TableRows, info: InfoReport) -> dict[str, Any]:
    """Return what the page's template shows."""
    table, measured = info.tables[-1], summary.measured
    sections = [
        *(measured.sections if measured else ()),
        contents.agreement(subject),
        contents.suspects(subject),
        contents.failures(rows),
        contents.unknown_answers(rows),
    ]
    return {
        "title": subject.table.path.name,
        "stage": subject.table.info.stage,
        "statuses": contents.status_counts(subject),
        "labels_per_image": _per_image(subject),
        "figures": contents.figures(measured.evaluation, measured.intervals) if measured else [],
        "rounds": measured.intervals.rounds if measured else 0,
        "evaluation": measured.evaluation if measured else None,
        "truth": subject.judged.truth if subject.judged else None,
        "warnings": summary.warnings,
        "numeric": contents.numeric,
        "sections": contents.present(sections),
        "cost": _cost(info),
        "facts": info_text.facts(table),
        "templates": {
            name: {"system": each["system"], "text": each["text"]}
            for name, each in sorted(table.info.plan.get("templates", {}).items())
        },
        "chosen": {_REASONS[why]: count for why, count in summary.chosen.items()},
        "has_concepts": bool(contents.cards_of(subject)),
        "version": tagllm_cli.__version__,
        "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def _per_image(subject: Subject) -> float:
    given: int = sum(row["yes"] for row in contents.label_rows(subject))
    return given / max(1, len(subject.answered))


def _cost(info: InfoReport) -> Section | None:
    if not info.together.requests and not info.together.seconds:
        return None
    tables = [("each stage", info_text.costs(info))]
    if runs := info_text.runs(info.tables[-1], info.prices):
        tables.append((f"runs of {info.tables[-1].path.name}", runs))
    tables.append(("beside people", (("", ""), info_text.human(info))))
    return Section("cost", "Cost", "", tables)
