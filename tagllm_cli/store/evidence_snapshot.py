"""The evidence of a table as it is at this moment, also while a run is writing it, and on a disk that takes no writes.

Nothing is locked, created, migrated or merged (`evidence_queries`).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import struct
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tagllm_cli.errors import TableError
from tagllm_cli.store import evidence_queries
from tagllm_cli.store.damage import damage_as_table_error, damaged
from tagllm_cli.store.evidence_layout import LAYOUT
from tagllm_cli.store.evidence_queries import TOO_FAST, UnreadableError
from tagllm_cli.store.human_labels import HumanDecision, plain_decisions
from tagllm_cli.store.people import People, people_of
from tagllm_cli.store.run_records import RunRecord

# The bytes that SQLite locks: https://www.sqlite.org/src/file/src/os.h
_SHARED_FIRST, _SHARED_SIZE = 0x40000002, 510


@dataclass(frozen=True, slots=True)
class EvidenceSnapshot:
    """What an evidence file says about its table and its runs.

    Args:
        path: the file.
        bytes: its size, with its log.
        runs: in the order in which they started, those of merged tables after the others.
        meta: JSON values of its entries (`plan`, `source`, `part`, `merged`, `unread`), as far as there are.
        images: images on record.
        completed: those of them that have all their answers; None where nobody has counted: the table tells.
        is_being_written: another process has it open for writing.
        people: what people decided, None where nobody decided anything.
    """

    path: Path
    bytes: int
    runs: tuple[RunRecord, ...]
    meta: Mapping[str, Any]
    images: int
    completed: int | None
    is_being_written: bool
    people: People | None = None

    @property
    def merged_tables(self) -> int:
        """The number of tables that were merged into this one."""
        return len((self.meta.get("merged") or {}).get("parts", ()))


def read_evidence(path: Path, *, progress: bool = False) -> EvidenceSnapshot | None:
    """Return what an evidence file says at this moment, None where there is none, or an empty one.

    `progress`: count the images that have all their answers, also where no run is under way.

    Raises:
        TableError: it is no evidence, damaged, of a newer release, or written faster than it can be read.
    """
    if not path.is_file() or not path.stat().st_size:
        return None
    is_locked = is_being_written(path)
    return _snapshot(path, _read(path, progress=progress), is_locked)


def read_decisions(path: Path) -> list[HumanDecision]:
    """Return all that people decided, by an evidence file at this moment; none where there is no file.

    Raises what `read_evidence` raises.
    """
    if not path.is_file() or not path.stat().st_size:
        return []
    found = _read(path, what="decisions")
    _check(path, found)
    return plain_decisions(path, found["decisions"], found["sets"])


def _read(path: Path, *, progress: bool = False, what: str = "info") -> Mapping[str, Any]:
    try:
        return _read_anyhow(path, progress, what)
    except UnreadableError as error:
        if TOO_FAST in str(error):
            raise TableError(f"{path} is {TOO_FAST}", "Try again in a moment.") from error
        raise damaged(path, error) from error


def _read_anyhow(path: Path, progress: bool, what: str) -> Mapping[str, Any]:
    if evidence_queries.state(str(path))[0] == "file":
        with contextlib.suppress(UnreadableError):  # a run may have begun meanwhile: the other way tells
            return evidence_queries.read_now(str(path), progress=progress, what=what)
    command = [sys.executable, "-I", evidence_queries.__file__, str(path), what]
    done = subprocess.run(command, capture_output=True, check=False, text=True, encoding="utf-8")
    if done.returncode:
        raise UnreadableError(done.stderr.strip() or f"reading it ended with exit code {done.returncode}")
    found: Mapping[str, Any] = json.loads(done.stdout)
    return found


def _check(path: Path, found: Mapping[str, Any]) -> None:
    if found["application_id"] != LAYOUT.application_id:
        raise TableError(f"{path} is no evidence of tagllm", "Put the table's own evidence beside it.")
    if found["format"] > LAYOUT.format:
        raise TableError(f"{path} was written by a newer tagllm (format {found['format']})", "Upgrade tagllm.")


def _snapshot(path: Path, found: Mapping[str, Any], is_locked: bool) -> EvidenceSnapshot:
    _check(path, found)
    with damage_as_table_error(path):
        runs = tuple(RunRecord.of(run, found["answers"].get(str(run[0]))) for run in found["runs"])
        meta = {key: json.loads(value) for key, value in found["meta"].items()}
        people = None if found["people"] is None else people_of(found["people"])
    size = sum(each.stat().st_size for each in (path, _log(path)) if each.exists())
    return EvidenceSnapshot(path, size, runs, meta, found["images"], found["completed"], is_locked, people)


def _log(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def is_being_written(path: Path) -> bool:
    """Tell whether a process holds SQLite's lock for writing on a file, without taking one. Linux only; else False."""
    if sys.platform != "linux":
        return False
    asked = struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, _SHARED_FIRST, _SHARED_SIZE, 0)  # struct flock
    with contextlib.suppress(OSError), path.open("rb") as file:  # a file system without locks
        return bool(struct.unpack_from("h", fcntl.fcntl(file, fcntl.F_GETLK, asked))[0] != fcntl.F_UNLCK)
    return False
