"""The second stage over the first one's table: what a change of candidates, cards or bytes asks, opens or refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tagllm_cli.errors import OfflineError, TableError
from tagllm_cli.labeling.disambiguate import Thresholds
from tagllm_cli.pipeline.label.job import RunOptions
from tagllm_cli.records import Decision, Failure, Status
from tagllm_cli.store.table import open_table, write_table
from tests.support.rule_engine import RuleEngine
from tests.support.workspace import LABELS, Workspace, evidence_rows, snapshot

IMAGES = 8


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A candidate table; the engine on the desk is a new one."""
    workspace = Workspace(tmp_path, IMAGES)
    workspace.candidates()
    workspace.engine = RuleEngine()
    return workspace


@pytest.fixture
def done(workspace: Workspace) -> Workspace:
    """The same, with its label table."""
    workspace.disambiguate()
    workspace.engine = RuleEngine()
    return workspace


def candidates(workspace: Workspace) -> dict[str, list[str]]:
    return {name: [entry.name for entry in row.labels or ()] for name, row in workspace.rows().items()}


def test_every_candidate_is_decided(workspace: Workspace) -> None:
    proposed = candidates(workspace)
    summary = workspace.disambiguate()
    assert summary.stats.asked == sum(map(len, proposed.values()))
    rows = workspace.rows(workspace.labels_out)
    assert {name: [entry.name for entry in row.labels or ()] for name, row in rows.items()} == proposed
    decisions = {entry.decision for row in rows.values() for entry in row.labels or ()}
    assert decisions == {Decision.YES, Decision.NO}
    assert summary.rows.labels == sum(
        entry.decision is Decision.YES for row in rows.values() for entry in row.labels or ()
    )


def test_a_second_run_asks_and_opens_nothing(done: Workspace) -> None:
    stamp = done.labels_out.stat().st_mtime_ns
    summary = done.disambiguate()
    assert (summary.stats.asked, summary.stats.opened, done.engine.started) == (0, 0, 0)
    assert done.labels_out.stat().st_mtime_ns == stamp


def test_more_candidates_ask_only_about_themselves(done: Workspace) -> None:
    before = candidates(done)
    done.write_vocabulary([*LABELS, "bowl"])
    done.paint(100, "new.png")
    done.candidates()
    after = candidates(done)
    fresh = {(name, label) for name, labels in after.items() for label in labels if label not in before.get(name, ())}
    assert {"bowl"} <= {label for _, label in fresh}
    assert done.disambiguate().stats.asked == len(fresh)


def test_an_edited_description_asks_only_its_own_question(done: Workspace) -> None:
    cats = [name for name, labels in candidates(done).items() if "cat" in labels]
    assert cats
    done.write_vocabulary([{"name": "cat", "description": "a small furry pet"}, *LABELS[1:]])
    assert done.candidates().stats.asked == 0
    summary = done.disambiguate()
    assert summary.stats.asked == len(cats)
    assert all("a small furry pet" in text for _, text in done.engine.asked)


def test_the_table_follows_the_cards_also_back_to_earlier_ones(done: Workspace, tmp_path: Path) -> None:
    tables: dict[str, list[bytes]] = {}
    for word, offline in (("furry", False), ("feline", False), ("furry", False), ("feline", True), ("furry", True)):
        cards = tmp_path / f"{word}.yaml"
        cards.write_text(f"cards:\n- {{name: cat, description: {word}}}\n")
        done.disambiguate({"concepts": str(cards)}, offline=offline)
        tables.setdefault(word, []).append(done.labels_out.read_bytes())
    furry, feline = (set(found) for found in tables.values())
    assert len(furry) == len(feline) == 1
    assert furry != feline


CARDS = """
cards:
- name: cat
  description: a small furry pet
"""


def test_an_image_that_is_another_one_now_has_failed(done: Workspace, tmp_path: Path) -> None:
    changed = next(name for name, labels in candidates(done).items() if "cat" in labels)
    done.paint(100, changed)
    assert done.disambiguate().stats.opened == 0
    cards = tmp_path / "cards.yaml"
    cards.write_text(CARDS)
    for _ in range(2):
        assert done.disambiguate({"concepts": str(cards)}).rows.failed == 1
        row = done.rows(done.labels_out)[changed]
        assert (row.error, row.labels) == ("changed: the image is not the one that the candidates are about", None)

    done.candidates()
    assert done.disambiguate({"concepts": str(cards)}).rows.failed == 0
    assert done.rows(done.labels_out)[changed].status == "ok"


