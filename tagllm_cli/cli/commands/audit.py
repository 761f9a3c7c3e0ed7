"""`tagllm audit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tagllm_cli.cli.option_groups import OutputGroup
from tagllm_cli.cli.options.measuring import AuditConcepts, AuditOut, AuditSeed, AuditSize
from tagllm_cli.cli.options.shared import Config, Root


def audit(
    table: Annotated[Path, typer.Argument(metavar="TABLE", help="Label or candidate table.", show_default=False)],
    *,
    out: AuditOut,
    size: AuditSize = 500,
    seed: AuditSeed = 0,
    root: Root = None,
    concepts: AuditConcepts = None,
    config: Config = None,
    output: OutputGroup,
) -> None:
    """Draw pairs of image and label for people to answer: quality without human labels of every image.

    [dim]tagllm audit labels.parquet --size 500 --out audit/
    tagllm evaluate labels.parquet --audit audit/audit.csv

    Answer on the page audit/audit.html (keys y, n, u), which never shows what the model said, or fill in audit.csv.[/]
    """
    from tagllm_cli.cli.outcome import show
    from tagllm_cli.evaluation.audit.create import create_audit

    console = output.console()
    show(create_audit(table, out, size=size, seed=seed, root=root, concepts=concepts), console)
