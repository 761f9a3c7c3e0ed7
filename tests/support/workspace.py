"""Fixture for labeling jobs: a folder of tiny images, a vocabulary file, two tables and a synthetic engine."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image as Pixels

from tagllm_cli.engines.base import Engine
from tagllm_cli.engines.factory import ModelOptions
from tagllm_cli.pipeline.label.job import Job, RunOptions
from tagllm_cli.pipeline.label.jobs import candidates_job, disambiguate_job, follow_up_job
from tagllm_cli.pipeline.label.one_pass import run_both
from tagllm_cli.pipeline.label.run import run_job
from tagllm_cli.pipeline.label.summary import DryRun, Summary
from tagllm_cli.pipeline.progress import Silent
from tagllm_cli.records import Row
from tagllm_cli.store.table import open_table
from tests.support.rule_engine import RuleEngine

LABELS = ("cat", "dog", "cow", "sheep", "cup", "fork", "spoon", "plate")
# The engine is put in by `Workspace`: this only gives the model its name.
MODEL = ModelOptions(replay=Path("nothing"), model_id="rules")
DEFAULTS = RunOptions()


def paint(path: Path, seed: int) -> Path:
    """Write an image of 8 x 8 pixels that no other seed has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Pixels.fromarray(pixels).save(path, compress_level=0)
    return path


class Workspace:
    """Everything lies below `root`; each run asks the engine that is in `engine` at that time."""

    def __init__(self, root: Path, images: int = 0) -> None:
        self.images = root / "images"
        self.source: str | None = None  # None: the folder of images
        self.source_format: str | None = None
        self.out = root / "out" / "c.parquet"
        self.labels_out = root / "out" / "l.parquet"
        self.vocabulary = root / "vocabulary.yaml"
        self.engine = RuleEngine()
        self.images.mkdir(parents=True)
        self.write_vocabulary(LABELS)
        for number in range(images):
            self.paint(number)

    def paint(self, number: int, name: str | None = None) -> Path:
        """Write an image into the folder."""
        return paint(self.images / (name or f"{number:03d}.png"), number)

    def write_vocabulary(self, labels: Iterable[str | Mapping[str, Any]]) -> None:
        """Write the vocabulary file; labels are names or mappings."""
        entries = [{"name": label} if isinstance(label, str) else dict(label) for label in labels]
        self.vocabulary.write_text(yaml.safe_dump({"name": "tiny", "labels": entries}), encoding="utf-8")

    def candidates_job(self, options: RunOptions = DEFAULTS, **settings: Any) -> Job:
        """Return the job of `tagllm candidates`: two arms of groups of 4 labels unless `settings` say otherwise."""
        settings = {"group_size": 5, "source_format": self.source_format, **settings}
        job = candidates_job(
            self.source or str(self.images), str(self.vocabulary), self.out, MODEL, options, **settings
        )
        return self._with_engine(job)

    def labels_job(self, options: RunOptions = DEFAULTS, **settings: Any) -> Job:
        """Return the job of `tagllm disambiguate`."""
        return self._with_engine(disambiguate_job(self.out, self.labels_out, MODEL, options, **settings))

    def _with_engine(self, job: Job) -> Job:
        make: Callable[[Any], Engine] = lambda plan: self.engine  # noqa: E731 (a type for mypy)
        return replace(job, engine=make)

    def candidates(self, settings: Mapping[str, Any] | None = None, **options: Any) -> Summary:
        """Run `candidates`; `options` are those of RunOptions."""
        return self._finished(self.candidates_job(RunOptions(**options), **(settings or {})), options)

    def disambiguate(self, settings: Mapping[str, Any] | None = None, **options: Any) -> Summary:
        """Run `disambiguate`."""
        return self._finished(self.labels_job(RunOptions(**options), **(settings or {})), options)

    def both(
        self, settings: Mapping[str, Any] | None = None, labels: Mapping[str, Any] | None = None, **options: Any
    ) -> tuple[Summary, Summary | None]:
        """Run both stages in one pass: `settings` are of the candidates, `labels` of the second stage."""
        self.engine.asked.clear()
        chosen = RunOptions(**options)
        first = self.candidates_job(chosen, **(settings or {}))
        second = self._with_engine(follow_up_job(first, self.labels_out, MODEL, chosen, **(labels or {})))
        summaries = run_both(first, second, chosen, Silent())
        assert isinstance(summaries[0], Summary)
        assert not isinstance(summaries[1], DryRun)
        return summaries[0], summaries[1]

    def dry_run(self, **options: Any) -> DryRun:
        """Run `candidates --dry-run`."""
        options = {**options, "dry_run": True}
        report = run_job(self.candidates_job(RunOptions(**options)), RunOptions(**options), Silent())
        assert isinstance(report, DryRun)
        return report

    def _finished(self, job: Job, options: Mapping[str, Any]) -> Summary:
        self.engine.asked.clear()
        summary = run_job(job, RunOptions(**options), Silent())
        assert isinstance(summary, Summary)
        return summary

    def rows(self, table: Path | None = None) -> dict[str, Row]:
        """Return the candidate table's rows, or another's, by image id."""
        rows = list(open_table(table or self.out).rows())
        found = {row.image_id: row for row in rows}
        assert len(found) == len(rows)
        return found

    def statuses(self, table: Path | None = None) -> dict[str, str]:
        """Return the status of each row by image id."""
        return {name: row.status.value for name, row in self.rows(table).items()}


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Return every file's bytes below `folder` (None for a folder) by path."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def recorded(path: Path) -> dict[str, list[Any]]:
    """Return all that an evidence file says, but for when it was written, by which run, and in how many commits."""
    keys = [key for (key,) in evidence_rows(path, "SELECT key FROM meta ORDER BY key")]
    return {
        "meta": [
            evidence_rows(path, f"SELECT value FROM meta WHERE key = '{key}'")
            for key in keys
            if key not in ("revision", "table", "earlier")
        ],
        "images": evidence_rows(
            path,
            """SELECT id, position, uri, version, fingerprint, width, height, error_kind, error, proposed, shard,
            completed FROM image ORDER BY id""",
        ),
        "shards": evidence_rows(path, "SELECT name, version FROM shard ORDER BY name"),
        "answers": evidence_rows(
            path,
            """SELECT key, text, finish, logprobs, prompt_tokens, cached_tokens, output_tokens FROM response
            ORDER BY key""",
        ),
        "failures": evidence_rows(path, "SELECT key, kind, message FROM failed_request ORDER BY key"),
    }


def evidence_rows(path: Path, query: str) -> list[Any]:
    """Return the rows of an SQL query on an evidence file."""
    connection = sqlite3.connect(path)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()
