"""The report of a run, `labels.run.json` beside `labels.parquet`: what it did, and what the next one need not do again.

It is the last run's; all runs are in the evidence. Each gate and export in it names what it was `made_from`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tagllm_cli.errors import TableError
from tagllm_cli.store.atomic import file_state, replacing

FORMAT = 1
_MARK = "tagllm_run"  # the key under which a report has its format


def report_path(table: Path) -> Path:
    """Return where the report of a table lies.

    >>> str(report_path(Path("a/labels.parquet")))
    'a/labels.run.json'
    """
    return table.with_name(f"{table.name.removesuffix('.parquet')}.run.json")


def read_report(table: Path) -> Mapping[str, Any]:
    """Return the last run's report, {} where there is none, or one of another format: then everything is done again.

    Raises TableError where another file has its name.
    """
    path = report_path(table)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise TableError(f"cannot read {path}: {error}", "Move it away.") from error
    try:
        found = json.loads(text or "{}")
    except ValueError:
        found = None
    if not isinstance(found, dict) or (found and _MARK not in found):
        raise TableError(f"{path} is no report of a run, and would be overwritten", "Move it away.")
    return found if found.get(_MARK) == FORMAT else {}


def write_report(table: Path, value: Mapping[str, Any], redact: Callable[[str], str]) -> None:
    """Put a report in place; `redact` takes secrets out of its text. Raises TableError."""
    text = redact(json.dumps({_MARK: FORMAT, **value}, ensure_ascii=False, indent=2))
    with replacing(report_path(table), TableError) as new:
        new.write_text(f"{text}\n", encoding="utf-8")


def output_state(path: Path) -> Sequence[Any] | None:
    """Return what tells one state of a file, or of a folder with its files, from another; None where there is none."""
    if not path.is_dir():
        return file_state(path)
    files = sorted(each for each in path.rglob("*") if each.is_file())
    return [[os.path.relpath(each, path), *(file_state(each) or ())] for each in files]
