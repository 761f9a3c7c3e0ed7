"""`tagllm audit` and `evaluate --audit` as a person types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.evaluation.audit.folder import Audited, audited
from tests.support.command_line import tagllm


@pytest.fixture(scope="module")
def some(tmp_path_factory: pytest.TempPathFactory) -> Audited:
    """An audit of 60 pairs, answered."""
    found = audited(tmp_path_factory.mktemp("audited"), paint=True)
    found.answer()
    return found


def test_an_audit_is_drawn_and_the_next_command_is_named(some: Audited, tmp_path: Path) -> None:
    done = tagllm(["audit", str(some.table), "--size", "20", "--out", str(tmp_path / "audit")])
    assert done.exit_code == 0
    assert done.stdout.startswith("drew 20 pairs of image and label (")
    assert f"next: tagllm evaluate {some.table} --audit {tmp_path / 'audit' / 'audit.csv'}" in done.stdout
    again = tagllm(["audit", str(some.table), "--size", "20", "--out", str(tmp_path / "audit"), "--json"])
    value = json.loads(again.stdout)
    assert (value["existed"], value["pairs"], sum(value["kinds"].values())) == (True, 20, 20)


def test_estimates_are_printed_as_tables_and_as_one_object(some: Audited) -> None:
    plain = tagllm(["evaluate", str(some.table), "--audit", str(some.audit)])
    assert plain.exit_code == 0
    assert "OP (precision)" in plain.stdout
    assert "each label, the most frequent first" in plain.stdout
    value = json.loads(tagllm(["evaluate", str(some.table), "--audit", str(some.audit), "--json"]).stdout)
    assert value["of1"]["low"] <= value["of1"]["value"] <= value["of1"]["high"]
    assert "each label" not in tagllm(["evaluate", str(some.table), "--audit", str(some.audit), "--overall"]).stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "there is nothing to measure the table against"),
        (["--audit", "a.csv", "--truth", "t.csv"], "--audit does not go with --truth"),
        (["--audit", "a.csv", "--fail-under", "of1=0.9"], "does not go with --fail-under"),
        (["--audit", "a.csv", "--label-column", "x"], "does not go with --label-column"),
        (["--audit", "a.csv"], "there is no file a.csv"),
    ],
)
def test_evaluate_needs_a_truth_or_an_audit(some: Audited, options: list[str], said: str) -> None:
    done = tagllm(["evaluate", str(some.table), *options])
    assert (done.exit_code, done.stdout) == (2, "")
    assert said in done.stderr


@pytest.mark.parametrize("options", [["--size", "0"], ["--seed", "-1"], ["--size", "many"]])
def test_sizes_and_seeds_that_are_none_are_refused(some: Audited, options: list[str], tmp_path: Path) -> None:
    done = tagllm(["audit", str(some.table), "--out", str(tmp_path / "audit"), *options])
    assert done.exit_code == 2
    assert not (tmp_path / "audit").exists()


def test_a_folder_of_somebody_else_is_refused(some: Audited) -> None:
    done = tagllm(["audit", str(some.table), "--out", str(some.table.parent)])
    assert done.exit_code == 2
    assert "Traceback" not in done.stderr
    assert some.table.exists()
