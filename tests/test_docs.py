"""The README and the pages in docs/ are true: their commands run, in their order; their tables agree with the code."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest
import typer.main
import yaml
from datasets import Dataset, Features, Value
from datasets import Image as HFImage

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
from tests.support.annotation_tools import cvat_export, datumaro_export, fiftyone_export, label_studio_export
from tests.support.command_line import tagllm
from tests.support.object_store import object_store
from tests.support.packing import files_below, parquet_of, shards_of
from tests.support.photo_software import add_keyword
from tests.support.reviewer import decisions
from tests.support.stub_server import picture_of, stub_server
from tests.support.web_server import WebServer

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PAGES = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")))}
EVERYTHING = "\n".join(PAGES.values())
README, TABLES, CRON, PARTS = (
    PAGES[name] for name in ("README.md", "tables-and-evidence.md", "cron-and-ci.md", "parts-and-merge.md")
)
MODEL = "Qwen/Qwen2.5-VL-7B-Instruct"
PHOTOS = 12
SHARDS = 4


def blocks(page: str, language: str) -> list[str]:
    """The code blocks of a page in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def table(page: str, heading: str) -> dict[str, str]:
    """A table of two columns, from the first words of its heading: first cell -> second cell."""
    lines = page.split(f"| {heading} |", 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    cells = [line.strip("| ").split(" | ", 1) for line in lines]
    return {first.strip(): second for first, second in cells}


def commands(page: str) -> list[str]:
    """What a page says to type or to put into cron, without the prompt, in its order."""
    typed = re.findall(r"^\$ (.*)$", "".join(blocks(page, "console")), re.MULTILINE)
    scheduled = re.findall(r"\btagllm .*?(?= &&|$)", "".join(blocks(page, "bash")), re.MULTILINE)
    return [line.split(" #")[0].strip() for line in [*typed, *scheduled] if "pip install" not in line]


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


def prepare_photos(folder: Path) -> None:
    """Put the photographs into `folder`."""
    (folder / "photos").mkdir(exist_ok=True)
    for path in sorted((ROOT / "tests/demo/images").rglob("*.jpg"))[:PHOTOS]:
        shutil.copy(path, folder / "photos")


def prepare(folder: Path) -> None:
    """Put what the README takes for granted into `folder`."""
    prepare_photos(folder)
    with (folder / "truth.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "label"), *truth(folder / "photos")])
    (folder / "garage.yaml").write_text(blocks(README, "yaml")[0], encoding="utf-8")
    (folder / "names.txt").write_text("mouse\nremote\nkeyboard\nperson\ndog\n", encoding="utf-8")
    for name, text in zip(("pipeline.yaml", "tagllm.yaml"), blocks(CRON, "yaml"), strict=True):
        (folder / name).write_text(text, encoding="utf-8")


def answer_audit(folder: Path) -> None:
    """Answer the audit in `folder` by what the truth says."""
    present = set(truth(folder / "photos"))
    with (folder / "audit/audit.csv").open(encoding="utf-8-sig", newline="") as file:
        header, *lines = csv.reader(file)
    with (folder / "audit/audit.csv").open("w", encoding="utf-8", newline="") as file:
        answered = ([*line[:3], "yes" if (line[1], line[2]) in present else "no"] for line in lines)
        csv.writer(file).writerows([header, *answered])


# What people give to `tagllm import` in the docs: our export, and the tool in which they correct it.
CORRECTED: dict[str, tuple[str, Callable[[Path, Any, Path], Path]]] = {
    "project-3.json": ("to-label-studio", label_studio_export),
    "task-5.zip": ("to-cvat", cvat_export),
    "from-fiftyone": ("to-fiftyone", fiftyone_export),
    "from-datumaro": ("to-datumaro", datumaro_export),
}


def correct(folder: Path, name: str) -> None:
    """Take a label away from an image, and give it another, in the tool whose file is named so."""
    if name in CORRECTED and not (folder / name).exists():
        exported, export = CORRECTED[name]
        row = next(row for row in open_table(folder / "labels.parquet").rows() if row.labels)
        present = [entry.name for entry in row.labels or () if entry.decision == "yes"]
        absent = next(name for name in load_vocabulary("coco").names if name not in present)
        export(folder / exported, {row.image_id: {present[0]: "no", absent: "yes"}}, folder / name)
    if name == "photos/":
        add_keyword(min((folder / name).glob("*.xmp")), "toaster")


def answer_review(folder: Path) -> None:
    """Answer the review in `folder` as a stricter person than the truth would: some of what it has is no."""
    header, *lines = (folder / "truth.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    strict = folder / "strict.csv"
    strict.write_text("".join([header, *(line for place, line in enumerate(lines) if place % 4)]), encoding="utf-8")
    decisions(folder / "review.html", strict, folder / "decisions.jsonl")


def prepare_sources(folder: Path, web: WebServer) -> str:
    """Put the photographs into every kind of source that the docs name, and return the URL of the bucket."""
    photos = files_below(folder / "photos")
    shards = {f"shards/{name}": data for name, data in shards_of(photos, "tar", PHOTOS // SHARDS).items()}
    for name, data in shards.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
        web.files[f"/{name}"] = data
    names = list(photos)
    (folder / "pets/data").mkdir(parents=True)
    for split, some in (("train", names[:8]), ("test", names[8:])):
        columns = pq.read_table(io.BytesIO(parquet_of({name: photos[name] for name in some})))
        pq.write_table(columns.append_column("name", [some]), folder / f"pets/data/{split}-00000-of-00001.parquet")
    rows = Features({"image": HFImage(), "name": Value("string")})
    images = {"image": [str(folder / "photos" / name) for name in names], "name": names}
    Dataset.from_dict(images, features=rows).save_to_disk(str(folder / "saved"))
    (folder / "images.csv").write_text("path,id\n" + "".join(f"photos/{name},{name}\n" for name in names))
    web.files.update({f"/photos/{name}": data for name, data in photos.items()})
    (folder / "urls.txt").write_text("".join(f"{web.url}/photos/{name}\n" for name in names))
    return object_store().bucket(shards)


def answer(picture: DecodedImage | None, request: Request) -> Response:
    """Answer what an LLM is asked about names with the card of the docs, and everything else by the rule."""
    said = {
        "could be misunderstood": [{"label": "mouse", "overlaps": ["remote"]}],
        "names are to be added": [{"name": "lamp", "parent": "furniture", "same_as": None}],
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
    if "List everything that is visible" in request.text:
        return Response("person, a lamp, desk lamps")
    if "is the model's idea the same" in request.text:
        return Response("broader")
    return Response("mouse") if "Which of these labels means" in request.text else rules.answer(picture, request)


@dataclass(frozen=True)
class Typed:
    """What came of a page's commands, by command, and the folder in which they were typed."""

    folder: Path
    results: Mapping[str, Any]

    def json_of(self, part: str) -> Any:
        """The JSON object that the first command with `part` in it printed."""
        return json.loads(self.of(part).stdout)

    def of(self, part: str) -> Any:
        """The result of the first command with `part` in it."""
        return next(result for command, result in self.results.items() if part in command)


def typed(page: str, folder: Path, cluster: Callable[[], Any]) -> Typed:
    """Run the commands of a page in `folder`; servers answer instead of the models, on workers of the Ray cluster."""
    prepare(folder)
    results: dict[str, Any] = {}
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        web = stack.enter_context(WebServer({}))
        bucket = prepare_sources(folder, web)
        patch.chdir(folder)
        servers = [stack.enter_context(stub_server(MODEL, answer)) for _ in range(4)]
        for command in commands(page):
            if not command.startswith("tagllm "):
                continue
            line = re.sub(r"http://localhost:800(\d)", lambda found: servers[int(found[1])].url, command)
            line = line.replace("https://data.example.org", web.url).replace("s3://my-bucket", bucket)
            if "--ray " in line:
                line = line.replace("head:6379", cluster().address)
            line = re.sub(r" --gpus \w+", "", line)  # for machines with some: tests/engines/local/test_gpus.py
            if "--model " in line and "--endpoint " not in line:  # the model would be loaded here
                line = f"{line} --endpoint {servers[0].url}"
            if "tagllm review" in line:
                shutil.copy(folder / "labels.parquet", folder / "yesterday.parquet")
            if "import labels.parquet decisions.jsonl" in line:
                answer_review(folder)
            if "--audit " in line:
                answer_audit(folder)
            if line.startswith("tagllm import "):
                correct(folder, line.split()[3])
            results[command] = tagllm(line.removeprefix("tagllm "), servers[0].url)
    return Typed(folder, results)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Callable[[str], Typed]:
    """Run the commands of a page, once."""

    def cluster() -> Any:
        return request.getfixturevalue("ray_cluster")

    return cache(lambda name: typed(PAGES[name], tmp_path_factory.mktemp("docs"), cluster))


@pytest.mark.parametrize("name", [name for name, page in PAGES.items() if any("tagllm" in c for c in commands(page))])
def test_every_command_works(pages: Callable[[str], Typed], name: str) -> None:
    results = pages(name).results
    assert {command: result.output for command, result in results.items() if result.exit_code} == {}
    assert results


def test_the_dry_run_says_what_would_be_asked_and_writes_nothing(pages: Callable[[str], Typed]) -> None:
    readme = pages("README.md")
    assert "\n12 requests about 12 images would be asked" in readme.of("--dry-run").stdout
    assert not (readme.folder / "garage.parquet").exists()


def test_the_card_is_validated_in_the_first_round(pages: Callable[[str], Typed]) -> None:
    cards = yaml.safe_load((pages("concept-cards.md").folder / "cards.yaml").read_text(encoding="utf-8"))
    (entry,) = (entry for section in cards.values() for entry in section)
    assert (entry["name"], entry["history"][0]["round"]) == ("mouse", 1)  # whether the rule likes the card is chance


def test_the_same_command_with_other_servers_asks_nothing(pages: Callable[[str], Typed]) -> None:
    assert "nothing to ask" in pages("models-and-servers.md").of("--endpoint http://localhost:8000 --endpoint").stdout


def test_the_gate_of_the_ci_page_is_measured_and_cron_is_quiet(pages: Callable[[str], Typed]) -> None:
    page = pages("cron-and-ci.md")
    gated = page.json_of("tagllm evaluate")
    assert (gated["missed_gates"], 0.3 < gated["of1"] < 1) == ([], True)
    assert page.json_of("--offline")["gates"]["of1"] == gated["of1"]
    assert [result.output for command, result in page.results.items() if "--quiet" in command] == [""]
    report = json.loads((page.folder / "labels.run.json").read_text(encoding="utf-8"))
    assert [each["done"] for each in (report["gates"], *report["exports"])] == [False] * 3
    beside = table(CRON, "file")
    names = {name for cell in beside for name in re.findall(r"`([\w.]+)`", cell)} - {"labels.lock"}
    assert names <= {path.name for path in page.folder.iterdir()}


def test_what_people_corrected_in_each_tool_is_in_the_table(pages: Callable[[str], Typed]) -> None:
    page = pages("annotation-tools.md")
    rows = list(open_table(page.folder / "labels.parquet").rows())
    decided = [entry for row in rows for entry in row.labels or () if entry.source == "human"]
    assert {entry.decision for entry in decided} == {"yes", "no"}
    assert "about 1 image in project-3.json" in page.of("project-3.json --complete --dry-run").stdout


def test_every_kind_of_source_gives_the_same_labels(pages: Callable[[str], Typed]) -> None:
    folder = pages("README.md").folder
    found = {}
    for name in ("photos", "shards", "saved", "listed", "bucket", "web", "all"):
        rows = list(open_table(folder / f"{name}.parquet").rows())
        found[name] = {row.fingerprint: row.labels for row in rows}
        assert len(rows) == PHOTOS
    assert all(labels == found["photos"] for labels in found.values())
    assert len(open_table(folder / "pets.parquet")) == 8


def test_after_a_merge_the_whole_source_asks_nothing(pages: Callable[[str], Typed]) -> None:
    page = pages("parts-and-merge.md")
    assert "images added" in page.of("tagllm merge").stdout
    assert "nothing to ask" in page.results["tagllm candidates shards/ --vocab coco --out candidates.parquet"].stdout


def test_the_recipes_for_schedulers_label_each_part_once(tmp_path: Path) -> None:
    script, slurm = blocks(PARTS, "sh")
    job = yaml.safe_load(blocks(PARTS, "yaml")[0])["spec"]
    assert (job["completionMode"], job["completions"]) == ("Indexed", 64)
    (container,) = job["template"]["spec"]["containers"]
    for scheduler, command, variables in (
        ("slurm", slurm, {"TMPDIR": "local"}),
        ("kubernetes", container["command"][-1], {"SCRATCH": "local"}),
    ):
        index = {"slurm": "SLURM_ARRAY_TASK_ID", "kubernetes": "JOB_COMPLETION_INDEX"}[scheduler]
        assert "64" in command
        assert index in command
        folder = tmp_path / scheduler
        (folder / "bin").mkdir(parents=True)
        prepare_photos(folder)
        shards = shards_of(files_below(folder / "photos"), "tar", 3)
        bucket = object_store().bucket({f"shards/{name}": data for name, data in shards.items()})
        (folder / "label-part.sh").write_text(script.replace("s3://my-bucket", bucket))
        shim = folder / "bin/tagllm"
        shim.write_text(f'#!/bin/sh\nexec {sys.executable} -m tagllm_cli "$@"\n')
        shim.chmod(0o755)
        with stub_server(MODEL, answer) as server:
            known = {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "TAGLLM_ENDPOINT": server.url, **variables}
            known = {**os.environ, "PYTHONPATH": str(ROOT), **known}
            for part in (0, 1, 2, 0):
                run = ["bash", "-c", command.replace("64", "3")]
                done = subprocess.run(run, cwd=folder, env={**known, index: str(part)}, capture_output=True, text=True)
                assert done.returncode == 0, done.stderr
        assert "nothing to ask" in done.stdout
        merged = tagllm(["merge", str(folder / "all.parquet"), *map(str, sorted(folder.glob("parts/part-*.parquet")))])
        assert f"{PHOTOS} images ({PHOTOS} ok)" in merged.stdout


def test_the_sql_lists_the_labels(pages: Callable[[str], Typed], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(pages("README.md").folder)
    (query,) = blocks(README, "sql")
    found = {(image, name) for image, name, _ in duckdb.sql(query).fetchall()}
    rows = list(open_table(Path("labels.parquet")).rows())
    assert len(rows) == PHOTOS
    assert found == {
        (row.image_id, entry.name) for row in rows for entry in row.labels or () if entry.decision == "yes"
    }
    assert found


def test_the_columns_are_those_of_the_schema() -> None:
    meanings = table(TABLES, "column")
    names = [name for cell in meanings for name in re.findall(r"`(\w+)`", cell)]
    assert names == table_schema().names
    entry = table_schema().field("labels").type.value_type
    assert re.findall(r"`(\w+)`", meanings["`labels`"]) == [entry.field(i).name for i in range(entry.num_fields)]
    assert set(re.findall(r"`(\w+)`", meanings["`status`"])) == {status.value for status in Status}


def test_the_exit_codes_are_those_of_the_errors() -> None:
    def codes(kind: type[errors.TagllmError]) -> set[int]:
        return {kind.exit_code}.union(*(codes(each) for each in kind.__subclasses__()))

    assert {int(code) for code in table(CRON, "exit code")} == codes(errors.TagllmError) | {0}


def test_every_make_target_exists() -> None:
    named = set(re.findall(r"(?:^\$ |`)make ([a-z-]+)", EVERYTHING, re.MULTILINE))
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
    assert f"{line} " in EVERYTHING or f"{line}`" in EVERYTHING
    assert len(command.help) > 20
    unexplained = [param.name for param in command.params if not (param.help or "").endswith((".", ")"))]
    assert unexplained == []


def test_the_docs_name_no_option_that_does_not_exist() -> None:
    known = {option for command in COMMANDS.values() for param in command.params for option in param.opts}
    foreign = {"--limit-mm-per-prompt", "--port"}  # of `vllm serve`
    foreign |= {"--array", "--gres", "--time", "--signal"}  # of `sbatch`
    foreign |= {"--address", "--head", "--generate"}  # of `ray`
    foreign |= {"--device", "--tiny"}  # of the bench for GPUs
    assert set(re.findall(r"--[a-z][a-z-]+", EVERYTHING)) - known - foreign == set()


def test_the_docs_name_every_option() -> None:
    common = {"--help", "--version", "--verbose", "--quiet", "--json", "--config"}
    known = {param.opts[0] for command in COMMANDS.values() for param in command.params if param.opts[0][:2] == "--"}
    assert sorted(option for option in known - common if option not in EVERYTHING) == []


def test_every_link_leads_somewhere() -> None:
    for name, page in PAGES.items():
        folder = ROOT if name == "README.md" else ROOT / "docs"
        links = re.findall(r"\]\((?!https?://)([^)#]+)\)", page)
        assert [link for link in links if not (folder / link).exists()] == []


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) < 230
