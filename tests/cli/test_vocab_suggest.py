"""`tagllm vocab suggest` as it is typed, after open questions, and what `candidates` makes of its file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tagllm_cli.records import DecodedImage, Request, Response
from tests.support.command_line import check_error, one_object, tagllm
from tests.support.faulty_proxy import FaultyProxy
from tests.support.stub_server import stub_server
from tests.support.workspace import paint

VOCABULARY = (
    "name: desk\nparents: [tools]\nlabels: [{name: mouse, parent: tools}, {name: keyboard, parent: tools}, cat]\n"
)


def answer(picture: DecodedImage | None, request: Request) -> Response:
    if "names are to be added" in request.text:
        said = [{"name": "lamp", "parent": "tools"}, {"name": "kitty", "same_as": "cat"}]
        return Response(json.dumps(said))
    if "List everything" in request.text:
        return Response("mouse, a desk lamp, lamps, kitty, person riding horse, keybord")
    return Response("none")


@pytest.fixture(scope="module")
def server() -> Iterator[FaultyProxy]:
    with stub_server("scribe", answer) as running:
        yield running


@pytest.fixture
def seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: FaultyProxy) -> FaultyProxy:
    monkeypatch.chdir(tmp_path)
    Path("desk.yaml").write_text(VOCABULARY, encoding="utf-8")
    for number in range(3):
        paint(Path("photos", f"{number}.png"), number)
    line = "candidates photos --vocab desk.yaml --strategy open --out open.parquet --no-preflight"
    assert tagllm(line, server.url).exit_code == 0
    return server


def test_what_open_answers_suggest_becomes_a_vocabulary_to_go_on_with(seen: FaultyProxy) -> None:
    asked = len(seen.questions)
    done = tagllm(f"vocab suggest open.parquet --sort --llm-endpoint {seen.url} --out new.yaml")
    assert done.exit_code == 0, done.output
    assert len(seen.questions) == asked + 1
    lines = done.stdout.splitlines()
    assert lines[0].startswith("desk, from 3 images: 2 names to add, 2 synonyms, 2 labels that never occur")
    assert lines[1:] == ["written: new.yaml", "next: edit it, then tagllm vocab check new.yaml"]
    assert tagllm("vocab check new.yaml").stdout == "new.yaml: no problems\n"
    shown = one_object(tagllm("vocab show new.yaml --json").stdout)["labels"]
    assert [label["name"] for label in shown] == ["mouse", "keyboard", "cat", "desk lamp", "lamps"]
    assert (shown[1]["synonyms"], shown[2]["synonyms"]) == (["keybord"], ["kitty"])
    assert shown[4]["parent"] == "tools"  # the model said lamp
    assert tagllm("candidates photos --vocab new.yaml --out open.parquet --no-preflight", seen.url).exit_code == 0
    told = one_object(tagllm("info open.parquet --json").stdout)
    assert told


def test_without_a_file_people_read_tables_and_nothing_is_asked(seen: FaultyProxy) -> None:
    asked = len(seen.questions)
    done = tagllm("vocab suggest open.parquet", seen.url)
    assert done.exit_code == 0, done.output
    assert len(seen.questions) == asked
    for title in ("names worth adding", "other forms of labels", "labels that never occur", "left out"):
        assert f"\n{title}\n" in done.stdout
    told = one_object(tagllm("vocab suggest open.parquet --json --limit 1").stdout)
    assert ([each["name"] for each in told["labels"]], told["left_out"]["more"]) == (["desk lamp"], 2)
    assert told["left_out"]["junk"] == {"phrase": 3}
    assert told["never"] == ["keyboard", "cat"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("vocab suggest nowhere.parquet", "there is no table at nowhere.parquet"),
        ("vocab suggest open.parquet --out desk.yaml", "desk.yaml exists already"),
        ("vocab suggest open.parquet --out new.csv", "new.csv is no name for a vocabulary"),
        ("vocab suggest open.parquet --min-images 0", "--min-images"),
        ("vocab suggest open.parquet --sort", "no model is named"),
    ],
)
@pytest.mark.usefixtures("seen")
def test_what_cannot_be_done_is_refused(line: str, message: str) -> None:
    check_error(line, message, None)