def test_failed_and_pending_candidates_stay_what_they_are(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, 4)
    (workspace.images / "000.png").write_bytes(b"no picture")
    workspace.engine.fault = lambda picture, request: Failure("timeout", "no answer")
    workspace.candidates(limit=2)
    workspace.engine = RuleEngine()
    assert workspace.statuses() == {"000.png": "failed", "001.png": "failed"}
    summary = workspace.disambiguate()
    assert (summary.rows.failed, summary.stats.asked) == (2, 0)
    errors = [row.error for row in workspace.rows(workspace.labels_out).values()]
    assert errors == [row.error for row in workspace.rows().values()]
    workspace.candidates()
    workspace.disambiguate()
    assert set(workspace.statuses(workspace.labels_out).values()) == {"failed", "ok"}


def test_an_image_that_went_from_failed_to_pending_is_pending(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, 2)
    workspace.engine.fault = lambda picture, request: Failure("timeout", "no answer")
    workspace.candidates()
    assert workspace.disambiguate().rows.failed == 2
    workspace.engine = RuleEngine()
    rows = [replace(row, status=Status.PENDING, error=None) for row in workspace.rows().values()]
    write_table(workspace.out, open_table(workspace.out).info, rows)
    assert workspace.disambiguate().rows.pending == 2


def test_too_little_mass_is_unknown_under_another_limit_without_asking(done: Workspace) -> None:
    summary = done.disambiguate({"thresholds": Thresholds(min_mass=0.99)})
    assert (summary.stats.asked, summary.rows.labels) == (0, 0)
    assert summary.rows.unknown == sum(map(len, candidates(done).values()))


def test_offline_needs_neither_images_nor_model(done: Workspace) -> None:
    before = {path: path.read_bytes() for path in (done.out, done.labels_out)}
    done.images.rename(done.images.with_name("gone"))
    for path in before:
        path.unlink()
    done.candidates(offline=True)
    done.disambiguate(offline=True)
    assert {path: path.read_bytes() for path in before} == before
    assert done.engine.started == 0


def test_offline_refuses_to_guess(done: Workspace) -> None:
    done.write_vocabulary([*LABELS, "bowl"])
    before = snapshot(done.out.parent)
    with pytest.raises(OfflineError, match=f"{2 * IMAGES} answers about {IMAGES} images are missing") as raised:
        done.candidates(offline=True)
    assert raised.value.exit_code == 2
    assert snapshot(done.out.parent) == before
    summary = done.candidates(offline=True, missing_unknown=True, max_failed_rate=1.0)
    assert (summary.rows.partial, done.engine.started) == (IMAGES, 0)
    unknown = {
        entry.name for row in done.rows().values() for entry in row.labels or () if entry.decision is Decision.UNKNOWN
    }
    assert "bowl" in unknown


def test_offline_takes_failed_images_as_they_are(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, 3)
    (workspace.images / "000.png").write_bytes(b"no picture")
    (workspace.images / "link.png").symlink_to("nowhere")
    workspace.candidates()
    before = workspace.out.read_bytes()
    workspace.candidates(offline=True)
    assert workspace.out.read_bytes() == before


def test_offline_without_evidence_is_an_error(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, 1)
    with pytest.raises(OfflineError, match="there is no evidence"):
        workspace.candidates(offline=True)
    assert not workspace.out.parent.exists()


def test_stages_do_not_mix(done: Workspace) -> None:
    before = snapshot(done.out.parent)
    done.out, done.labels_out = done.labels_out, done.out
    with pytest.raises(TableError, match="is a label table already"):
        done.labels_job(RunOptions())
    with pytest.raises(TableError, match=r"l.parquet is a table of another kind \(labels\)"):
        done.candidates()
    done.out = done.labels_out
    with pytest.raises(TableError, match="--out is the candidate table itself"):
        done.labels_job(RunOptions())
    assert snapshot(done.out.parent) == before


def test_the_evidence_names_the_questions_that_were_paid_for(done: Workspace) -> None:
    responses = evidence_rows(done.labels_out.with_suffix(".evidence"), "SELECT text, finish, logprobs FROM response")
    assert len(responses) == sum(map(len, candidates(done).values()))
    assert {text for text, _, _ in responses} == {"yes", "no"}
    assert all('"maybe":-3.912' in logprobs for _, _, logprobs in responses)
