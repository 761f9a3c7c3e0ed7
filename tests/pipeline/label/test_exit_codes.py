"""Exit codes say what happened: by the phase in which a run ends, whatever ends it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import pytest

from tagllm_cli.errors import EndpointError, EngineDiedError, ModelError, StoppedRunError, TableError, TagllmError
from tagllm_cli.pipeline.label import materialize, recorder, worker
from tagllm_cli.records import DecodedImage, Failure, Request, Response
from tests.support.rule_engine import RuleEngine
from tests.support.workspace import Workspace, snapshot

IMAGES = 12
EACH = 4
CAUSES = [EndpointError("no endpoint answers", "Is it up?"), ModelError("no memory", "Take a smaller model.")]
DIED = EngineDiedError("the engine died", "See its log.")
every_cause = pytest.mark.parametrize("cause", [*CAUSES, DIED], ids=lambda error: type(error).__name__)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path, IMAGES)


class NeverStarts(RuleEngine):
    cause: TagllmError

    async def start(self) -> None:
        raise self.cause


class EndsAfter(RuleEngine):
    """Raises `cause` when `answered` requests were answered."""

    cause: TagllmError
    answered = 0

    async def ask(
        self, picture: DecodedImage | None, requests: Sequence[Request]
    ) -> AsyncGenerator[tuple[Request, Response]]:
        async for pair in super().ask(picture, requests):
            if len(self.asked) > self.answered:
                raise self.cause
            yield pair


def ending(kind: type[NeverStarts] | type[EndsAfter], cause: TagllmError, answered: int = 0) -> RuleEngine:
    engine = kind(capacity=EACH)
    vars(engine).update(cause=cause, answered=answered)
    return engine


@every_cause
@pytest.mark.parametrize("kind", [NeverStarts, EndsAfter])
def test_before_the_first_response_the_error_is_raised_and_nothing_has_changed(
    workspace: Workspace, kind: type[NeverStarts] | type[EndsAfter], cause: TagllmError
) -> None:
    (workspace.images / "broken.png").write_bytes(b"no image")
    workspace.engine = ending(kind, cause)
    with pytest.raises(type(cause)) as raised:
        workspace.candidates()
    assert raised.value.exit_code == (1 if cause is DIED else 2)
    assert not workspace.out.parent.exists()


@pytest.mark.parametrize("cause", CAUSES, ids=lambda error: type(error).__name__)
def test_an_engine_that_cannot_start_leaves_an_older_table_as_it_was(workspace: Workspace, cause: TagllmError) -> None:
    workspace.candidates()
    before = workspace.out.read_bytes()
    workspace.paint(100, "new.png")
    workspace.engine = ending(NeverStarts, cause)
    with pytest.raises(type(cause)):
        workspace.candidates()
    assert workspace.out.read_bytes() == before


@every_cause
@pytest.mark.parametrize("answered", [1, EACH, EACH * (IMAGES - 1)])
def test_while_asking_the_table_is_written_with_what_there_is(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, cause: TagllmError, answered: int
) -> None:
    monkeypatch.setattr(worker, "DECODE_THREADS", 1)  # one image at a time
    workspace.engine = ending(EndsAfter, cause, answered)
    summary = workspace.candidates()
    assert isinstance(summary.error, StoppedRunError)
    assert (summary.error.exit_code, summary.stats.asked) == (3, answered)
    assert cause.message in summary.error.message
    assert cause.hint in summary.error.hint
    assert list(workspace.statuses().values()).count("ok") == summary.rows.ok == answered // EACH
    assert summary.rows.pending == IMAGES - summary.rows.ok
    workspace.engine = RuleEngine()
    assert workspace.candidates().stats.asked == IMAGES * EACH - answered


def test_requests_that_all_failed_are_recorded_so_that_the_run_is_incomplete(workspace: Workspace) -> None:
    workspace.engine.fault = lambda picture, request: Failure("rejected", "no images, please")
    summary = workspace.candidates(limit=3)
    assert summary.error is not None
    assert (summary.error.exit_code, summary.rows.failed) == (3, 3)


def test_an_engine_that_dies_when_images_alone_were_committed_has_changed_something(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long stretch of images that cannot be decoded is committed before any engine is needed."""
    monkeypatch.setattr(recorder, "COMMIT_IMAGES", 5)
    for number in range(10):
        (workspace.images / f"{number:03d}.png").write_bytes(b"no image")
    workspace.engine = ending(NeverStarts, CAUSES[0])
    summary = workspace.candidates()
    assert isinstance(summary.error, StoppedRunError)
    assert summary.rows.failed >= 5


def test_after_asking_a_table_that_cannot_be_written_is_an_incomplete_run(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise TableError("no space left on device", "Make room.")

    monkeypatch.setattr(materialize, "write_table", refuse)
    with pytest.raises(StoppedRunError, match="no space left on device") as raised:
        workspace.candidates()
    assert raised.value.exit_code == 3
    workspace.engine = RuleEngine()
    with pytest.raises(TableError) as again:  # nothing was asked: nothing has changed
        workspace.candidates()
    assert again.value.exit_code == 2
    monkeypatch.undo()
    assert (workspace.candidates().stats.asked, workspace.engine.started) == (0, 0)
    assert snapshot(workspace.out.parent).keys() == {"c.parquet", "c.evidence"}


def test_offline_rows_that_lack_answers_are_what_missing_unknown_asks_for(workspace: Workspace) -> None:
    workspace.engine = ending(EndsAfter, CAUSES[0], EACH * IMAGES // 2 + 1)
    workspace.candidates()
    summary = workspace.candidates(offline=True, missing_unknown=True)
    assert summary.rows.partial + summary.rows.failed > 0
    assert summary.error is None
