"""`tagllm run`: the tables of the two commands, gates and exports, and nothing done twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tagllm_cli.pipeline.recipe import run as recipe_run
from tagllm_cli.store.run_lock import lock_path, run_lock
from tests.support.command_line import one_object, tagllm
from tests.support.faulty_proxy import FaultyProxy
from tests.support.packing import packed
from tests.support.stub_server import stub_server
from tests.support.workspace import LABELS, Workspace, evidence_rows, snapshot

IMAGES = 12
METHOD = "--vocab vocabulary.yaml --group-size 5"
PIPELINE = """\
source: images/
vocab: vocabulary.yaml
out: out/labels.parquet
candidates: {group_size: 5}
gates: {truth: truth.csv, fail_under: {or: 0}}
exports:
  - {format: csv, out: out/labels.csv}
  - {format: hf, out: out/dataset}
"""


@pytest.fixture(scope="module")
def server() -> Iterator[FaultyProxy]:
    with stub_server() as running:
        yield running


@dataclass
class Desk:
    """The folder that commands are typed in; `asked` counts the questions that reached the server."""

    folder: Path
    workspace: Workspace
    server: FaultyProxy

    def types(self, line: str, exit_code: int = 0) -> Any:
        result = tagllm(line, self.server.url)
        assert result.exit_code == exit_code, result.output
        return result

    def asked_by(self, line: str, exit_code: int = 0) -> int:
        before = len(self.server.questions)
        self.types(line, exit_code)
        return len(self.server.questions) - before

    def report(self) -> Any:
        return json.loads((self.folder / "out/labels.run.json").read_text(encoding="utf-8"))

    def done(self) -> list[bool]:
        """Return whether the last run measured, and whether it wrote each export."""
        report = self.report()
        return [report["gates"]["done"], *(each["done"] for each in report["exports"])]


@pytest.fixture
def desk(tmp_path: Path, server: FaultyProxy, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.chdir(tmp_path)
    workspace = Workspace(tmp_path, IMAGES)
    truth = "".join(f"{number:03d}.png,{label}\n" for number in range(IMAGES) for label in ("cat", "dog", "cup"))
    Path("truth.csv").write_text(f"image,label\n{truth}")
    Path("pipeline.yaml").write_text(PIPELINE)
    return Desk(tmp_path, workspace, server)


def recorded(evidence: Path) -> Mapping[str, Any]:
    """Return everything that is on record about images and answers."""
    answers = "key, text, finish, logprobs, prompt_tokens, cached_tokens, output_tokens"
    images = "id, position, uri, version, fingerprint, width, height, error_kind, error, proposed, shard"
    return {
        "response": evidence_rows(evidence, f"SELECT {answers} FROM response ORDER BY key"),
        "image": evidence_rows(evidence, f"SELECT {images} FROM image ORDER BY id"),
        "shard": evidence_rows(evidence, "SELECT name, version FROM shard ORDER BY name"),
        "plan": evidence_rows(evidence, "SELECT value FROM meta WHERE key = 'plan'"),
    }


@pytest.mark.parametrize("place", ["folder", "tar"])
def test_the_tables_are_those_of_the_two_commands_and_each_goes_on_from_the_other(desk: Desk, place: str) -> None:
    source = packed(desk.workspace.images, place, desk.folder / "packed")
    desk.types(f"candidates {source} {METHOD} --out two/labels.candidates.parquet")
    desk.types("disambiguate two/labels.candidates.parquet --out two/labels.parquet --threshold 0.4")
    run = f"run {source} {METHOD} --threshold 0.4 --out"
    assert desk.asked_by(f"{run} one/labels.parquet") > IMAGES
    for name in ("labels.candidates", "labels"):
        one, two = Path("one", name), Path("two", name)
        assert one.with_name(f"{name}.parquet").read_bytes() == two.with_name(f"{name}.parquet").read_bytes()
        assert recorded(one.with_name(f"{name}.evidence")) == recorded(two.with_name(f"{name}.evidence"))
    assert desk.asked_by(f"{run} two/labels.parquet") == 0
    assert desk.asked_by(f"candidates {source} {METHOD} --out one/labels.candidates.parquet") == 0
    again = "disambiguate one/labels.candidates.parquet --out one/labels.parquet --threshold 0.4"
    assert desk.asked_by(again) == 0
    assert Path("one/labels.parquet").read_bytes() == Path("two/labels.parquet").read_bytes()


def test_a_page_is_written_also_where_a_gate_was_missed_and_once(desk: Desk) -> None:
    text = PIPELINE.replace("or: 0", "op: 1").replace("gates:", "report: out/page.html\ngates:")
    Path("pipeline.yaml").write_text(text)
    desk.types("run pipeline.yaml", exit_code=1)
    page = Path("out/page.html")
    assert 'data-figure="OP"' in page.read_text(encoding="utf-8")
    report = desk.report()
    assert (report["report"]["done"], report["exports"]) == (True, [])
    assert report["skipped"] == ["out/labels.csv", "out/dataset"]
    before = page.stat().st_mtime_ns
    desk.types("run pipeline.yaml", exit_code=1)
    assert (desk.report()["report"]["done"], page.stat().st_mtime_ns) == (False, before)
    Path("truth.csv").write_text(Path("truth.csv").read_text().replace("001.png,cat\n", ""))
    desk.types("run pipeline.yaml", exit_code=1)
    assert desk.report()["report"]["done"] is True
    page.write_text("mine")
    assert "out/page.html holds something else" in desk.types("run pipeline.yaml", exit_code=2).output
    assert page.read_text() == "mine"


def test_nothing_new_is_silent_and_needs_no_server_and_no_image(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.types("run pipeline.yaml")
    before = snapshot(Path("out"))

    def refuse(*_: object) -> bytes:
        raise AssertionError("an image is opened")

    monkeypatch.setattr("tagllm_cli.sources.folder.Folder.read", refuse)
    result = tagllm("run pipeline.yaml --quiet", "http://127.0.0.1:9")
    assert (result.exit_code, result.output) == (0, "")
    assert desk.done() == [False, False, False]
    written = {"labels.run.json", "labels.log"}
    after = snapshot(Path("out"))
    assert {name for name in after if after[name] != before.get(name)} <= written
    shown = desk.types("run pipeline.yaml").stdout
    assert shown.count("nothing to ask") == 2
    assert shown.count("up to date") == 2


def test_one_object_says_everything_and_is_the_report(desk: Desk) -> None:
    shown = one_object(desk.types("run pipeline.yaml --json").stdout)
    assert desk.report() == {"tagllm_run": 1, **shown}
    assert (shown["exit_code"], shown["error"], shown["skipped"]) == (0, None, [])
    assert shown["candidates"]["rows"]["ok"] == shown["labels"]["rows"]["ok"] == IMAGES
    assert shown["labels"]["asked"]["requests"] == shown["candidates"]["rows"]["labels"]
    assert 0 < shown["gates"]["or"] < 1
    assert [each["format"] for each in shown["exports"]] == ["csv", "hf"]
    assert shown["began"] <= shown["ended"]


def test_only_what_changed_is_done_again(desk: Desk) -> None:
    desk.types("run pipeline.yaml")
    assert desk.done() == [True, True, True]
    Path("out/labels.csv").unlink()
    next(Path("out/dataset").rglob("*.parquet")).unlink()
    desk.types("run pipeline.yaml")
    assert desk.done() == [False, True, True]
    Path("out/labels.csv").write_text(Path("out/labels.csv").read_text()[:100])  # cut off
    desk.types("run pipeline.yaml")
    assert desk.done() == [False, True, False]
    assert Path("out/labels.csv").read_text().count("\n") == IMAGES + 1
    Path("pipeline.yaml").write_text(PIPELINE.replace("out: out/dataset", "threshold: 0.9, out: out/dataset"))
    desk.types("run pipeline.yaml")
    assert desk.done() == [False, False, True]
    with Path("truth.csv").open("a") as truth:
        truth.write("000.png,cow\n")
    desk.types("run pipeline.yaml")
    assert desk.done() == [True, False, False]
    desk.workspace.paint(100, "new.png")
    assert 0 < desk.asked_by("run pipeline.yaml") < 30
    assert desk.done() == [True, True, True]


def test_offline_rebuilds_everything_without_a_server(desk: Desk) -> None:
    desk.types("run pipeline.yaml --offline", exit_code=2)
    assert not Path("out").exists()
    desk.types("run pipeline.yaml")
    kept = {name: data for name, data in snapshot(Path("out")).items() if Path(name).suffix in (".parquet", ".csv")}
    for name in ("labels.parquet", "labels.candidates.parquet", "labels.csv"):
        Path("out", name).unlink()
    assert tagllm("run pipeline.yaml --offline", "http://127.0.0.1:9").exit_code == 0
    assert {name: snapshot(Path("out"))[name] for name in kept} == kept


def test_a_missed_gate_ends_with_1_each_time_and_nothing_is_exported(desk: Desk) -> None:
    result = desk.types("run pipeline.yaml --fail-under or=0.99 --json", exit_code=1)
    shown = one_object(result.stdout)
    assert (shown["error"]["kind"], shown["exit_code"]) == ("GateError", 1)
    assert shown["skipped"] == ["out/labels.csv", "out/dataset"]
    assert "or is 0." in result.stderr
    assert not Path("out/labels.csv").exists()
    again = desk.types("run pipeline.yaml --fail-under or=0.99", exit_code=1)
    assert "as the last run measured" in again.stdout
    assert desk.report()["gates"]["done"] is False
    desk.types("run pipeline.yaml")
    assert desk.done() == [True, True, True]


def test_too_many_failed_images_end_with_3_and_nothing_is_exported(desk: Desk) -> None:
    for number in range(3):
        (desk.workspace.images / f"broken-{number}.png").write_bytes(b"no image")
    desk.types("run pipeline.yaml", exit_code=3)
    report = desk.report()
    assert (report["exit_code"], report["labels"]["rows"]["ok"]) == (3, IMAGES)
    assert report["skipped"] == ["gates", "out/labels.csv", "out/dataset"]
    assert not Path("out/labels.csv").exists()
    desk.types("run pipeline.yaml --max-failed-rate 0.3")
    assert Path("out/labels.csv").exists()


def test_limits_in_the_file_end_a_run_with_3_and_the_next_one_goes_on(desk: Desk) -> None:
    limited = f"{PIPELINE}max_requests: 20\nmax_seconds: 600\ngpu_price: 2.5\nmax_cost: 10\n"
    Path("pipeline.yaml").write_text(limited)
    asked = desk.asked_by("run pipeline.yaml", exit_code=3)
    assert 0 < asked <= 20
    report = desk.report()
    assert "--max-requests 20" in report["error"]["message"]
    assert (report["skipped"][0], report["labels"]["rows"]["pending"] > 0) == ("gates", True)
    desk.types("run pipeline.yaml --max-requests 1000")
    assert desk.report()["labels"]["rows"]["ok"] == IMAGES
    assert desk.done() == [True, True, True]


def test_the_dry_run_says_what_would_be_asked_and_writes_nothing(desk: Desk) -> None:
    first = one_object(desk.types("run pipeline.yaml --dry-run --json").stdout)
    assert (first["candidates"]["requests"], first["labels"]) == (4 * IMAGES, None)
    assert not Path("out").exists()
    desk.types("run pipeline.yaml")
    desk.workspace.paint(100, "new.png")
    before = snapshot(Path("out"))
    second = one_object(desk.types("run pipeline.yaml --dry-run --json").stdout)
    assert (second["candidates"]["requests"], second["labels"]["requests"]) == (4, 0)
    assert snapshot(Path("out")) == before


def test_a_flag_wins_over_the_environment_over_the_file_over_the_config_file(desk: Desk, tmp_path: Path) -> None:
    Path("options.yaml").write_text("limit: 4\nmax-failed-rate: 0.9\nrun: {seed: 3}\n")
    without_gates = "".join(line for line in PIPELINE.splitlines(keepends=True) if "truth" not in line)
    Path("pipeline.yaml").write_text(f"{without_gates}limit: 2\nendpoint: http://127.0.0.1:9\n")
    for words in ("run --config options.yaml pipeline.yaml", "run pipeline.yaml --config options.yaml"):
        shown = one_object(desk.types(f"{words} --dry-run --json").stdout)
        assert shown["candidates"]["images"] == 2
    shown = one_object(desk.types("run pipeline.yaml --dry-run --json --limit 3 --config options.yaml").stdout)
    assert shown["candidates"]["images"] == 3
    desk.types("run pipeline.yaml --out elsewhere/labels.parquet --export jsonl=elsewhere/labels.jsonl")
    assert Path("elsewhere/labels.jsonl").exists()
    assert not Path("out").exists()


def test_a_pipeline_file_in_another_folder_names_paths_beside_it(
    desk: Desk, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    desk.types(f"run {desk.folder}/pipeline.yaml")
    assert (desk.folder / "out/labels.csv").exists()
    assert list(Path().iterdir()) == []
    monkeypatch.chdir(desk.folder)
    desk.types("run pipeline.yaml")
    assert desk.done() == [False, False, False]


HOLDER = """
import sys
from pathlib import Path
from tagllm_cli.store.run_lock import run_lock
with run_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_run_on_the_table_ends_at_once(desk: Desk) -> None:
    desk.types("run pipeline.yaml")
    desk.workspace.paint(100, "new.png")
    before = snapshot(Path("out"))
    words = [sys.executable, "-c", HOLDER, "out/labels.parquet"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        result = desk.types("run pipeline.yaml --quiet", exit_code=2)
        assert result.stderr.startswith("error: another `tagllm run` is working on out/labels.parquet (process ")
        assert {name: data for name, data in snapshot(Path("out")).items() if name != "labels.lock"} == before
        desk.types("run pipeline.yaml --dry-run")
        desk.types("run pipeline.yaml --out other/labels.parquet")
        holder.kill()
    assert lock_path(Path("out/labels.parquet")).exists()  # a killed process leaves the file, and no lock
    desk.types("run pipeline.yaml")
    assert not lock_path(Path("out/labels.parquet")).exists()


def test_the_lock_is_held_until_the_last_export(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[str] = []

    def watched(name: str) -> Callable[..., Any]:
        do = getattr(recipe_run, name)

        def step(*arguments: Any) -> Any:
            held.append(f"{name} {lock_path(Path('out/labels.parquet')).exists()}")
            return do(*arguments)

        return step

    steps = ("run_both", "check_gates", "export_labels", "write_report")
    for name in steps:
        monkeypatch.setattr(recipe_run, name, watched(name))
    desk.types("run pipeline.yaml")
    assert held == [f"{name} True" for name in steps]
    assert not lock_path(Path("out/labels.parquet")).exists()


@pytest.mark.parametrize("command", ["run pipeline.yaml --dry-run", "run pipeline.yaml"])
def test_what_holds_for_both_stages_is_told_once(desk: Desk, command: str) -> None:
    desk.types("run pipeline.yaml")
    desk.workspace.write_vocabulary(LABELS[1:])
    assert desk.types(command).stderr.count(f"{LABELS[0]} removed: filtered without asking") == 1


def test_what_is_refused_leaves_no_trace(desk: Desk) -> None:
    Path("cards.yaml").write_text("cards: [{name: nobody, description: x}]")
    Path("p.yaml").write_text("source: images\nvocabb: voc\n")
    Path("out.run.json").write_text('{"mine": 1}')
    Path("notes.txt").write_text("mine")
    refused = {
        "run p.yaml": "p.yaml, line 2: unknown key 'vocabb' (did you mean 'vocab'?)",
        "run none.yaml": "none.yaml cannot be read",
        f"run images {METHOD} --out new/l.parquet --concepts cards.yaml": "'nobody'",
        f"run images {METHOD} --out new/l.parquet --fail-under of1=0.5": "--fail-under needs a truth",
        f"run images {METHOD} --out new/l.parquet --truth none.csv": "there is no truth file at none.csv",
        f"run images {METHOD} --out new/l.parquet --truth truth.csv --fail-under of2=0.5": "no gate is called 'of2'",
        f"run images {METHOD} --out new/l.parquet --export labels.json": "--export takes FORMAT=PATH",
        f"run images {METHOD} --out new/l.parquet --export xml=labels.xml": "there is no export format 'xml'",
        f"run images {METHOD} --out new/l.parquet --export csv=new/l.parquet": "would overwrite new/l.parquet",
        f"run images {METHOD} --out new/l.parquet --export csv=a.csv --export csv=./a.csv": "would overwrite a.csv",
        f"run images {METHOD} --out new/l.parquet --truth truth.csv --export csv=truth.csv": "overwrite truth.csv",
        f"run images {METHOD} --out out.parquet": "out.run.json is no report of a run",
        f"run images {METHOD} --out new/l.csv": "new/l.csv is to be a table, and tables are Parquet files",
        f"run images {METHOD} --out notes.txt": "notes.txt is not a Parquet file",
        f"run images {METHOD} --out images": "images is a folder",
        f"run images truth.csv {METHOD} --out new/l.parquet": "Got unexpected extra argument",
        "run pipeline.yaml --out s3://bucket/l.parquet": "outputs are written to local disks",
    }
    before = snapshot(desk.folder)
    for line, said in refused.items():
        result = desk.types(line, exit_code=2)
        assert said in result.stderr
        assert len(result.stderr.splitlines()) == 2
        assert snapshot(desk.folder) == before
    assert "quote globs" in desk.types(f"run a b {METHOD} --out l.parquet", exit_code=2).stderr


def test_a_failing_export_after_labeling_says_that_the_labels_are_there(desk: Desk) -> None:
    failing = PIPELINE.replace("out: out/dataset", "root: nowhere, out: out/dataset")
    Path("pipeline.yaml").write_text(failing)
    result = desk.types("run pipeline.yaml", exit_code=1)
    assert "the labels are written; out/dataset failed: there is no folder" in result.stderr
    assert (desk.report()["exit_code"], desk.done(), desk.report()["skipped"]) == (1, [True, True], ["out/dataset"])
    before = snapshot(Path("out"))
    desk.types("run pipeline.yaml", exit_code=2)  # nothing was asked, and nothing changed
    assert snapshot(Path("out")) == before
    Path("pipeline.yaml").write_text(failing.replace("group_size: 5}", "group_size: 5}\nlabels: {threshold: 0.9}"))
    assert desk.asked_by("run pipeline.yaml", exit_code=1) == 0  # both tables and the first export did
    assert desk.done() == [True, True]
    Path("pipeline.yaml").write_text(PIPELINE)
    desk.types("run pipeline.yaml")


def test_an_interrupt_after_labeling_says_what_is_left(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*unused: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(recipe_run, "export_labels", interrupted)
        shown = one_object(desk.types("run pipeline.yaml --json", exit_code=130).stdout)
    assert (shown["error"]["message"], shown["skipped"]) == (
        "interrupted; the labels are written",
        ["out/labels.csv", "out/dataset"],
    )
    assert desk.report()["exit_code"] == 130
    assert desk.asked_by("run pipeline.yaml") == 0
    assert desk.done() == [False, True, True]


def test_an_interrupt_while_asking_names_the_label_table_among_what_is_not_done(desk: Desk) -> None:
    desk.types("run pipeline.yaml")
    before = Path("out/labels.parquet").read_bytes()
    for number in range(100, 140):
        desk.workspace.paint(number, f"new-{number}.png")

    def signaling(number: int, path: str) -> None:
        if number == 20:
            os.kill(os.getpid(), signal.SIGINT)

    with stub_server(fault=signaling) as other:
        shown = tagllm("run pipeline.yaml --concurrency 2", other.url)
    assert shown.exit_code == 130
    assert "not done: out/labels.parquet, gates, out/labels.csv, out/dataset" in shown.stdout
    assert Path("out/labels.parquet").read_bytes() == before
    assert desk.report()["labels"] is None
    desk.types("run pipeline.yaml")
    assert desk.report()["labels"]["rows"]["ok"] == IMAGES + 40


@pytest.mark.parametrize("name", ["csv", "coco", "jsonl", "hf"])
def test_an_export_that_would_replace_another_file_is_refused_before_anything_is_asked(desk: Desk, name: str) -> None:
    Path("list.txt").write_text("a shopping list\n")
    line = f"run images {METHOD} --out out/labels.parquet --export {name}=list.txt"
    before = snapshot(desk.folder)
    for command in (line, f"{line} --dry-run"):
        assert "list.txt holds something else" in desk.types(command, exit_code=2).stderr
    assert snapshot(desk.folder) == before


def test_a_warning_about_the_truth_comes_once(desk: Desk) -> None:
    Path("truth.csv").write_text("image,label\n000.png,cat\n001.png,dog\n")
    told = "images of the table that the truth lacks"
    assert told in desk.types("run pipeline.yaml --quiet").stderr
    desk.workspace.paint(100, "new.png")
    desk.types("run pipeline.yaml --quiet --max-requests 2", exit_code=3)
    assert desk.types("run pipeline.yaml --quiet").output == ""
    assert f"{told}: {IMAGES - 1}" in desk.report()["gates"]["warnings"]
    Path("truth.csv").write_text("image,label\n000.png,cat\n001.png,dog\n001.png,yeti\n")
    new = desk.types("run pipeline.yaml --quiet").stderr
    assert told not in new
    assert "yeti" in new


def test_a_run_that_a_limit_ends_is_on_record_as_stopped_in_both_stages(desk: Desk) -> None:
    desk.types("run pipeline.yaml --max-requests 20", exit_code=3)
    report = desk.report()
    assert [report[stage]["error"]["kind"] for stage in ("candidates", "labels")] == ["StoppedRunError"] * 2
    shown = one_object(desk.types("info out/labels.candidates.parquet out/labels.parquet --json").stdout)
    assert [table["runs"][-1]["end"] for table in shown["tables"]] == ["stopped"] * 2


def test_zero_requests_in_the_file_as_on_the_command_line_bring_the_table_up_to_date(desk: Desk) -> None:
    Path("pipeline.yaml").write_text(f"{PIPELINE}max_requests: 0\n")
    assert desk.asked_by("run pipeline.yaml", exit_code=3) == 0
    assert desk.report()["labels"]["rows"]["pending"] == IMAGES


def test_no_file_beside_the_table_holds_a_password(desk: Desk) -> None:
    address = desk.server.url.replace("http://", "http://me:pa55word-of-mine@")
    for line, code in (("run pipeline.yaml", 0), ("run pipeline.yaml --fail-under or=1 --json", 1)):
        result = tagllm(line, address)
        assert result.exit_code == code, result.output
        assert "pa55word" not in result.output
    assert [name for name, data in snapshot(Path("out")).items() if b"pa55word" in (data or b"")] == []


def test_the_lock_of_folders_that_it_made_removes_them(tmp_path: Path) -> None:
    with run_lock(tmp_path / "a/b/labels.parquet"):
        assert (tmp_path / "a/b/labels.lock").exists()
    assert list(tmp_path.iterdir()) == []
