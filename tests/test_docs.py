"""The README is true: its commands run, in its order, and its tables say what the code says."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import duckdb
import pytest
import typer.main
import yaml

from tagllm_cli import errors
from tagllm_cli.cli.app import app
from tagllm_cli.engines.http import protocol as wire
from tagllm_cli.labeling.plan import DEFAULT_MAX_PIXELS
from tagllm_cli.records import DecodedImage, Request, Response, Status
from tagllm_cli.sources.decode import decode
from tagllm_cli.store.schema import table_schema
from tagllm_cli.store.table import open_table
from tagllm_cli.vocabulary.load import builtin_vocabularies, load_vocabulary
from tests.support import rule_engine as rules
from tests.support.command_line import tagllm
from tests.support.stub_server import picture_of, stub_server

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MODEL = "Qwen/Qwen2.5-VL-7B-Instruct"
PHOTOS = 12


def blocks(language: str) -> list[str]:
    """The README's code blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def table(heading: str) -> dict[str, str]:
    """A table of two columns, from the first words of its heading: first cell -> second cell."""
    lines = README.split(f"| {heading} |", 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    cells = [line.strip("| ").split(" | ", 1) for line in lines]
    return {first.strip(): second for first, second in cells}


def commands() -> list[str]:
    """What the README says to type or to put into cron, without the prompt, in its order."""
    typed = re.findall(r"^\$ (.*)$", "".join(blocks("console")), re.MULTILINE)
    scheduled = re.findall(r"tagllm .*?(?= &&|$)", "".join(blocks("bash")), re.MULTILINE)
    return [line.split(" #")[0].strip() for line in [*typed, *scheduled]]


def truth(photos: Path) -> Iterator[tuple[str, str]]:
    """(image, label) as the stub's rule sees them when it is asked for the whole vocabulary at once.

    The README's two stages ask in groups and then about each candidate, where the rule takes some back: its gate is
    passed by what was measured, not by construction.
    """
    question = Request("", f"Categories: {', '.join(load_vocabulary('coco').names)}")
    for path in sorted(photos.iterdir()):
        picture = decode(path.read_bytes(), DEFAULT_MAX_PIXELS)[1]
        assert picture is not None
        sent = json.loads(wire.encode_image(picture))["image_url"]["url"]
        yield from ((path.name, name) for name in rules.answer(picture_of(sent), question).text.split(", "))


def prepare(folder: Path) -> None:
    """Put what the README takes for granted into `folder`."""
    (folder / "photos").mkdir()
    for path in sorted((ROOT / "tests/demo/images").rglob("*.jpg"))[:PHOTOS]:
        shutil.copy(path, folder / "photos")
    with (folder / "truth.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "label"), *truth(folder / "photos")])
    (folder / "garage.yaml").write_text(blocks("yaml")[0], encoding="utf-8")
    (folder / "names.txt").write_text("mouse\nremote\nkeyboard\nperson\ndog\n", encoding="utf-8")
    (folder / "tagllm.yaml").write_text(f"vocab: coco\nmodel: {MODEL}\n", encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder in which everything was typed; ends the module in it, for paths that the README leaves relative."""
    place = tmp_path_factory.mktemp("readme")
    prepare(place)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        yield place


def scribe(picture: DecodedImage | None, request: Request) -> Response:
    """Answer what an LLM is asked about names as the README's card has it, and everything else by the rule."""
    said = {
        "could be misunderstood": [{"label": "mouse", "overlaps": ["remote"]}],
        "Sort them into scenes": [{"scene": "desk", "labels": ["mouse", "keyboard", "laptop"]}],
        "Write the label's concept card": {
            "label": "mouse",
            "description": "a small device that is moved by hand on a desk beside a keyboard",
            "similar": ["remote"],
        },
    }
    for question, value in said.items():
        if question in request.text:
            return Response(json.dumps(value))
    if "is the model's idea the same" in request.text:
        return Response("broader")
    return Response("mouse") if "Which of these labels means" in request.text else rules.answer(picture, request)


@pytest.fixture(scope="module")
def outcomes(folder: Path) -> Mapping[str, Any]:
    """The result of each of the README's commands, by command."""
    results = {}
    with ExitStack() as stack:
        servers = [stack.enter_context(stub_server(MODEL, scribe)) for _ in range(4)]
        for command in commands():
            if command.startswith("tagllm "):
                here = re.sub(r"http://localhost:800(\d)", lambda found: servers[int(found[1])].url, command)
                if "--model" in here and "--endpoint" not in here:  # it would be loaded here
                    here += f" --endpoint {servers[0].url}"
                results[command] = tagllm(here.removeprefix("tagllm "), servers[0].url)
    return results


def test_every_command_works(outcomes: Mapping[str, Any]) -> None:
    assert {command: result.output for command, result in outcomes.items() if result.exit_code} == {}
    named = {command.split()[1] for command in outcomes}
    assert named == {"candidates", "concepts", "disambiguate", "evaluate", "export", "vocab"}
    assert len(outcomes) >= 12


def test_the_commands_do_what_the_readme_says(outcomes: Mapping[str, Any], folder: Path) -> None:
    dry = next(result.stdout for command, result in outcomes.items() if "--dry-run" in command)
    assert "\n12 requests about 12 images would be asked" in dry
    assert not (folder / "garage.parquet").exists()
    cards = yaml.safe_load(Path("cards.yaml").read_text(encoding="utf-8"))
    (tried,) = (entry for section in cards.values() for entry in section)
    assert (tried["name"], tried["history"][0]["round"]) == ("mouse", 1)  # whether the rule likes the card is chance
    again = next(result.stdout for command, result in outcomes.items() if "--endpoint http" in command)
    assert "nothing to ask" in again
    gated = next(json.loads(result.stdout) for command, result in outcomes.items() if "--fail-under" in command)
    assert (gated["missed_gates"], 0.3 < gated["of1"] < 1) == ([], True)
    quiet = [result.output for command, result in outcomes.items() if "--quiet" in command]
    assert quiet == ["", ""]


def test_the_sql_lists_the_labels(outcomes: Mapping[str, Any]) -> None:
    (query,) = blocks("sql")
    found = {(image, name) for image, name, _ in duckdb.sql(query).fetchall()}
    rows = list(open_table(Path("labels.parquet")).rows())
    assert len(rows) == PHOTOS
    assert found == {
        (row.image_id, entry.name) for row in rows for entry in row.labels or () if entry.decision == "yes"
    }
    assert found


def test_the_columns_are_those_of_the_schema() -> None:
    meanings = table("column")
    names = [name for cell in meanings for name in re.findall(r"`(\w+)`", cell)]
    assert names == table_schema().names
    entry = table_schema().field("labels").type.value_type
    assert re.findall(r"`(\w+)`", meanings["`labels`"]) == [entry.field(i).name for i in range(entry.num_fields)]
    assert set(re.findall(r"`(\w+)`", meanings["`status`"])) == {status.value for status in Status}


def test_the_exit_codes_are_those_of_the_errors() -> None:
    def codes(kind: type[errors.TagllmError]) -> set[int]:
        return {kind.exit_code}.union(*(codes(each) for each in kind.__subclasses__()))

    assert {int(code) for code in table("exit code")} == codes(errors.TagllmError) | {0}


def test_every_make_target_exists() -> None:
    named = set(re.findall(r"(?:^\$ |`)make ([a-z-]+)", README, re.MULTILINE))
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"setup", "demo", "test", "check"} <= named
    assert named <= targets


def test_every_built_in_vocabulary_is_named() -> None:
    assert [name for name in builtin_vocabularies() if f"`{name}`" not in README] == []


def walk(command: Any, path: Sequence[str] = ("tagllm",)) -> Iterator[tuple[str, Any]]:
    """Yield (command line, command) for every command that does something."""
    children = getattr(command, "commands", {})
    if not children:
        yield " ".join(path), command
    for name, child in children.items():
        yield from walk(child, (*path, name))


COMMANDS = dict(walk(typer.main.get_command(app)))


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_and_option_is_explained(line: str) -> None:
    command = COMMANDS[line]
    assert f"{line} " in README or f"{line}`" in README
    assert len(command.help) > 20
    unexplained = [param.name for param in command.params if not (param.help or "").endswith((".", ")"))]
    assert unexplained == []


def test_the_readme_names_no_option_that_does_not_exist() -> None:
    known = {option for command in COMMANDS.values() for param in command.params for option in param.opts}
    foreign = {"--limit-mm-per-prompt", "--port"}  # of `vllm serve`
    assert set(re.findall(r"--[a-z][a-z-]+", README)) - known - foreign == set()
