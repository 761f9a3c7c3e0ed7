"""`tagllm report`: one page, one card, one object; nothing of somebody else's is overwritten."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import DatasetCard

from tests.evaluation.report.tables import other, small
from tests.support.command_line import check_error, one_object, tagllm


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path, _ = small(tmp_path)
    other(tmp_path)
    return path


def test_page_and_card_are_written_and_told(table: Path) -> None:
    done = tagllm("report labels.parquet --truth truth.csv --out page.html --card README.md --json")
    assert done.exit_code == 0, done.output
    told = one_object(done.stdout)
    assert (told["report"], told["card"], told["images"]) == ("page.html", "README.md", 6)
    assert told["bytes"] == Path("page.html").stat().st_size
    assert told["chosen"] == {"error": 2, "doubt": 2, "rest": 1, "failed": 1}
    assert told["evaluation"]["op"] == 0.75
    low, high = told["intervals"]["op"]
    assert low <= 0.75 <= high
    card = DatasetCard.load(Path("README.md"))
    assert "| OP | 0.750 |" in card.text
    assert "The model sees" in card.text


def test_people_read_three_lines(table: Path) -> None:
    done = tagllm("report labels.parquet --out page.html --images 3")
    assert done.exit_code == 0, done.output
    first, second = done.stdout.splitlines()
    assert first.startswith("report of 6 images: page.html")
    assert second.startswith("the gallery shows 3 of them: ")
    assert "there is no evidence beside" in done.stderr


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("report labels.parquet", "nothing is to be written"),
        ("report nowhere.parquet --out page.html", "there is no table at nowhere.parquet"),
        ("report labels.parquet --card truth.csv", "truth.csv is not as tagllm wrote it"),
        ("report labels.parquet --out truth.csv", "truth.csv holds something else"),
        ("report labels.parquet --out page.html --card page.html", "--out and --card both name page.html"),
        ("report labels.parquet --out page.html --compare nowhere.parquet", "there is no table at nowhere.parquet"),
        ("report labels.parquet --out page.html --truth nowhere.csv", "nowhere.csv"),
        ("report labels.parquet --out page.html --root nowhere", "there is no folder"),
        ("report labels.parquet --out page.html --images -1", "--images"),
        ("report labels.parquet --out page.html --seed -1", "--seed"),
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_is_written(table: Path, line: str, message: str) -> None:
    check_error(line, message, None)
