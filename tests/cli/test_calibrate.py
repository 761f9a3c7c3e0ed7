"""`tagllm calibrate` and `--thresholds` as they are typed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tagllm_cli.store.table import open_table
from tests.support.command_line import check_error, one_object, tagllm
from tests.support.faulty_proxy import FaultyProxy
from tests.support.stub_server import stub_server
from tests.support.workspace import Workspace

IMAGES = 40
RUN = "run images/ --vocab vocabulary.yaml --group-size 5 --out labels.parquet"
BEST = 0.3  # what the truth follows


@pytest.fixture(scope="module")
def server() -> Iterator[FaultyProxy]:
    with stub_server() as running:
        yield running


@pytest.fixture
def labeled(tmp_path: Path, server: FaultyProxy, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A label table, and a truth in which labels are present from a probability of BEST on."""
    monkeypatch.chdir(tmp_path)
    workspace = Workspace(tmp_path, IMAGES)
    typed(RUN, server)
    lines = [
        f"{row.image_id},{entry.name}"
        for row in open_table(Path("labels.parquet")).rows()
        for entry in row.labels or ()
        if (entry.probability or 0) > BEST
    ]
    Path("truth.csv").write_text("\n".join(["image,label", *lines, *(f"{n:03d}.png," for n in range(IMAGES))]))
    return workspace


def typed(line: str, server: FaultyProxy) -> str:
    result = tagllm(line, server.url)
    assert result.exit_code == 0, result.output
    return str(result.stdout)


def said_yes(path: str = "labels.parquet") -> int:
    return sum(entry.decision == "yes" for row in open_table(Path(path)).rows() for entry in row.labels or ())


def test_a_run_takes_the_thresholds_asks_nothing_and_notices_when_they_change(
    labeled: Workspace, server: FaultyProxy
) -> None:
    found = one_object(typed("calibrate labels.parquet --truth truth.csv --out t.yaml --json", server))
    assert found["held_out"]["after"]["OF1"]["value"] > found["held_out"]["before"]["OF1"]["value"]
    assert found["pairs"]["before"] == said_yes()
    asked = len(server.questions)
    typed(f"{RUN} --thresholds t.yaml", server)
    assert said_yes() == found["pairs"]["after"]
    stamp = Path("labels.parquet").stat().st_mtime_ns
    typed(f"{RUN} --thresholds t.yaml", server)
    assert Path("labels.parquet").stat().st_mtime_ns == stamp
    content = yaml.safe_load(Path("t.yaml").read_text())
    Path("t.yaml").write_text(yaml.safe_dump({**content, "threshold": 0.99}))
    typed(f"{RUN} --thresholds t.yaml", server)
    assert said_yes() < found["pairs"]["after"]
    assert len(server.questions) == asked
    assert "labels with their own" in typed("info labels.parquet", server)


def test_a_pipeline_file_names_the_thresholds_of_the_labels_and_of_an_export(
    labeled: Workspace, server: FaultyProxy
) -> None:
    typed("calibrate labels.parquet --truth truth.csv --metric recall=0.9 --out sub/t.yaml", server)
    recipe = {
        "source": "../images/",
        "vocab": "../vocabulary.yaml",
        "out": "../labels.parquet",
        "candidates": {"group_size": 5},
        "exports": [{"format": "csv", "out": "all.csv", "thresholds": "t.yaml"}],
    }
    Path("sub/p.yaml").write_text(yaml.safe_dump(recipe))
    before = said_yes()
    typed("run sub/p.yaml", server)
    assert said_yes() == before
    exported = Path("sub/all.csv").read_text()
    typed("run sub/p.yaml", server)
    content = yaml.safe_load(Path("sub/t.yaml").read_text())
    raised = [{key: value for key, value in label.items() if key != "threshold"} for label in content["labels"]]
    Path("sub/t.yaml").write_text(yaml.safe_dump({**content, "threshold": 1.0, "labels": raised}))
    typed("run sub/p.yaml", server)
    assert len(Path("sub/all.csv").read_text()) < len(exported)
    Path("sub/p.yaml").write_text(yaml.safe_dump({**recipe, "labels": {"thresholds": "t.yaml"}, "exports": []}))
    typed("run sub/p.yaml", server)
    assert said_yes() == 0


def test_the_tables_for_people_name_every_label_and_what_to_do_next(labeled: Workspace, server: FaultyProxy) -> None:
    printed = typed("calibrate labels.parquet --truth truth.csv --metric precision=0.9 --out t.yaml", server)
    assert all(name in printed for name in ("OF1", "mean F1", "plate", "recall that remains, on held-out images"))
    short = typed("calibrate labels.parquet --truth truth.csv --out t.yaml --overall", server)
    assert "plate" not in short
    assert "with --thresholds t.yaml; nothing is asked" in short


def test_bias_is_asked_once_and_alone_it_is_written_with_a_warning(labeled: Workspace, server: FaultyProxy) -> None:
    asked = len(server.questions)
    result = tagllm("calibrate labels.parquet --bias 2 --out t.yaml", server.url)
    assert result.exit_code == 0, result.output
    assert "no truth has shown them to be better" in result.stderr
    assert len(server.questions) == asked + 2 * 2 * 8
    found = one_object(typed("calibrate labels.parquet --bias 2 --truth truth.csv --out t.yaml --json", server))
    assert len(server.questions) == asked + 2 * 2 * 8
    assert set(found["bias"]["offset"]) == {label["name"] for label in found["labels"]}


def test_older_thresholds_are_replaced_also_under_a_comment(labeled: Workspace, server: FaultyProxy) -> None:
    typed("calibrate labels.parquet --truth truth.csv --out t.yaml", server)
    made = Path("t.yaml").read_text()
    Path("t.yaml").write_text(f"# of the first run\n{made}")
    typed("calibrate labels.parquet --truth truth.csv --out t.yaml", server)
    assert Path("t.yaml").read_text() == made


def test_what_cannot_be_used_is_said_in_one_line(labeled: Workspace, server: FaultyProxy) -> None:
    for line, message in (
        ("calibrate labels.parquet --out t.yaml", "there is nothing to calibrate by"),
        ("calibrate labels.parquet --truth truth.csv --metric f2 --out t.yaml", "--metric takes f1, precision=P"),
        ("calibrate labels.candidates.parquet --truth truth.csv --out t.yaml", "is a candidate table"),
        ("calibrate labels.parquet --truth truth.csv --seed -1 --out t.yaml", "--seed"),
        ("calibrate labels.parquet --truth truth.csv --out images", "is a folder"),
        ("calibrate labels.parquet --truth truth.csv --out truth.csv", "truth.csv holds something else"),
        ("calibrate labels.parquet --truth truth.csv --out labels.parquet", "labels.parquet holds something else"),
        ("calibrate labels.parquet --bias 2 --out truth.csv", "truth.csv holds something else"),
        (f"{RUN} --thresholds truth.csv", "truth.csv"),
        ("export labels.parquet --format csv --out l.csv --thresholds none.yaml", "none.yaml cannot be read"),
    ):
        result = tagllm(line, server.url)
        assert (result.exit_code, result.stdout) == (2, ""), result.output
        assert message in result.stderr
    check_error("calibrate labels.parquet --out t.yaml", "there is nothing to calibrate by", server.url)
