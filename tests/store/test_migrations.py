"""What release 0.1.0 wrote is opened, resumed, exported and rebuilt; answers that were none are asked again."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tagllm_cli.errors import TableError
from tagllm_cli.export.registry import export_table
from tagllm_cli.records import Failure, Response, SourceInfo
from tagllm_cli.store.checksums import checksum, set_checksums
from tagllm_cli.store.evidence import Evidence
from tagllm_cli.store.table import open_table
from tests.support.workspace import Workspace, evidence_rows

RELEASE = Path(__file__).parents[1] / "data" / "release_0_1"
RETRIED = bytes.fromhex("cbc449be7096d9d74db87d5fd9d50228")  # the one request that failed
ROOT = SourceInfo("folder", "/data/release/images")


@pytest.fixture
def released(tmp_path: Path) -> Workspace:
    """A copy of what the release left, at another place, with the times that it had."""
    workspace = Workspace(tmp_path)
    shutil.copytree(RELEASE / "images", workspace.images, dirs_exist_ok=True)
    shutil.copyfile(RELEASE / "vocabulary.yaml", workspace.vocabulary)
    workspace.out.parent.mkdir()
    for name in ("c.parquet", "c.evidence", "l.parquet", "l.evidence"):
        shutil.copyfile(RELEASE / name, workspace.out.with_name(name))
    for name, time in evidence_rows(RELEASE / "c.evidence", "SELECT id, mtime_ns FROM image"):
        os.utime(workspace.images / name, ns=(time, time))
    return workspace


def test_its_tables_are_read(released: Workspace) -> None:
    for path, labels in ((released.out, 17), (released.labels_out, 21)):
        table = open_table(path)
        assert (table.info.source, len(table)) == (ROOT, 8)
        entries = [entry for row in table.rows() for entry in row.labels or ()]
        assert sum(entry.decision != "unknown" for entry in entries) == labels


def test_its_runs_go_on_and_ask_only_what_had_failed(released: Workspace) -> None:
    before = released.rows()
    summary = released.candidates()
    assert (summary.listing.new, summary.listing.changed, summary.listing.gone) == (0, 0, 0)
    assert (summary.stats.opened, summary.stats.asked) == (1, 1)
    after = released.rows()
    assert after["002.png"].status == "ok"
    assert {name: row for name, row in after.items() if name != "002.png"} == {
        name: row for name, row in before.items() if name != "002.png"
    }
    assert open_table(released.out).info.source == SourceInfo("folder", str(released.images))

    decided = released.rows(released.labels_out)
    summary = released.disambiguate({"root": str(released.images)})
    assert (summary.stats.asked, summary.rows.ok, summary.rows.failed) == (0, 7, 1)  # nothing more was proposed
    now = released.rows(released.labels_out)
    assert now.pop("002.png").labels == ()  # four candidates were undecided
    assert now == {name: row for name, row in decided.items() if name != "002.png"}


def test_its_evidence_is_migrated_once_and_completely(released: Workspace) -> None:
    path = released.out.with_suffix(".evidence")
    old = evidence_rows(path, "SELECT * FROM reply ORDER BY key"), evidence_rows(path, "SELECT id, settled FROM image")
    versions = evidence_rows(path, "SELECT size || '-' || mtime_ns FROM image ORDER BY id")
    for _ in range(2):
        with Evidence(path) as evidence:
            assert evidence.responses([RETRIED]) == [
                Response(failure=Failure("endpoint_failed", "HTTP 500: out of luck"))
            ]
            assert evidence.revision == 1
    with Evidence(path.with_name("new.evidence")):
        pass
    columns = "SELECT m.name, p.name, p.type, p.pk FROM sqlite_master m, pragma_table_info(m.name) p ORDER BY 1, 2"
    assert evidence_rows(path, columns) == evidence_rows(path.with_name("new.evidence"), columns)
    answers = evidence_rows(path, "SELECT * FROM response ORDER BY key")
    assert [(*values, checksum is None) for *values, checksum in answers] == [(*values, False) for values in old[0]]
    assert evidence_rows(path, "SELECT id, completed FROM image") == old[1]
    assert evidence_rows(path, "SELECT version FROM image ORDER BY id") == versions
    assert evidence_rows(path, "PRAGMA user_version") == [(5,)]
    assert evidence_rows(path, "PRAGMA integrity_check") == [("ok",)]
    assert evidence_rows(path, "SELECT id, engine FROM run") == [(1, None)]


def test_its_tables_are_exported(released: Workspace, tmp_path: Path) -> None:
    summary = export_table(released.labels_out, "jsonl", tmp_path / "labels.jsonl")
    assert (summary.images, summary.labels, dict(summary.left_out)) == (7, 11, {"failed": 1})


def test_its_tables_are_rebuilt_offline(released: Workspace) -> None:
    shutil.rmtree(released.images)
    before = [released.rows(table) for table in (released.out, released.labels_out)]
    for table in (released.out, released.labels_out):
        table.unlink()
    assert released.candidates(offline=True, missing_unknown=True).rows.total == 8
    assert released.disambiguate(offline=True).rows.total == 8
    for table, rows in zip((released.out, released.labels_out), before, strict=True):
        after = released.rows(table)
        assert {name: row.labels for name, row in after.items()} == {name: row.labels for name, row in rows.items()}
        assert [row.status for row in after.values()] == [row.status for row in rows.values()]


NONE = [  # text, finish reason, log-probabilities, the kind of failure that it is (None: an answer)
    ("", "stop", None, "empty_answer"),
    (" \n\t\r", "stop", None, "empty_answer"),
    ("", "stop", '{"yes":-0.1}', None),
    ("cat, do", "length", None, "truncated"),
    ("yes", "length", '{"yes":-0.1}', None),
    ("", "content_filter", None, "filtered"),
    ("cat", "content_filter", '{"cat":-0.1}', "filtered"),
    ("", "tool_calls", None, "filtered"),
    ("cat", "abort", None, "filtered"),
    ("none", "stop", None, None),
]


@pytest.mark.parametrize(("text", "finish", "logprobs", "kind"), NONE)
def test_recorded_answers_that_are_none_become_failed_requests(
    released: Workspace, text: str, finish: str, logprobs: str | None, kind: str | None
) -> None:
    path = released.out.with_suffix(".evidence")
    with closing(sqlite3.connect(path)) as database:
        database.execute(
            "UPDATE reply SET text = ?, finish = ?, logprobs = ? WHERE key = (SELECT min(key) FROM reply)",
            (text, finish, logprobs),
        )
        database.commit()
        ((key,),) = database.execute("SELECT min(key) FROM reply").fetchall()
    with Evidence(path) as evidence:
        (response,) = evidence.responses([key])
        assert response is not None
        assert (response.failure and response.failure.kind) == kind
        completed = {image.completed is not None for image in evidence.iter_recorded() if not image.failed}
    assert completed == ({False} if kind else {True, False})


def test_a_filtered_image_is_asked_about_again(released: Workspace) -> None:
    path = released.out.with_suffix(".evidence")
    with closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE reply SET text = '', finish = 'content_filter' WHERE text = 'cat, dog, cow'")
        database.commit()
    summary = released.candidates()
    assert summary.stats.asked == 2  # with the request that had failed
    assert summary.rows.ok == 7


# What format 3 had where later ones differ, as of its last commit.
FORMAT_3 = """
    DROP TABLE human_decision;
    DROP TABLE label_set;
    DROP TABLE shard;
    CREATE TABLE image_3 (id TEXT PRIMARY KEY, position INTEGER NOT NULL, uri TEXT NOT NULL, version TEXT NOT NULL,
        fingerprint BLOB, width INTEGER, height INTEGER, error_kind TEXT, error TEXT, proposed TEXT, completed BLOB,
        revision INTEGER NOT NULL, checksum BLOB) WITHOUT ROWID;
    INSERT INTO image_3 SELECT id, position, uri, version, fingerprint, width, height, error_kind, error, proposed,
        completed, revision, NULL FROM image;
    DROP TABLE image;
    ALTER TABLE image_3 RENAME TO image;
    CREATE INDEX image_position ON image (position, id);
    PRAGMA user_version = 3;
