"""What the user says about an import."""

from __future__ import annotations

from dataclasses import dataclass

from tagllm_cli.evaluation.truth.base import TruthOptions


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """How files are taken in.

    Args:
        complete: of every image that was gone through, each label that is not listed is no.
        only_changes: only what differs from what the table says is recorded.
        withdraw: what the files said before is taken back.
        who: who decided, where a file does not say.
        labels: the labels to take in, None: all.
        dry_run: nothing is changed.
        reading: how a sheet is read.
    """

    complete: bool = False
    only_changes: bool = False
    withdraw: bool = False
    who: str = ""
    labels: tuple[str, ...] | None = None
    dry_run: bool = False
    reading: TruthOptions = TruthOptions()  # noqa: RUF009 (frozen)
