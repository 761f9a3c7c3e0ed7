"""`tagllm info`: what tables hold, what their runs took and cost, also while one is under way."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tagllm_cli.pipeline.label.listing import Part
from tagllm_cli.records import Failure
from tagllm_cli.store.merge.merge import merge_tables
from tagllm_cli.store.table import open_table
from tests.cli.test_interrupt import ANSWERED, IMAGES, start
from tests.support.command_line import check_error, one_object, tagllm
from tests.support.rule_engine import RuleEngine
from tests.support.stub_server import stub_server
from tests.support.workspace import Workspace, evidence_rows, snapshot

RELEASE = Path(__file__).parents[1] / "data" / "release_0_1"
TOKENS = "count(*), sum(prompt_tokens), sum(cached_tokens), sum(output_tokens)"
PRICES = "--gpu-price 3600 --price-in 2 --price-out 5"


def printed(*tables: Path, options: str = "") -> Any:
    """The object that `tagllm info --json` prints, also of an error."""
    return one_object(tagllm([*("info", "--json"), *map(str, tables), *shlex.split(options)]).stdout)


def told(*tables: Path, options: str = "") -> Any:
    """The object that `tagllm info --json` prints."""
    found = printed(*tables, options=options)
    assert "error" not in found, found
    return found


def answers(table: Path) -> tuple[int, ...]:
    """Requests with an answer, and their tokens, from the rows of the evidence."""
    (found,) = evidence_rows(table.with_suffix(".evidence"), f"SELECT {TOKENS} FROM response")
    return tuple(found)


def of_runs(report: Any) -> tuple[int, ...]:
    names = ("requests", "prompt_tokens", "cached_tokens", "output_tokens")
    return tuple(sum(run[name] for run in report["runs"]) for name in names)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path, IMAGES)


@pytest.fixture
def labeled(workspace: Workspace) -> Workspace:
    """Two runs of candidates, the first one over four images, then one of disambiguate, by a server."""
    (workspace.images / "901.png").write_bytes(b"no image")
    with stub_server() as server:
        for line in (
            f"candidates {workspace.images} --vocab {workspace.vocabulary} --out {workspace.out} --limit 4",
            f"candidates {workspace.images} --vocab {workspace.vocabulary} --out {workspace.out}",
            f"disambiguate {workspace.out} --out {workspace.labels_out}",
        ):
            assert tagllm(f"{line} --max-failed-rate 1 --quiet", server.url).exit_code == 0
    return workspace


def test_everything_about_two_tables_is_one_object(labeled: Workspace) -> None:
    report = told(labeled.out, labeled.labels_out, options=PRICES)
    candidates, labels = report["tables"]
    for path, found, runs in ((labeled.out, candidates, 2), (labeled.labels_out, labels, 1)):
        entries = [entry for row in open_table(path).rows() for entry in row.labels or ()]
        counts = Counter(entry.name for entry in entries if entry.decision in (None, "yes"))
        assert found["rows"] == {"ok": IMAGES, "partial": 0, "failed": 1, "pending": 0}
        assert found["labels"]["by_label"] == {name: counts[name] for name in open_table(path).info.vocabulary.names}
        assert found["labels"]["no"] == sum(entry.decision == "no" for entry in entries)
        assert [run["end"] for run in found["runs"]] == ["done"] * runs
        assert of_runs(found) == answers(path)
        assert found["evidence"]["bytes"] == path.with_suffix(".evidence").stat().st_size
        assert (found["images"], found["evidence"]["images"]) == (IMAGES, IMAGES + 1)
        assert found["source"]["uri"] == str(labeled.images)
        assert found["plan"]["model"] == "stub"
        cost = found["cost"]
        paid = cost["seconds"] + (2 * cost["prompt_tokens"] + 5 * cost["output_tokens"]) / 1e6
        assert cost["price"] == pytest.approx(paid, rel=1e-3)
        assert cost["per_1000_images"] == pytest.approx(100 * paid, rel=1e-3)
        assert sum(run["price"] for run in found["runs"]) == pytest.approx(paid, rel=1e-3)
    assert [run["requests"] for run in candidates["runs"]] == [4, IMAGES - 4]
    assert (candidates["plan"]["strategy"], labels["plan"]["thresholds"]) == (
        "groups",
        {"threshold": 0.5, "min_mass": 0.5},
    )
    both = candidates["cost"]["per_1000_images"] + labels["cost"]["per_1000_images"]
    assert report["together"]["per_1000_images"] == pytest.approx(both, rel=1e-4)
    assert report["human"]["per_1000_images"] == 35.0
    assert report["ratio"] == pytest.approx(both / 35, rel=1e-3)
    assert told(labeled.out, labeled.labels_out, options=f"{PRICES} --human-price 70")["ratio"] == pytest.approx(
        both / 70, rel=1e-3
    )


def test_people_read_it(labeled: Workspace) -> None:
    result = tagllm(f"info {labeled.out} {labeled.labels_out} --gpu-price 2.50")
    assert (result.exit_code, result.stderr) == (0, "")
    for line in (
        f"{labeled.out}: candidates of 11 images",
        "rows:         10 ok, 1 failed",
        "vocabulary:   tiny, 8 labels",
        "prompts:      group",
        f"source:       folder {labeled.images}",
        "cost of each stage",
        "people:  35.00 per 1,000 images: 1 unit per image (one person, up to 20 labels), 35 for 1,000 units",
        "note:    the runs do not say how many GPUs they had: --gpu-price is taken as the price of all of them",
    ):
        assert line in result.stdout
    assert re.search(r"^together +10 +0\.\d+ +3,100 +64% ", result.stdout, re.MULTILINE), result.stdout
    assert " of that (the paper says 1/1,000)" in result.stdout
    assert "ratio:   needs --gpu-price" in tagllm(f"info {labeled.out}").stdout
    alone = tagllm(f"info {labeled.labels_out} --price-in 0.2").stdout
    assert "labels alone: name the tables of both stages for the whole" in alone
    assert tagllm(f"info {labeled.out} --quiet").output == ""


def test_prices_come_from_the_config_file_too(labeled: Workspace, tmp_path: Path) -> None:
    config = tmp_path / "tagllm.yaml"
    config.write_text("gpu-price: 3600\ninfo:\n  human-price: 10\n  price-in: 1\n", encoding="utf-8")
    found = told(labeled.out, options=f"--config {config} --price-in 2")
    assert found["prices"] == {"gpu_hour": 3600.0, "million_in": 2.0, "million_out": None}
    assert found["human"]["per_1000_images"] == 10.0


@pytest.mark.parametrize("price", ["nan", "inf", "-1", "cheap"])
@pytest.mark.parametrize("option", ["--gpu-price", "--price-in", "--price-out", "--human-price"])
def test_what_is_no_price_is_refused(option: str, price: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    check_error(f"info no.parquet {option} {price}", option, None)


def test_a_table_that_is_not_there_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    check_error("info no.parquet", "there is no table at no.parquet", None)
    Path("text.parquet").write_text("name,label\n")
    check_error("info text.parquet", "is not a Parquet file", None)
    Path("no.evidence").write_text("name,label\n" * 100)
    check_error("info no.parquet", "no.evidence is damaged", None)


def test_a_table_alone_tells_what_it_knows(labeled: Workspace) -> None:
    evidence = labeled.out.with_suffix(".evidence")
    evidence.unlink()
    result = tagllm(f"info {labeled.out} --gpu-price 1")
    assert result.exit_code == 0
    assert "warning: there is no evidence beside" in result.stderr
    assert "rows:         10 ok, 1 failed" in result.stdout
    assert "started" not in result.stdout
    evidence.write_bytes(b"name,label\n" * 1000)
    result = tagllm(f"info {labeled.out} --json")
    assert "is damaged" in result.stderr
    found = one_object(result.stdout)["tables"][0]
    assert (found["rows"]["ok"], found["evidence"], found["runs"]) == (IMAGES, None, [])
    assert "is damaged" in found["warning"]


def test_tables_of_the_first_release(tmp_path: Path) -> None:
    candidates, labels = told(RELEASE / "c.parquet", RELEASE / "l.parquet", options="--price-in 1")["tables"]
    assert (of_runs(candidates)[1:], of_runs(labels)[1:]) == ((1680, 0, 140), (1260, 0, 21))
    assert [run["end"] for run in candidates["runs"]] == ["failures"]
    assert candidates["runs"][0]["started"].endswith("+00:00")


def test_how_runs_ended_and_what_failed(workspace: Workspace) -> None:
    workspace.engine = RuleEngine(fault=lambda picture, request: Failure("timeout", "late"))
    workspace.candidates(limit=2, preflight=False)
    workspace.engine = RuleEngine()
    workspace.candidates()
    (found,) = told(workspace.out)["tables"]
    first, second = found["runs"]
    assert (first["end"], first["requests"], first["failed_requests"]) == ("failures", 8, 8)
    assert first["error"]["kind"] == "TooManyFailedError"
    assert (second["end"], second["failed_requests"], second["engine"]) == ("done", 0, "rules")
    shown = tagllm(f"info {workspace.out}").stdout
    assert "failures" in shown
    assert "failed  prompt" in shown


@pytest.fixture
def hanging(workspace: Workspace) -> Iterator[Any]:
    """A run of candidates in another process, which waits for its fifth image's answer."""
    process, reached = start(workspace, "ask")
    assert reached.wait(60)
    yield process
    process.kill()
    process.join()


