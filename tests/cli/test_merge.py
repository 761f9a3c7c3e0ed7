"""`--shard 0/4` to `3/4`, then `merge`: the table of one run, which every command takes, and nothing is asked again."""

from __future__ import annotations

import io
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console as RichConsole

from tagllm_cli.cli.console import Console
from tagllm_cli.cli.progress import CountDisplay
from tagllm_cli.pipeline.label.listing import Part
from tagllm_cli.store.merge.merge import merge_tables
from tagllm_cli.store.merge.parts import evidence_of
from tagllm_cli.store.table import open_table
from tests.support.command_line import check_error, one_object, tagllm
from tests.support.label_process import kill_after, processes
from tests.support.packing import PLACES, packed
from tests.support.parts import Maker, Picture
from tests.support.workspace import Workspace, evidence_rows, snapshot

COUNT = 4
IMAGES = 40


@dataclass
class World:
    """Images in four parts: their tables, the table of one run over all, and the merged one."""

    workspace: Workspace
    root: Path

    @property
    def merged(self) -> Path:
        return self.root / "merged" / "c.parquet"

    @property
    def whole(self) -> Path:
        return self.root / "whole" / "c.parquet"

    @property
    def parts(self) -> list[Path]:
        return [self.root / "parts" / f"c-{number}.parquet" for number in range(COUNT)]

    def label(self, out: Path, **options: Any) -> int:
        """Run `candidates` into `out`; return how many requests were asked."""
        self.workspace.out = out
        return self.workspace.candidates(**options).stats.asked

    def decide(self, table: Path, out: Path, **options: Any) -> int:
        """Run `disambiguate`; return how many requests were asked."""
        self.workspace.out, self.workspace.labels_out = table, out
        return self.workspace.disambiguate(**options).stats.asked


@pytest.fixture(params=[place for place in PLACES if "S3" not in place])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    workspace = Workspace(tmp_path)
    for number in range(IMAGES):
        workspace.paint(number, f"{number % 3}-x/{number % 2}/{number:03}.png")
    workspace.paint(0, "0-x.png")  # a copy, which falls into another part
    (workspace.images / "901.png").write_bytes(b"no image")
    workspace.source = packed(workspace.images, request.param, tmp_path / "source")
    return World(workspace, tmp_path)


@pytest.mark.parametrize("world", PLACES, indirect=True)
def test_four_parts_merged_equal_one_run_and_nothing_is_asked_again(world: World) -> None:
    asked = [world.label(path, part=Part(number, COUNT)) for number, path in enumerate(world.parts)]
    assert len(asked) - asked.count(0) > 1  # there may be no shard in a part
    world.label(world.whole)
    merge_tables(world.merged, world.parts)
    assert world.merged.read_bytes() == world.whole.read_bytes()
    before = world.merged.read_bytes()
    assert world.label(world.merged, offline=True) == 0
    assert world.merged.read_bytes() == before
    assert world.label(world.merged) == 0
    assert world.merged.read_bytes() == before
    runs = evidence_rows(evidence_of(world.merged), "SELECT count(*) FROM run")
    assert runs == [(COUNT - asked.count(0),)]  # a run that has nothing to ask leaves no record
    assert merge_tables(world.merged, world.parts).added.is_nothing
    assert world.merged.read_bytes() == before


def test_parts_that_arrive_later_are_added(world: World) -> None:
    for number, path in enumerate(world.parts[:2]):
        world.label(path, part=Part(number, COUNT))
    merge_tables(world.merged, world.parts[:2])
    assert world.label(world.merged, offline=True) == 0
    for number, path in enumerate(world.parts[2:], 2):
        world.label(path, part=Part(number, COUNT))
    merge_tables(world.merged, world.parts)
    world.label(world.whole)
    assert world.merged.read_bytes() == world.whole.read_bytes()
    assert world.label(world.merged) == 0


