"""A label's own threshold decides; a file of thresholds is tied to the questions that it was made for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tagllm_cli.errors import TableError, UsageError
from tagllm_cli.export.base import ExportSettings
from tagllm_cli.export.registry import export_table
from tagllm_cli.labeling.binary import Binary
from tagllm_cli.labeling.plan import Plan
from tagllm_cli.labeling.threshold_file import (
    LabelThreshold,
    ThresholdFile,
    decided_by,
    load_thresholds,
    table_questions,
    write_thresholds,
)
from tagllm_cli.labeling.thresholds import Thresholds
from tagllm_cli.records import Decision, Image, ImageInfo, Item
from tagllm_cli.store.table import open_table
from tests.support.rule_engine import RuleEngine, answer
from tests.support.workspace import LABELS, Workspace

IMAGES = 30
OWN = {"cat": 0.2, "dog": 0.9}


@pytest.fixture
def done(tmp_path: Path) -> Workspace:
    """Both tables; the engine is a new one."""
    workspace = Workspace(tmp_path, IMAGES)
    workspace.candidates()
    workspace.disambiguate()
    workspace.engine = RuleEngine()
    return workspace


def calibrated(workspace: Workspace, own: dict[str, float] = OWN, common: float = 0.5) -> ThresholdFile:
    """A file of thresholds for the workspace's label table, written."""
    plan, questions = table_questions(open_table(workspace.labels_out))
    labels = tuple(LabelThreshold(name, number, questions[name], own.get(name)) for number, name in enumerate(LABELS))
    path = workspace.labels_out.with_name("thresholds.yaml")
    identity = (plan.model, plan.model_digest.hex(), plan.max_pixels, plan.imaging)
    file = ThresholdFile(path, "f1", common, *identity, labels, {"images": 30})
    write_thresholds(file)
    return file


def settings(file: ThresholdFile, common: float | None = None) -> dict[str, Any]:
    thresholds, read = decided_by(file.path, common)
    return {"thresholds": thresholds, "threshold_file": read}


def expected(workspace: Workspace, own: dict[str, float], common: float = 0.5) -> dict[tuple[str, str], bool]:
    """What the probabilities in the table come to under thresholds."""
    return {
        (row.image_id, entry.name): (entry.probability or 0) > own.get(entry.name, common)
        for row in workspace.rows(workspace.labels_out).values()
        for entry in row.labels or ()
    }


def decided(workspace: Workspace) -> dict[tuple[str, str], bool]:
    return {
        (row.image_id, entry.name): entry.decision is Decision.YES
        for row in workspace.rows(workspace.labels_out).values()
        for entry in row.labels or ()
    }


def test_the_own_threshold_of_a_label_decides_and_nothing_is_asked(done: Workspace) -> None:
    before = decided(done)
    summary = done.disambiguate(settings(calibrated(done)))
    assert (summary.stats.asked, done.engine.started) == (0, 0)
    assert decided(done) == expected(done, OWN) != before
    assert open_table(done.labels_out).info.plan["label_thresholds"] == OWN


def test_the_common_threshold_of_the_file_gives_way_to_one_that_is_typed(done: Workspace) -> None:
    file = calibrated(done, common=0.3)
    done.disambiguate(settings(file))
    assert decided(done) == expected(done, OWN, 0.3)
    done.disambiguate(settings(file, common=0.7))
    assert decided(done) == expected(done, OWN, 0.7)


def test_a_changed_file_makes_the_table_anew_and_without_it_the_table_is_as_before(done: Workspace) -> None:
    before = done.labels_out.read_bytes()
    done.disambiguate(settings(calibrated(done)))
    stamp = done.labels_out.stat().st_mtime_ns
    done.disambiguate(settings(calibrated(done)))
    assert done.labels_out.stat().st_mtime_ns == stamp
    done.disambiguate(settings(calibrated(done, {"cat": 0.6})))
    assert decided(done) == expected(done, {"cat": 0.6})
    done.disambiguate()
    assert done.labels_out.read_bytes() == before
    assert done.engine.asked == []


def test_both_stages_of_one_pass_notice_a_changed_file(done: Workspace) -> None:
    for own in (OWN, {"cup": 0.1}):
        labels = settings(calibrated(done, own))
        _, second = done.both(labels=labels)
        assert second is not None
        assert (second.stats.asked, decided(done)) == (0, expected(done, own))


def test_what_is_written_is_read_again(done: Workspace) -> None:
    file = calibrated(done)
    assert load_thresholds(file.path) == replace(file, measured={"images": "30"})
    assert load_thresholds(file.path).digest() == file.digest()


def test_labels_called_like_yaml_values_stay_text(done: Workspace) -> None:
    labels = (LabelThreshold("no", 0, "a", 0.1), LabelThreshold("1", 1, "1e5"), LabelThreshold("null", 2, "b", low=0.0))
    file = replace(calibrated(done), labels=labels, measured={})
    write_thresholds(file)
    assert load_thresholds(file.path) == file


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_digest": "00" * 16}, "calibrated for the model rules, and this table is of rules of the same name"),
        ({"model": "other", "model_digest": "00" * 16}, "calibrated for the model other, and this table is of rules"),
        ({"max_pixels": 500}, "images of up to 500 pixels, and this table has up to 1,003,520"),
    ],
)
def test_a_file_of_another_plan_is_refused_before_anything_is_asked(
    done: Workspace, change: dict[str, Any], message: str
) -> None:
    file = replace(calibrated(done), **change)
    write_thresholds(file)
    before = done.labels_out.read_bytes()
    with pytest.raises(UsageError, match=message):
        done.disambiguate(settings(file))
    assert done.labels_out.read_bytes() == before
    with pytest.raises(UsageError, match=message):
        export_table(done.labels_out, "csv", done.out.with_name("l.csv"), ExportSettings(thresholds=file.path))