@pytest.mark.slow
def test_a_run_under_way_and_a_killed_one_are_counted_and_left_alone(workspace: Workspace, hanging: Any) -> None:
    folder = workspace.out.parent
    while "error" in (seen := printed(workspace.out)) or seen["tables"][0]["images"] < ANSWERED:
        assert "error" not in seen or "has recorded nothing yet" in seen["error"]["message"]
        assert hanging.is_alive()
    names = sorted(snapshot(folder))
    log = (folder / "c.evidence-wal").read_bytes()
    report = told(workspace.out, options="--price-in 1")
    (found,) = report["tables"]
    assert (sorted(snapshot(folder)), (folder / "c.evidence-wal").read_bytes()) == (names, log)
    assert (found["rows"], found["images"], found["evidence"]["is_being_written"]) == (None, ANSWERED, True)
    ((run),) = found["runs"]
    assert (run["end"], run["ended"], run["requests"]) == ("under way", None, 4 * ANSWERED)
    shown = tagllm(f"info {workspace.out} --gpu-price 1").stdout
    assert "candidates, not written yet" in shown
    assert "a run is under way" in shown

    os.kill(hanging.pid, signal.SIGKILL)
    hanging.join()
    (killed,) = told(workspace.out)["tables"][0]["runs"]
    assert (killed["end"], killed["requests"], killed["without_end"]) == ("killed", 4 * ANSWERED, 1)
    workspace.candidates()
    (after,) = told(workspace.out)["tables"]
    assert [run["end"] for run in after["runs"]] == ["killed", "done"]
    assert of_runs(after) == answers(workspace.out)
    assert after["rows"]["ok"] == IMAGES
    assert "runs without an end, counted until their last answer (+): 1" in tagllm(f"info {workspace.out}").stdout