"""
IMAGE_3 = (
    "id", "position", "uri", "version", "fingerprint", "width", "height", "error_kind", "error", "proposed",
    "completed", "revision",
)  # fmt: skip


@pytest.fixture
def format_3(tmp_path: Path) -> Workspace:
    """A finished table whose evidence is in format 3."""
    workspace = Workspace(tmp_path, 8)
    (workspace.images / "torn.png").write_bytes((workspace.images / "000.png").read_bytes()[:60])
    workspace.candidates(max_failed_rate=1.0)
    with closing(sqlite3.connect(workspace.out.with_suffix(".evidence"))) as evidence:
        evidence.create_function("checksum", 1, checksum, deterministic=True)
        evidence.executescript(FORMAT_3)
        evidence.execute(set_checksums("image", IMAGE_3))
        evidence.commit()
    return workspace


def test_format_3_has_nothing_to_do(format_3: Workspace) -> None:
    before = format_3.out.read_bytes()
    summary = format_3.candidates(max_failed_rate=1.0)
    assert (summary.stats.opened, summary.stats.asked, summary.rows.ok) == (0, 0, 8)
    assert format_3.out.read_bytes() == before
    assert evidence_rows(format_3.out.with_suffix(".evidence"), "PRAGMA user_version") == [(5,)]
    format_3.paint(100, "new.png")
    assert format_3.candidates(max_failed_rate=1.0).stats.asked == 4
    assert list(format_3.rows())[-2:] == ["new.png", "torn.png"]


def test_what_is_damaged_in_format_3_stays_damaged(format_3: Workspace) -> None:
    with closing(sqlite3.connect(format_3.out.with_suffix(".evidence"))) as evidence:
        evidence.execute("UPDATE image SET width = 9 WHERE id = '003.png'")
        evidence.commit()
    with pytest.raises(TableError, match="is damaged"):
        format_3.candidates(offline=True)
    summary = format_3.candidates(max_failed_rate=1.0)
    assert (summary.stats.opened, summary.stats.asked, summary.rows.ok) == (1, 0, 8)
    assert format_3.rows()["003.png"].width == 8
    assert format_3.candidates(offline=True, max_failed_rate=1.0).rows.ok == 8
