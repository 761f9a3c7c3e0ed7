"""`tagllm diff`: what changed between two tables, why, and a page that shows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tagllm_cli.evaluation.diff.compare import compare_tables
from tagllm_cli.evaluation.diff.gates import parse_gates
from tagllm_cli.evaluation.diff.page import write_page
from tagllm_cli.evaluation.diff.summary import DiffSummary
from tagllm_cli.evaluation.html.page import check_page
from tagllm_cli.sources.registry import reopen
from tagllm_cli.store.table import open_table

EXAMPLES = 20


@dataclass(frozen=True, slots=True)
class DiffOptions:
    """What is told of a comparison.

    Args:
        gates: largest shares, such as `labels=0.02`.
        limit: how many flips are listed.
        page: HTML page to write; None: none.
        images: how many images the page shows.
        root: where the images of the second table are now; None: where it says.
    """

    gates: Sequence[str] = ()
    limit: int = EXAMPLES
    page: Path | None = None
    images: int = 500
    root: str | None = None


def diff_tables(first: Path, second: Path, options: DiffOptions = DiffOptions()) -> DiffSummary:
    """Compare two tables of the same stage, and write the page, if one is named.

    Raises UsageError for gates, tables, a page or a root that cannot be used; a gate that is missed is no exception but
    the `error` of the summary.
    """
    gates = parse_gates(options.gates)
    if options.page is not None:
        check_page(options.page)
        if options.root is not None:
            reopen(open_table(second).info.source, options.root)
    most = max(options.limit, options.images if options.page is not None else 0)
    summary = DiffSummary(compare_tables(first, second, most), options.limit, gates, options.page)
    if options.page is None:
        return summary
    warnings = write_page(options.page, summary, options.images, options.root)
    return replace(summary, warnings=warnings)