def test_one_pass_for_both_stages_is_counted_once(workspace: Workspace) -> None:
    tables = [workspace.out.with_name(name) for name in ("both.candidates.parquet", "both.parquet")]
    with stub_server() as server:
        line = f"run {workspace.images} --vocab {workspace.vocabulary} --out {tables[1]} --json"
        took = tagllm(line, server.url)
    assert took.exit_code == 0, took.output
    report = told(*tables, options="--gpu-price 3600")
    for path, found in zip(tables, report["tables"], strict=True):
        assert ([run["end"] for run in found["runs"]], of_runs(found)) == (["done"], answers(path))
    log = json.loads(tables[1].with_name("both.run.json").read_text())
    assert report["together"]["price"] == pytest.approx(report["together"]["seconds"], rel=1e-3)
    assert report["together"]["seconds"] <= log["seconds"] * 1.01


def test_merged_tables_keep_the_runs_of_their_parts(workspace: Workspace, tmp_path: Path) -> None:
    parts = [tmp_path / f"part-{number}.parquet" for number in range(2)]
    for number, path in enumerate(parts):
        workspace.out, workspace.engine = path, RuleEngine()
        workspace.candidates(part=Part(number, 2))
    merged = tmp_path / "all.parquet"
    merge_tables(merged, parts)
    (found,) = told(merged)["tables"]
    assert found["evidence"]["merged_tables"] == 2
    assert [Path(run["table"]).name for run in found["runs"]] == ["part-0.parquet", "part-1.parquet"]
    assert of_runs(found) == answers(merged)
    # Parts beside one another are one stage: its price is that of all images, not the sum of the parts' prices.
    apart, whole = told(*parts, options="--price-in 1"), told(merged, options="--price-in 1")
    assert apart["stages"]["candidates"]["per_1000_images"] == whole["stages"]["candidates"]["per_1000_images"]
    assert json.dumps(apart["tables"][0]["evidence"]["part"]) == '"0/2"'
    shown = tagllm(f"info {merged}").stdout
    assert "merged:       from 2 tables, whose runs are listed" in shown
    assert "part-1.parquet" in shown
