"""`evaluate` as a person gets it: headline first, intervals, tables side by side, parts; bad input is said."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_line import one_object, tagllm

TABLE, TRUTH = "tests/data/demo/labels.parquet", "tests/demo/truth.json"


def evaluate(*words: str | Path) -> Any:
    return tagllm(["evaluate", TABLE, "--truth", TRUTH, *map(str, words)])


def test_intervals_take_a_number_or_none_and_are_those_of_the_seed() -> None:
    found = [
        one_object(evaluate("--json", "--overall", "--intervals", *more).stdout)["intervals"]
        for more in (
            ["--intervals"],
            ["--intervals", "40"],
            ["--intervals", "40"],
            ["--intervals", "40", "--seed", "1"],
        )
    ]
    assert [each["rounds"] for each in found] == [200, 40, 40, 40]
    assert found[1] == found[2] != found[3]
    shown = evaluate("--intervals", "--overall").stdout.splitlines()
    (line,) = [line for line in shown if line.startswith("OF1")]
    low, high = found[0]["of1"]
    assert line.split(maxsplit=2)[2] == f"[{low:.4f}, {high:.4f}]"
    assert one_object(evaluate("--json").stdout)["intervals"] is None


def test_the_headline_comes_first_and_the_single_labels_last() -> None:
    shown = evaluate("--details").stdout
    titles = [
        "labels of",
        "\nstages",
        "by frequency of the label",
        "confused labels",
        "each label, the lowest F1 first",
    ]
    places = [shown.index(title) for title in titles]
    assert places == sorted(places)
    plain = evaluate("--overall").stdout
    assert "exact match" in plain
    assert not any(title in plain for title in titles[2:])


def test_tables_stand_side_by_side(tmp_path: Path) -> None:
    copy = tmp_path / "copy.parquet"
    shutil.copy(TABLE, copy)
    shown = evaluate("--compare", copy, "--overall").stdout
    assert "differences to labels" in shown
    assert "OF1          +0.0000 [+0.0000, +0.0000]" in shown
    refused = evaluate("--compare", tmp_path / "missing.parquet")
    assert (refused.exit_code, "there is no table at" in refused.stderr) == (2, True)


@pytest.mark.parametrize("words", [("--intervals", "3"), ("--seed", "-1"), ("--fail-under", "of1.mid=0.5")])
def test_numbers_and_gates_that_make_no_sense_are_refused(words: tuple[str, ...]) -> None:
    assert evaluate(*words).exit_code == 2


def test_a_gate_on_the_lower_end_of_an_interval_fails_the_command() -> None:
    found = one_object(evaluate("--json").stdout)
    just_below = f"{found['of1'] - 0.0005:.4f}"
    assert evaluate("--fail-under", f"of1={just_below}", "--overall").exit_code == 0
    missed = evaluate("--fail-under", f"of1.low={just_below}", "--overall")
    assert (missed.exit_code, "of1.low is" in missed.stderr) == (1, True)