def test_a_merged_table_is_disambiguated_as_that_of_one_run(world: World) -> None:
    for number, path in enumerate(world.parts):
        world.label(path, part=Part(number, COUNT))
    merge_tables(world.merged, world.parts)
    world.label(world.whole)
    world.decide(world.whole, world.root / "whole" / "l.parquet")
    world.decide(world.merged, world.root / "merged" / "l.parquet")
    assert (world.root / "merged" / "l.parquet").read_bytes() == (world.root / "whole" / "l.parquet").read_bytes()


@pytest.mark.parametrize("way", ["each part's candidates", "parts of the merged candidates"])
def test_label_tables_of_parts_merged_equal_one_run(world: World, way: str) -> None:
    for number, path in enumerate(world.parts):
        world.label(path, part=Part(number, COUNT))
    merge_tables(world.merged, world.parts)
    labels = [path.with_name(f"l-{number}.parquet") for number, path in enumerate(world.parts)]
    for number, (path, out) in enumerate(zip(world.parts, labels, strict=True)):
        if way == "each part's candidates":
            world.decide(path, out)
        else:
            world.decide(world.merged, out, part=Part(number, COUNT))
    world.decide(world.merged, world.root / "whole" / "l.parquet")
    merged = world.root / "merged" / "l.parquet"
    merge_tables(merged, labels)
    whole = (world.root / "whole" / "l.parquet").read_bytes()
    assert merged.read_bytes() == whole
    assert world.decide(world.merged, merged, offline=True) == 0
    assert world.decide(world.merged, merged) == 0
    assert merged.read_bytes() == whole


def test_merged_counts_serve_as_cooccurrence(world: World) -> None:
    for number, path in enumerate(world.parts):
        world.label(path, part=Part(number, COUNT))
    merge_tables(world.merged, world.parts)
    world.workspace.out = world.root / "grouped.parquet"
    assert world.workspace.candidates({"cooccurrence": world.merged}).rows.total == IMAGES + 2


def test_a_part_of_another_plan_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.label(world.parts[0], part=Part(0, COUNT))
    world.workspace.out = world.parts[1]
    world.workspace.candidates({"group_size": 3}, part=Part(1, COUNT))
    monkeypatch.chdir(world.root)
    assert world.workspace.engine.asked  # the part has images, so it has a plan of its own
    check_error("merge m.parquet parts/c-0.parquet parts/c-1.parquet", "they differ in the groups of labels", None)


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with four parts, which is the current one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "parts").mkdir()
    for part in range(COUNT):
        pictures = [Picture(f"{number:03d}.jpg", number) for number in range(part, 30, COUNT)]
        Maker().make(tmp_path / f"parts/{part}.parquet", pictures, started=float(part))
    return tmp_path


def inputs() -> str:
    return " ".join(shlex.quote(str(path)) for path in sorted(Path("parts").glob("*.parquet")))


def test_the_summary_has_four_lines_and_the_next_command(made: Path) -> None:
    result = tagllm(f"merge all/candidates.parquet {inputs()}")
    assert (result.exit_code, result.stderr) == (0, "")
    rows, parts, responses, following = result.stdout.splitlines()
    assert rows == "all/candidates.parquet: 30 images (30 ok)"
    assert parts == "4 tables: 30 images added"
    assert responses.startswith("60 responses taken over (")
    assert following == "next: tagllm disambiguate all/candidates.parquet --out all/labels.parquet"
    again = tagllm(f"merge all/candidates.parquet {inputs()}").stdout.splitlines()
    assert again[1] == "4 tables, 4 of them merged before: 0 images added"
    assert (made / "all" / "candidates.log").read_text(encoding="utf-8").count("30 images (30 ok)") == 2


