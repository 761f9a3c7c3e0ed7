"""Flipped bytes in the evidence: the same table, a clean error, or the lost answers asked again; never quietly less."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest

from tagllm_cli.errors import OfflineError, TableError
from tagllm_cli.pipeline.label.summary import Summary
from tagllm_cli.records import Row
from tagllm_cli.store.sqlite import SQLiteFile
from tagllm_cli.store.table import open_table
from tests.support.workspace import Workspace

IMAGES = 60
SEEDS = 40
PAGE = 4096


class World(NamedTuple):
    """A finished run of both stages: the files beside the tables, and the tables' rows."""

    workspace: Workspace
    files: dict[str, bytes]
    rows: dict[str, list[Row]]


def finish(root: Path) -> Workspace:
    workspace = Workspace(root, IMAGES)
    (workspace.images / "torn.png").write_bytes((workspace.images / "000.png").read_bytes()[:60])
    run(workspace, "c.evidence")
    run(workspace, "l.evidence")
    return workspace


def run(workspace: Workspace, evidence: str, *, offline: bool = False) -> Summary:
    label = workspace.candidates if evidence == "c.evidence" else workspace.disambiguate
    return label(offline=offline)


def table_of(workspace: Workspace, evidence: str) -> Path:
    return workspace.out if evidence == "c.evidence" else workspace.labels_out


def rows_of(table: Path) -> list[Row]:
    """Return the rows in order, doubled ones included."""
    return list(open_table(table).rows())


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> World:
    workspace = finish(tmp_path_factory.mktemp("closed"))
    return _world(workspace, {path.name: path.read_bytes() for path in workspace.out.parent.iterdir()})


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> World:
    """What a process leaves that is killed when its table is written: all it recorded is in the write-ahead log."""
    files: dict[str, bytes] = {}
    close = SQLiteFile.close

    def copy_and_close(file: SQLiteFile) -> None:
        file.commit()
        assert file.path is not None
        files.update({path.name: path.read_bytes() for path in file.path.parent.iterdir()})
        close(file)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SQLiteFile, "close", copy_and_close)
        workspace = finish(tmp_path_factory.mktemp("killed"))
    return _world(workspace, files)


def _world(workspace: Workspace, files: dict[str, bytes]) -> World:
    rows = {name: rows_of(table_of(workspace, name)) for name in ("c.evidence", "l.evidence")}
    assert {str(row.status) for row in rows["c.evidence"]} == {"ok", "failed"}
    return World(workspace, files, rows)


def flip(data: bytes, rng: Random) -> bytes:
    """Change one to eight bytes, a fifth of the times on the first page."""
    flipped = bytearray(data)
    end = PAGE if rng.random() < 0.2 else len(data)
    for _ in range(rng.choice((1, 1, 1, 8))):
        flipped[rng.randrange(end)] ^= 1 << rng.randrange(8)
    return bytes(flipped)


def damage(world: World, evidence: str, suffix: str, rng: Random) -> Path:
    """Lay the files anew with flipped bytes in one, half of the times without the table; return the table's path."""
    workspace = world.workspace
    for path in workspace.out.parent.iterdir():
        path.unlink()
    for name, data in world.files.items():
        changed = flip(data, rng) if name == evidence + suffix else data
        workspace.out.with_name(name).write_bytes(changed)
    table = table_of(workspace, evidence)
    if rng.random() < 0.5:
        table.unlink()
    return table


@pytest.mark.parametrize("offline", [False, True])
@pytest.mark.parametrize("seed", range(SEEDS))
def test_flipped_bytes_never_change_a_table_in_silence(closed: World, seed: int, offline: bool) -> None:
    rng = Random(seed)
    evidence = rng.choice(("c.evidence", "l.evidence"))
    table = damage(closed, evidence, "", rng)
    before = table.read_bytes() if table.exists() else None
    try:
        summary = run(closed.workspace, evidence, offline=offline)
    except (TableError, OfflineError):
        assert (table.read_bytes() if table.exists() else None) == before
    else:
        assert (summary.error, rows_of(table)) == (None, closed.rows[evidence])


@pytest.mark.parametrize("offline", [False, True])
@pytest.mark.parametrize("seed", range(SEEDS // 2))
def test_nor_do_flipped_bytes_in_the_log_of_a_killed_run(killed: World, seed: int, offline: bool) -> None:
    rng = Random(seed)
    evidence = rng.choice(("c.evidence", "l.evidence"))
    table = damage(killed, evidence, "-wal", rng)
    before = table.read_bytes() if table.exists() else None
    try:
        summary = run(killed.workspace, evidence, offline=offline)
    except (TableError, OfflineError):
        assert (table.read_bytes() if table.exists() else None) == before
    else:
        assert (summary.error, rows_of(table)) == (None, killed.rows[evidence])


@pytest.mark.parametrize("offline", [False, True])
@pytest.mark.parametrize("evidence", ["c.evidence", "l.evidence"])
def test_what_a_killed_run_had_in_its_log_is_all_there(killed: World, evidence: str, offline: bool) -> None:
    assert len(killed.files[f"{evidence}-wal"]) > len(killed.files[evidence])
    table = damage(killed, evidence, "no such file", Random(1))
    run(killed.workspace, evidence, offline=offline)
    assert rows_of(table) == killed.rows[evidence]
    assert killed.workspace.engine.asked == []