def test_a_label_that_is_asked_about_in_other_words_is_refused_by_name(done: Workspace, tmp_path: Path) -> None:
    file = calibrated(done)
    cards = tmp_path / "cards.yaml"
    cards.write_text("cards:\n- {name: cat, description: a small furry pet}\n")
    with pytest.raises(UsageError, match=r"1 labels that were asked about in other words \(cat\)"):
        done.disambiguate({**settings(file), "concepts": str(cards)})
    done.disambiguate({"concepts": str(cards)})
    again = calibrated(done)
    assert done.disambiguate({**settings(again), "concepts": str(cards)}).stats.asked == 0
    with pytest.raises(UsageError, match=r"other words \(cat\)"):
        done.disambiguate(settings(again))


def test_labels_that_are_gone_and_new_are_counted_and_said(done: Workspace) -> None:
    file = calibrated(done)
    done.write_vocabulary([*LABELS[1:], "bowl"])
    done.candidates()
    done.disambiguate(settings(file))
    assert decided(done) == expected(done, OWN)
    assert load_thresholds(file.path).notes([*LABELS[1:], "bowl"]) == [
        f"{file.path}: thresholds of labels that are gone: 1 (cat)",
        f"labels that are new since {file.path}: 1 (bowl); they are on the common threshold 0.5",
    ]
    with pytest.raises(UsageError, match="has thresholds for other labels: cat, cow, cup, dog, fork and 3 more"):
        file.notes(["bowl"])


def test_exports_decide_by_the_file_too(done: Workspace) -> None:
    file = calibrated(done)
    out = done.out.with_name("labels.jsonl")
    exported = export_table(done.labels_out, "jsonl", out, ExportSettings(thresholds=file.path))
    assert exported.labels == sum(expected(done, OWN).values())
    lowered = export_table(done.labels_out, "jsonl", out, ExportSettings(thresholds=file.path, threshold=0.1))
    assert lowered.labels == sum(expected(done, OWN, 0.1).values())


def test_a_threshold_that_is_a_probability_itself_decides_alike_in_stage_and_export(done: Workspace) -> None:
    rows = done.rows(done.labels_out).values()
    own = {entry.name: entry.probability or 0.0 for row in rows for entry in row.labels or ()}
    assert len(own) == len(LABELS)
    file = calibrated(done, own)
    assert load_thresholds(file.path).limits().per_label == own
    wanted = expected(done, own)
    done.disambiguate(settings(file))
    assert decided(done) == wanted
    out = done.out.with_name("labels.jsonl")
    exported = export_table(done.labels_out, "jsonl", out, ExportSettings(thresholds=file.path))
    assert 0 < exported.labels == sum(wanted.values())


@pytest.mark.parametrize("threshold", [1e-9, 0.1, 1 / 3, 0.99999997, 1 - 1e-12])
def test_any_threshold_is_read_as_it_was_written(done: Workspace, threshold: float) -> None:
    file = calibrated(done, {"cat": threshold}, common=threshold)
    assert load_thresholds(file.path).limits() == file.limits()


def test_a_candidate_table_is_refused_with_advice(done: Workspace) -> None:
    file = calibrated(done)
    with pytest.raises(TableError, match="candidate table: it has no probabilities") as refusal:
        export_table(done.out, "csv", done.out.with_name("c.csv"), ExportSettings(thresholds=file.path))
    assert "tagllm disambiguate" in refusal.value.hint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.update(version=2), "has version 2; this tagllm reads up to 1"),
        (lambda content: content.update(metrics="f1"), r"unknown key 'metrics' \(did you mean 'metric'\?\)"),
        (lambda content: content["labels"][0].update(threshold=1.5), r"'cat'\): `threshold` is too large"),
        (lambda content: content["labels"][0].update(threshold="nan"), "`threshold` is not"),
        (lambda content: content["labels"].append(content["labels"][0]), "two entries for 'cat'"),
        (lambda content: content.pop("model"), "`model` is missing"),
    ],
)
def test_a_file_that_is_wrong_is_refused_by_key(done: Workspace, change: Any, message: str) -> None:
    path = calibrated(done).path
    content = yaml.safe_load(path.read_text())
    change(content)
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(UsageError, match=message):
        load_thresholds(path)


def test_binary_questions_decide_by_their_labels_threshold(done: Workspace) -> None:
    done.candidates({"strategy": "binary", "group_size": None}, replan=True)
    stage = Binary(Plan.from_json(open_table(done.out).info.plan), Thresholds(per_label={"cat": 0.0, "dog": 1.0}))
    item = Item(Image("a", "a"), ImageInfo(b"x", 8, 8))
    row = stage.row(item, [answer(None, request) for request in stage.requests(item)])
    entries = {entry.name: entry for entry in row.labels or ()}
    assert (entries["cat"].decision, entries["dog"].decision) == (None, Decision.NO)
    proposed = {name for name, entry in entries.items() if entry.decision is None} - {"cat"}
    assert proposed == {name for name in LABELS[2:] if (entries[name].probability or 0) > 0.5}
