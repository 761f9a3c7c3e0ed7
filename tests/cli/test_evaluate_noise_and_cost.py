"""`evaluate --suspects` and costs beside quality, as a person gets them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from tests.support.command_line import one_object, tagllm

TABLE, TRUTH = "tests/data/demo/labels.parquet", "tests/demo/truth.json"
RELEASE = Path("tests/data/release_0_1")


def evaluate(*words: str | Path) -> list[str]:
    return ["evaluate", *map(str, words)]


def test_suspects_are_listed_with_or_without_a_number(tmp_path: Path) -> None:
    few = one_object(tagllm(evaluate(TABLE, "--truth", TRUTH, "--json", "--suspects", "3")).stdout)["suspects"]
    assert few["disagreements"] == 68
    assert [each["score"] for each in few["suspects"]] == sorted((e["score"] for e in few["suspects"]), reverse=True)
    found = tagllm(evaluate(TABLE, "--suspects", "--truth", TRUTH, "--overall"))
    assert found.exit_code == 0
    for title in ("labels that people may have left out", "labels that people may have added"):
        lines = found.stdout.partition(title)[2].partition("\nlabels that")[0].splitlines()
        assert len([line for line in lines if line.startswith("album-")]) == 20


def test_all_suspects_go_into_a_file(tmp_path: Path) -> None:
    out = tmp_path / "suspects.csv"
    written = tagllm(evaluate(TABLE, "--truth", TRUTH, "--suspects-out", out))
    assert written.exit_code == 0
    assert f"all 68 disagreements: {out}" in " ".join(written.stderr.split())
    with out.open() as file:
        assert len(list(csv.reader(file))) == 69
    mine = tmp_path / "mine.csv"
    mine.write_text("image,label\n")
    refused = tagllm(evaluate(TABLE, "--truth", TRUTH, "--suspects-out", mine))
    assert (refused.exit_code, mine.read_text()) == (2, "image,label\n")
    assert "holds something else" in refused.stderr


def test_costs_stand_beside_the_quality(tmp_path: Path) -> None:
    truth = tmp_path / "truth.jsonl"
    table = RELEASE / "l.parquet"
    exported = tagllm(["export", str(table), "--format", "jsonl", "--out", str(truth)])
    assert exported.exit_code == 0, exported.stderr
    line = evaluate(table, "--truth", truth, "--candidates", RELEASE / "c.parquet", "--price-in", "2")
    cost = one_object(tagllm([*line, "--json"]).stdout)["cost"]
    (found,) = cost["tables"]
    assert cost["unit"] == "price"
    assert found["stages"].keys() == {"candidates", "labels"}
    tokens = found["per_1000_images"]["prompt_tokens"]
    assert abs(found["per_1000_images"]["price"] - tokens * 2 / 1e6) < 1e-6
    assert json.loads(truth.read_text().splitlines()[0])["labels"] is not None
    printed = tagllm([*line, "--overall"]).stdout
    assert "quality against cost for 1,000 images" in printed
    refused = tagllm(evaluate(TABLE, "--truth", TRUTH, "--candidates", TABLE))
    assert (refused.exit_code, "is no candidate table" in refused.stderr) == (2, True)