def test_json_is_one_object_and_quiet_is_quiet(made: Path) -> None:
    said = one_object(tagllm(f"merge all.parquet {inputs()} --json").stdout)
    assert (said["rows"]["ok"], said["parts"], said["added"]["responses"]) == (30, 4, 60)
    assert tagllm(f"merge other.parquet {inputs()} --quiet").output == ""


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("merge all.parquet parts/9.parquet", "there is no table at parts/9.parquet"),
        ("merge parts/1.parquet parts/0.parquet parts/1.parquet", "is OUT and one of the tables to merge"),
        ("merge parts parts/0.parquet", "parts is a folder"),
        ("merge all.evidence parts/0.parquet", "is the name of an evidence file"),
        ("merge s3://bucket/all.parquet parts/0.parquet", "is a URL"),
        ("merge all.parquet parts", "parts is not a file"),
    ],
)
def test_what_cannot_be_merged_is_one_clear_line(made: Path, line: str, message: str) -> None:
    check_error(line, message, None)


def test_a_merge_needs_tables(made: Path) -> None:
    result = tagllm("merge all.parquet")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Missing argument" in result.stderr


def test_progress_is_a_line_now_and_then_without_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr("tagllm_cli.cli.progress.time.monotonic", lambda: now[0])
    for quiet in (False, True):
        with Console(quiet=quiet).counting("merge") as report:
            for done in range(0, 31, 5):
                now[0] += 5
                report("images", done, 1_000)
    lines = [f"merge: images {done}/1,000  ETA {left}\n" for done, left in ((5, "16:35"), (15, "16:25"), (25, "16:15"))]
    assert capsys.readouterr().err == "".join(lines)


def test_a_terminal_shows_a_bar_for_what_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = io.StringIO()
    display = CountDisplay(RichConsole(file=drawn, force_terminal=True, width=80), "merge", quiet=False)
    display("images", 1, 10)
    assert drawn.getvalue() == ""
    monkeypatch.setattr("tagllm_cli.cli.progress._BAR_SECONDS", 0.0)
    display("images", 5, 10)
    display("rows", 9, 10)
    display.finish()
    assert "merge: rows" in drawn.getvalue()
    assert "9/10" in drawn.getvalue()


# -- kills -------------------------------------------------------------------------------------------------------------


def merge(out: Path, tables: list[Path], die_after: float | None) -> None:
    """Merge in a process of its own; with `die_after` it is killed after that many seconds of processor time."""
    if die_after is not None:
        kill_after(die_after)
    began = time.process_time()
    merge_tables(out, tables)
    out.with_suffix(".seconds").write_text(str(time.process_time() - began))


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("parts")
    return [
        Maker().make(
            folder / f"{part}.parquet",
            [Picture(f"{number:05d}.jpg", number) for number in range(part, 3_000, COUNT)],
            started=float(part),
        )
        for part in range(COUNT)
    ]


def said(out: Path) -> list[Any]:
    tables = ("image", "response", "failed_request", "run", "shard")
    return [out.read_bytes(), *(evidence_rows(evidence_of(out), f"SELECT * FROM {name} ORDER BY 1") for name in tables)]


def wait(target: Callable[..., None], *arguments: Any) -> int | None:
    process = processes().Process(target=target, args=arguments)
    process.start()
    process.join(120)
    return process.exitcode


@pytest.mark.slow
@pytest.mark.parametrize("grows", [False, True], ids=["into a new table", "into one that is there"])
def test_a_merge_that_was_killed_comes_to_the_same_end(tmp_path: Path, parts: list[Path], grows: bool) -> None:
    def begin(name: str) -> Path:
        out = tmp_path / name / "all.parquet"
        if grows:
            merge_tables(out, parts[:2])
        return out

    undisturbed = begin("undisturbed")
    assert wait(merge, undisturbed, parts, None) == 0
    seconds = float(undisturbed.with_suffix(".seconds").read_text())
    inputs = snapshot(parts[0].parent)
    killed = 0
    for number in range(10):
        out = begin(str(number))
        killed += wait(merge, out, parts, seconds * (number + 0.5) / 10) != 0
        merge_tables(out, parts)
        assert said(out) == said(undisturbed), number
        assert not list(out.parent.glob(".tagllm-*"))
        assert len(open_table(out)) == 3_000
    assert killed >= 5
    assert snapshot(parts[0].parent) == inputs
