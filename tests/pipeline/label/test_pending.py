"""Resume: which images are asked about again, and that responses decide it where a mark says otherwise."""

from __future__ import annotations

import itertools
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tagllm_cli.errors import EndpointError, OfflineError, StoppedRunError
from tagllm_cli.pipeline.label import worker
from tagllm_cli.pipeline.label.pending import is_permanent_failure
from tagllm_cli.records import DecodedImage, Failure, ImageInfo
from tagllm_cli.sources.decode import decode
from tests.support.rule_engine import RuleEngine
from tests.support.workspace import Workspace

EACH = 4
IMAGES = 12


@pytest.fixture
def done(tmp_path: Path) -> Workspace:
    workspace = Workspace(tmp_path, IMAGES)
    workspace.candidates()
    workspace.engine = RuleEngine()
    return workspace


def edit(workspace: Workspace, statement: str) -> None:
    with closing(sqlite3.connect(workspace.out.with_suffix(".evidence"))) as database, database:
        database.execute(statement)


@pytest.mark.parametrize(
    ("kind", "fingerprint", "permanent"),
    [
        ("truncated_file", b"f" * 16, True),
        ("too_large", b"f" * 16, True),
        ("unreadable", b"", False),
        ("out_of_memory", b"f" * 16, False),
        ("unsupported_format", b"f" * 16, False),
    ],
)
def test_a_failure_is_permanent_when_the_same_bytes_would_fail_again(
    kind: str, fingerprint: bytes, permanent: bool
) -> None:
    assert is_permanent_failure(ImageInfo(fingerprint, failure=Failure(kind, ""))) is permanent
    assert not is_permanent_failure(ImageInfo(b"f" * 16, 8, 8))
    assert not is_permanent_failure(None)


@pytest.mark.parametrize("kind", ["out_of_memory", "unsupported_format"])
def test_a_moment_without_memory_or_a_missing_decoder_fails_an_image_for_that_run_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    workspace = Workspace(tmp_path, 2)
    calls: list[bytes] = []
    numbers = itertools.count()

    def fails_once(data: bytes, max_pixels: int) -> tuple[ImageInfo, DecodedImage | None]:
        is_first = next(numbers) == 0  # images are decoded at once
        calls.append(data)
        info, image = decode(data, max_pixels)
        if is_first:
            return ImageInfo(info.fingerprint, failure=Failure(kind, "not now")), None
        return info, image

    monkeypatch.setattr(worker, "decode", fails_once)
    first = workspace.candidates(max_failed_rate=1.0)
    assert (first.rows.ok, first.rows.failed) == (1, 1)
    second = workspace.candidates()
    assert (second.stats.opened, second.stats.asked, second.rows.ok) == (1, EACH, 2)
    assert workspace.candidates().stats.opened == 0


def test_answers_that_are_gone_are_asked_again_when_the_table_would_show_it(done: Workspace) -> None:
    table = done.out.read_bytes()
    edit(done, "DELETE FROM response WHERE key IN (SELECT key FROM response LIMIT 3)")
    done.out.unlink()
    summary = done.candidates()
    assert (summary.stats.asked, summary.rows.ok, summary.error) == (3, IMAGES, None)
    assert done.out.read_bytes() == table


def test_rows_that_are_still_right_stay_though_their_answers_are_gone(done: Workspace) -> None:
    before = done.rows()
    edit(done, "DELETE FROM response WHERE key IN (SELECT key FROM response LIMIT 3)")
    done.paint(100, "new.png")
    done.out.unlink()
    summary = done.candidates()
    assert (summary.rows.ok, summary.error) == (IMAGES + 1, None)
    assert {name: row for name, row in done.rows().items() if name in before} == before


def test_answers_that_are_gone_are_asked_again_beside_what_is_new(done: Workspace) -> None:
    edit(done, "DELETE FROM response WHERE key IN (SELECT key FROM response LIMIT 3)")
    done.paint(100, "new.png")
    summary = done.candidates({"min_votes": 2})  # makes every row anew
    assert (summary.stats.asked, summary.rows.ok, summary.error) == (3 + EACH, IMAGES + 1, None)
    assert summary.usage.requests >= 3 + EACH


def test_answers_that_are_gone_make_an_offline_run_fail(done: Workspace) -> None:
    before = done.out.read_bytes()
    edit(done, "DELETE FROM response WHERE key IN (SELECT key FROM response LIMIT 3)")
    with pytest.raises(OfflineError, match="3 answers about "):
        done.candidates(offline=True)
    assert done.out.read_bytes() == before
    assert dict(done.dry_run().pending.reasons) == {"complete before, but recorded answers are missing": 3}


def test_gone_answers_that_cannot_be_asked_now_are_pending_and_asked_by_the_next_run(done: Workspace) -> None:
    class Down(RuleEngine):
        async def start(self) -> None:
            raise EndpointError("no endpoint answers", "Is it up?")

    edit(done, "DELETE FROM response WHERE key IN (SELECT key FROM response LIMIT 3)")
    done.out.unlink()
    done.engine = Down()
    with pytest.raises(StoppedRunError, match="no endpoint answers"):
        done.candidates()
    done.engine = RuleEngine()
    assert (done.candidates().stats.asked, set(done.statuses().values())) == (3, {"ok"})
