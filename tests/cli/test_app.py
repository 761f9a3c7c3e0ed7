"""The command line as its user meets it: help, errors of two lines, JSON for programs, exit codes."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tests.support.command_line import check_error, one_object, tagllm
from tests.support.faulty_proxy import FaultyProxy
from tests.support.image_files import encode, photo
from tests.support.stub_server import stub_server
from tests.support.workspace import paint

COMMANDS = [
    "",
    "run",
    "candidates",
    "disambiguate",
    "evaluate",
    "export",
    "vocab",
    "vocab list",
    "vocab show",
    "vocab check",
]
COMMANDS += ["vocab scenes", "vocab suggest", "concepts", "diff", "doctor"]


@pytest.fixture(scope="module")
def server() -> Iterator[FaultyProxy]:
    with stub_server() as running:
        yield running


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, server: FaultyProxy) -> Iterator[Path]:
    """A folder with two pictures, a table of each kind, and files that are none; the tests of this module sit in it."""
    place = tmp_path_factory.mktemp("desk")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for number in range(2):
            paint(Path("photos", f"{number}.png"), number)
        assert tagllm("candidates photos --vocab voc --out candidates.parquet", server.url).exit_code == 0
        assert tagllm("disambiguate candidates.parquet --out labels.parquet", server.url).exit_code == 0
        for folder in ("empty", "own-prompts", "no-model", "half-model"):
            Path(folder).mkdir()
        for path, text in {
            "own-prompts/group.yaml": "text: Which of {{ label }}?",
            "half-model/config.json": "{}",
            "half-model/model.safetensors.incomplete": "",
            "text.parquet": "hello",
            "twice.txt": "cat\ndog\ncat\n",
            "bad.yaml": "modle: a",
            "truth.csv": "image,label\n0.png,person\n",
        }.items():
            Path(path).write_text(text)
        pq.write_table(pa.table({"a": [1]}), "other.parquet")
        yield place


@pytest.mark.parametrize("command", COMMANDS)
def test_help_answers(command: str) -> None:
    result = tagllm(f"{command} --help")
    assert (result.exit_code, result.stderr) == (0, "")
    assert f"Usage: {f'tagllm {command}'.strip()}" in result.stdout
    assert "\x1b" not in result.stdout
    assert max(map(len, tagllm(f"{command} -h", environment={"COLUMNS": "80"}).stdout.splitlines())) <= 80


def test_help_loads_nothing_heavy() -> None:
    script = f"""
import sys
from tagllm_cli.cli.app import app
app(["--help"], standalone_mode=False)
assert "pydantic" not in sys.modules  # typer itself loads it to convert the options of a command
for command in {COMMANDS}:
    app([*command.split(), "--help"], standalone_mode=False)
