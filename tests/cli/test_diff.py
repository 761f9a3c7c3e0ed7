"""`tagllm diff` as it is typed: text, one object, gates and exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.evaluation.diff.test_page import tables
from tests.evaluation.diff.worlds import labeled
from tests.support.command_line import check_error, one_object, tagllm
from tests.support.workspace import Workspace


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    monkeypatch.chdir(tmp_path)
    return tables(tmp_path)


@pytest.mark.usefixtures("pair")
def test_people_read_images_labels_causes_and_examples() -> None:
    done = tagllm("diff a.parquet b.parquet --limit 3")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0] == "images: 5 in both (1 under another name), 1 only in A, 1 only in B"
    assert lines[1] == "labels: 5 of 7 changed (71.43%): 1 added, 3 removed, 1 now unknown, in 4 images"
    assert lines[2] == "beside these: 1 in images that only B has, 1 in images that only A has"
    titles = [line for line in lines if line in ("likely causes", "labels", "the flips that tell most")]
    assert titles == ["likely causes", "labels", "the flips that tell most"]
    assert len(lines) - lines.index(titles[-1]) == 2 + 3


@pytest.mark.usefixtures("pair")
def test_programs_read_one_object() -> None:
    done = tagllm("diff a.parquet b.parquet --html page.html --images 2 --json")
    assert done.exit_code == 0, done.output
    told = one_object(done.stdout)
    assert (told["stage"], told["html"], told["missed_gates"]) == ("labels", "page.html", [])
    assert told["images"] == {
        "a": 6,
        "b": 6,
        "both": 5,
        "added": 1,
        "removed": 1,
        "renamed": 1,
        "other_bytes": 0,
        "with_changed_labels": 4,
        "differing": 6,
    }
    assert told["shares"]["labels"] == round(5 / 7, 6)
    assert {each["image"] for each in told["examples"]} >= {"new name.jpg", "gone.jpg"}
    renamed = next(each for each in told["examples"] if each["image"] == "new name.jpg")
    assert (renamed["earlier"], renamed["a"], renamed["b"]) == (
        "old name.jpg",
        {"state": "no", "probability": 0.3},
        {"state": "yes", "probability": 0.95},
    )
    assert Path("page.html").stat().st_size > 10_000


@pytest.mark.usefixtures("pair")
@pytest.mark.parametrize(
    ("gates", "code", "said"),
    [
        ("--fail-over labels=0.8 --fail-over images=1", 0, ""),
        ("--fail-over labels=0.02 --fail-over unknown=0.5", 1, "labels is 0.7143, above 0.02"),
        ("--fail-over images=0.5", 1, "images is 0.8571, above 0.5"),
        (
            "--fail-over added=0.1 --fail-over removed=0.1",
            1,
            "added is 0.1429, above 0.1; removed is 0.4286, above 0.1",
        ),
    ],
)
def test_a_gate_that_is_missed_is_named_and_ends_with_1(gates: str, code: int, said: str) -> None:
    done = tagllm(f"diff a.parquet b.parquet --json {gates}")
    assert done.exit_code == code
    assert said in done.stderr
    assert "; ".join(one_object(done.stdout)["missed_gates"]) == said


@pytest.mark.usefixtures("pair")
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("diff a.parquet nowhere.parquet", "there is no table at nowhere.parquet"),
        ("diff a.parquet b.parquet --fail-over f1=0.1", "no gate is called 'f1'"),
        ("diff a.parquet b.parquet --fail-over labels=2", "needs a number from 0 to 1"),
        ("diff a.parquet b.parquet --html a.parquet", "a.parquet holds something else"),
        ("diff a.parquet b.parquet --html page.html --root nowhere", "there is no folder"),
        ("diff a.parquet b.parquet --limit -1", "--limit"),
    ],
)
def test_what_cannot_be_compared_is_refused(line: str, message: str) -> None:
    check_error(line, message, None)


def test_tables_of_two_stages_and_of_other_images_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    one = labeled(tmp_path / "one")

    def other_images(made: Workspace) -> None:
        for path in made.images.iterdir():
            path.unlink()
        made.paint(70, "other.png")

    two = labeled(tmp_path / "two", other_images)
    stages = f"diff {one.out} {one.labels_out}"
    done = tagllm(stages)
    assert (done.exit_code, "is a table of candidates, and" in done.stderr) == (2, True)
    done = tagllm(f"diff {one.out} {two.out}")
    assert (done.exit_code, "share no image, neither by name nor by bytes" in done.stderr) == (2, True)
