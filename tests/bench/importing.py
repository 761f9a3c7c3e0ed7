"""(18) `import` of 100,000 decisions into a table of 1,000,000 rows: seconds, memory, and the same file again."""

from __future__ import annotations

import argparse
import resource
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

IMAGES, DECISIONS = 1_000_000, 100_000
SPREAD = 7  # every seventh image has a decision

Child = Callable[..., dict[str, Any]]
Say = Callable[[str, str, str, bool], None]


def importing(chosen: argparse.Namespace, child: Child, say: Say) -> None:
    """(18) one decision about each of 100,000 images, by two people, and the same file again."""
    from tests.bench.tables import tables

    folder, copy = chosen.out / "imported", chosen.out / "imported-copy"
    table, _ = tables(folder, IMAGES)
    evidence(table)
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy)
    first = child("imported", str(copy / table.name), str(decisions(table)))
    again = child("imported", str(copy / table.name), str(folder / "decisions.csv"))
    if (first["recorded"], again["recorded"]) != (DECISIONS, 0):
        raise SystemExit(f"{first['recorded']} and {again['recorded']} decisions were recorded")
    what = f"(18) import of {DECISIONS:,} decisions into {IMAGES:,} rows, seconds"
    say(what, f"{first['seconds']:.1f}", "<= 20", first["seconds"] <= 20)
    say("(18) the same file again, seconds", f"{again['seconds']:.1f}", "<= 20", again["seconds"] <= 20)
    say("(18) its resident memory at most (MB)", f"{first['peak_mb']:.0f}", "<= 1500", first["peak_mb"] <= 1500)
    shutil.rmtree(copy)


def evidence(table: Path) -> None:
    """Write what a run leaves beside a table: its images, its plan, and that it is up to date; unless it is there."""
    from tagllm_cli.labeling.row_counts import RowCounts
    from tagllm_cli.store.atomic import file_state
    from tagllm_cli.store.checksums import insert
    from tagllm_cli.store.evidence import Evidence
    from tagllm_cli.store.evidence_layout import LAYOUT
    from tagllm_cli.store.merge.parts import evidence_of
    from tagllm_cli.store.sqlite import SQLiteFile
    from tagllm_cli.store.table import open_table

    path = evidence_of(table)
    if path.exists():
        return
    opened = open_table(table)

    def images() -> Iterator[tuple[Any, ...]]:
        position = 0
        for batch in opened.batches(8192, ["image_id", "fingerprint"]):
            for image, fingerprint in zip(batch["image_id"].to_pylist(), batch["fingerprint"].to_pylist(), strict=True):
                yield image, position, image, "1-1", fingerprint, 8, 8, None, None, "[]", b"done", 1, ""
                position += 1

    file = SQLiteFile(path, LAYOUT)
    file.insert(insert("image", "REPLACE"), images())
    file.close()
    with Evidence(path) as written:
        written.set_meta("plan", dict(opened.info.plan))
        written.set_meta("source", asdict(opened.info.source))
        written.commit()
        state = {"revision": written.revision, "settings": "bench", "file": file_state(table)}
        written.set_meta("table", {**state, "counts": RowCounts(ok=len(opened)).to_json()}, revises=False)


def decisions(table: Path) -> Path:
    """Write the decisions unless they are there; return their path."""
    from tagllm_cli.store.table import open_table

    path = table.with_name("decisions.csv")
    if path.exists():
        return path
    opened = open_table(table)
    names = opened.info.vocabulary.names
    written = number = 0
    with path.open("w", encoding="utf-8") as file:
        file.write("image,label,decision,who\n")
        for batch in opened.batches(8192, ["image_id"]):
            for image in batch["image_id"].to_pylist():
                if number % SPREAD == 0 and written < DECISIONS:
                    said = ("yes", "no")[written % 2]
                    file.write(f"{image},{names[written % len(names)]},{said},{('ann', 'ben')[written % 2]}\n")
                    written += 1
                number += 1
    return path


def imported(table: str, decided: str) -> dict[str, Any]:
    """Import a file; return seconds, megabytes and how many decisions were recorded."""
    from tagllm_cli.evaluation.human_labels.take_in import import_files

    began = time.monotonic()
    summary = import_files(Path(table), [Path(decided)])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": time.monotonic() - began, "peak_mb": peak, "recorded": summary.recorded}