print("loaded:", *sorted(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    heavy = {"vllm", "torch", "torchmetrics", "transformers", "pyarrow", "numpy", "PIL", "aiohttp", "jinja2", "yaml"}
    heavy |= {
        "fsspec",
        "s3fs",
        "asyncio",
        "rich.progress",
        "sqlite3",
        "tagllm_cli.engines",
        "tagllm_cli.cli.console",
        "urllib.request",
    }
    assert {"typer", "rich.panel"} <= loaded
    assert loaded & heavy == set()


def test_the_version() -> None:
    result = tagllm("--version")
    assert result.exit_code == 0
    assert re.fullmatch(r"tagllm \d+\.\d+\.\d+\n", result.stdout)


RUN = "candidates photos --vocab voc --out x.parquet"
ERRORS = {
    "candidates nowhere --vocab voc --out x.parquet": "nowhere'",
    "candidates truth.csv --vocab voc --out x.parquet": "truth.csv names are not there: 0.png",
    "candidates empty --vocab voc --out x.parquet": "no images in",
    "candidates photos --vocab vok --out x.parquet": "no built-in vocabulary is called 'vok'",
    "candidates photos --vocab none.yaml --out x.parquet": "none.yaml cannot be read",
    "candidates photos --vocab twice.txt --out x.parquet": "'cat' stands 2 times",
    f"{RUN} --prompts own-prompts": "own-prompts/group.yaml",
    f"{RUN} --prompts nowhere": "nowhere cannot be read",
    f"{RUN} --engine-arg foo": "takes KEY=VALUE, not 'foo'",
    f"{RUN} --gpus some": "--gpus takes a number or `all`, not 'some'",
    f"{RUN} --gpus 0": "--gpus takes a number or `all`, not '0'",
    f"{RUN} --gpus all --endpoint http://localhost:9": "--gpus is for a model that is loaded here",
    f"{RUN} --chat-template-kwargs thinking=false": "takes a JSON object, not 'thinking=false'",
    f"{RUN} --chat-template-kwargs [1]": "takes a JSON object, not '[1]'",
    f"{RUN} --arms ,": "--arms names nothing",
    f"{RUN} --arms nope": "no arm named 'nope'",
    f"{RUN} --limit 0": "--limit",
    f"{RUN} --seed x": "--seed",
    f"{RUN} --missing maybe": "--missing",
    f"{RUN} --config bad.yaml": "no option 'modle'",
    f"{RUN} --config none.yaml": "none.yaml cannot be read: No such file or directory",
    f"{RUN} --offline": "no evidence at x.evidence",
    f"{RUN} --nope": "No such option: --nope",
    f"{RUN}\udcff": "x.parquet\\udcff is not UTF-8",
    "candidates photos --out x.parquet": "Missing option '--vocab'",
    "candidates --vocab voc --out x.parquet": "Missing argument 'SOURCE'",
    "candidates photos --vocab voc --out photos": "photos is a folder",
    "candidates photos --vocab voc --out text.parquet": "text.parquet is not a Parquet file",
    "candidates photos --vocab voc --out text.parquet/x.parquet": "text.parquet",
    "candidates photos --vocab voc --out other.parquet": "other.parquet is a Parquet file, but no label table",
    "candidates photos --vocab voc --out labels.parquet": "labels.parquet is a table of another kind",
    "candidates photos --vocab voc --out x.evidence": "x.evidence is the name of an evidence file",
    "candidates photos --vocab voc --out candidates.parquet --group-size 3": "pinned to --group-size 12",
    "run photos --vocab voc --out candidates.parquet": "candidates.parquet is a table of another kind",
    "run photos --vocab voc": "Missing option '--out'",
    "run bad.yaml": "line 1: unknown key 'modle' (did you mean 'model'?)",
    "disambiguate labels.parquet --out x.parquet": "is a label table already",
    "disambiguate none.parquet --out x.parquet": "no table at none.parquet",
    "disambiguate candidates.parquet --out candidates.parquet": "--out is the candidate table itself",
    "disambiguate candidates.parquet --out x.parquet --concepts none.yaml": "none.yaml",
    "disambiguate candidates.parquet --out x.parquet --root nowhere": "nowhere",
    "evaluate labels.parquet --truth none.csv": "no truth file at none.csv",
    "evaluate labels.parquet --truth candidates.parquet": "is a candidate table",
    "evaluate labels.parquet --truth truth.csv --fail-under of2=1": "no gate is called 'of2'",
    "evaluate labels.parquet --truth truth.csv --fail-under of1=2": "of1=2",
    "export candidates.parquet --format coco --out x.json": "nothing in it is decided",
    "export labels.parquet --format nope --out x.json": "'nope' is not one of 'coco', 'csv', 'csv-long'",
    "export labels.parquet --format coco --out photos": "photos holds something else",
    "vocab show vok": "no built-in vocabulary is called 'vok'",
    "vocab nope": "No such command 'nope'",
    "nope": "No such command 'nope'",
    "--nope": "No such option: --nope",
}


@pytest.mark.parametrize("line", ERRORS)
def test_an_error_is_two_lines_and_touches_nothing(workspace: Path, server: FaultyProxy, line: str) -> None:
    check_error(line, ERRORS[line], server.url)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("", "no model is named"),
        ("--model ./nowhere", "no model at ./nowhere"),
        ("--model no-model", "no-model is not a model"),
        ("--model half-model", "half-model is an unfinished download"),
        ("--endpoint http://127.0.0.1:{closed}", "no endpoint answers"),
        ("--replay none.jsonl", "none.jsonl cannot be read"),
    ],
)
def test_a_model_that_cannot_answer_is_told(
    workspace: Path, options: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tagllm_cli.engines.http.search.START_TRIES", 1)  # a user waits for a few seconds
    with stub_server() as gone:
        closed = gone.port
    check_error(f"{RUN} {options.format(closed=closed)}", message, None)


@pytest.mark.parametrize("command", ["", "vocab"])
def test_a_command_alone_shows_its_help(command: str) -> None:
    assert f"Usage: {f'tagllm {command}'.strip()}" in tagllm(command).output


@pytest.mark.parametrize(
    "line",
    [
        "candidates photos --vocab voc --out {tmp}/c.parquet",
        "candidates photos --vocab voc --out {tmp}/c.parquet --dry-run",
        "candidates photos --vocab voc --out candidates.parquet",
        "disambiguate candidates.parquet --out {tmp}/l.parquet",
        "disambiguate candidates.parquet --out labels.parquet --offline",
        "evaluate labels.parquet --truth labels.parquet",
        "export labels.parquet --format csv --out {tmp}/l.csv",
        "vocab list",
        "vocab show voc",
        "vocab check voc",
        "doctor",
    ],
)
def test_json_is_one_object_and_people_get_plain_text(
    workspace: Path, server: FaultyProxy, tmp_path: Path, line: str
) -> None:
    line = line.format(tmp=shlex.quote(str(tmp_path)))
    told = tagllm(f"{line} --json", server.url)
    assert told.exit_code == 0, told.output
    assert one_object(told.stdout)
    plain = tagllm(line, server.url)
    assert plain.exit_code == 0
    assert plain.stdout.strip()
    assert not re.search(r"[\x1b─-╿]", plain.output)


def test_a_missed_gate_is_exit_code_1(workspace: Path) -> None:
    line = "evaluate labels.parquet --truth truth.csv --fail-under of1=1 --fail-under or=0"
    plain, told = tagllm(line), tagllm(f"{line} --json")
    assert (plain.exit_code, told.exit_code) == (1, 1)
    *_, what, advice = plain.stderr.splitlines()
    assert what.startswith("error: of1 ")
    assert advice
    report = one_object(told.stdout)
    assert len(report["missed_gates"]) == 1
    assert report["of1"] < 1


def test_too_many_failed_images_are_exit_code_3(workspace: Path, server: FaultyProxy, tmp_path: Path) -> None:
    picture = encode(photo(), "JPEG")
    for name, data in {"good.jpg": picture, "half.jpg": picture[: len(picture) // 2], "none.png": b""}.items():
        (tmp_path / name).write_bytes(data)
    words = ["candidates", str(tmp_path), "--vocab", "voc", "--out", str(tmp_path / "c.parquet"), "--json"]
    result = tagllm(words, server.url)
    report = one_object(result.stdout)
    assert (result.exit_code, report["error"]["kind"]) == (3, "TooManyFailedError")
    assert (report["rows"]["ok"], report["rows"]["failed"]) == (1, 2)
    assert "error: 2 of 3 images failed" in result.stderr
    assert tagllm([*words, "--max-failed-rate", "0.7"], server.url).exit_code == 0


def test_a_quiet_evaluation_prints_warnings_and_errors_only(workspace: Path) -> None:
    line = "evaluate labels.parquet --truth truth.csv"
    loud, quiet = tagllm(line), tagllm(f"{line} --quiet")
    assert loud.stdout
    warnings = [line for line in loud.stderr.splitlines() if line.startswith("warning: ")]
    assert warnings
    assert (quiet.exit_code, quiet.stdout, quiet.stderr.splitlines()) == (0, "", warnings)
    gated = tagllm(f"{line} --quiet --fail-under of1=1")
    assert (gated.exit_code, gated.stdout) == (1, "")
    assert "error: of1 " in gated.stderr


@pytest.mark.parametrize("json_output", [False, True])
def test_a_bug_is_two_lines_and_a_traceback_in_a_file(
    workspace: Path, server: FaultyProxy, tmp_path: Path, json_output: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(job: object, options: object, console: object) -> None:
        raise KeyError("labels\nof nobody")

    monkeypatch.setattr("tagllm_cli.pipeline.label.run.run_job", fails)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    out = tmp_path / "c.parquet"
    more = ["--json"] if json_output else []
    result = tagllm(["candidates", "photos", "--vocab", "voc", "--out", str(out), *more], server.url)
    assert result.exit_code == 1
    what, hint = result.stderr.splitlines()
    assert what == "error: unexpected KeyError: 'labels\\nof nobody'"
    assert hint == f"This is a bug in tagllm: please report it with the traceback in {tmp_path / 'c.log'}."
    assert "Traceback (most recent call last)" in (tmp_path / "c.log").read_text()
    if json_output:
        assert one_object(result.stdout)["error"]["kind"] == "InternalError"
    verbose = tagllm(["candidates", "photos", "--vocab", "voc", "--out", str(out), "--verbose"], server.url)
    assert "Traceback (most recent call last)" in verbose.stderr


def test_a_bug_in_a_command_without_a_log_leaves_a_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("tagllm_cli.vocabulary.load.load_vocabulary", lambda name: 1 // 0)
    result = tagllm("vocab show voc")
    (left,) = tmp_path.iterdir()
    assert (result.exit_code, str(left) in result.stderr, "ZeroDivisionError" in left.read_text()) == (1, True, True)


def test_quiet_says_nothing(workspace: Path, server: FaultyProxy, tmp_path: Path) -> None:
    words = ["candidates", "photos", "--vocab", "voc", "--out", str(tmp_path / "c.parquet"), "--quiet"]
    assert tagllm(words, server.url).output == ""
    assert "error: there is no folder" in tagllm("candidates nowhere --vocab voc --out x.parquet -q").stderr


@pytest.mark.parametrize(
    ("labels", "kinds", "status"),
    [(["cat", "dog"], [], 0), (["cat", "Cat"], ["alike"], 0), (["cat", "Cat", "cat"], ["duplicate", "alike"], 2)],
)
def test_vocab_check_tells_doubts_from_errors(tmp_path: Path, labels: list[str], kinds: list[str], status: int) -> None:
    path = tmp_path / "v.yaml"
    path.write_text(yaml.safe_dump({"labels": labels}))
    told = tagllm(["vocab", "check", str(path), "--json"])
    problems = one_object(told.stdout)["problems"]
    assert [(each["kind"], each["fatal"]) for each in problems] == [(kind, kind == "duplicate") for kind in kinds]
    plain = tagllm(["vocab", "check", str(path)])
    assert [line.partition(":")[0] for line in plain.stdout.splitlines()] == (
        ["error" if kind == "duplicate" else "warning" for kind in kinds] or [str(path)]
    )
    assert {told.exit_code, plain.exit_code, tagllm(["vocab", "show", str(path)]).exit_code} == {status}
