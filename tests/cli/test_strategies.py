"""The method's choices as they are typed: strategies, arms, votes, co-occurrence; and what is refused, untouched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tagllm_cli.records import Decision, DecodedImage, Request, Response, Row
from tagllm_cli.store.table import open_table
from tests.support import rule_engine as rules
from tests.support.command_line import check_error, one_object, tagllm
from tests.support.faulty_proxy import FaultyProxy
from tests.support.stub_server import stub_server
from tests.support.workspace import paint, snapshot

LABELS = ("cat", "dog", "cow", "sheep", "cup", "fork", "spoon", "plate")
IMAGES = 6
EACH = {"groups": 4, "all": 1, "open": 1, "binary": len(LABELS)}  # requests about an image; groups of 4
OTHERS = ("open", "all", "binary")


def answer(picture: DecodedImage | None, request: Request) -> Response:
    """Answer an open question as one about some of the labels, and a thing that is no label."""
    if request.text.startswith("List everything"):
        listed = Request(request.system, f"Categories: {', '.join(LABELS)}", with_image=True)
        return Response(f"{rules.answer(picture, listed).text}, table")
    return rules.answer(picture, request)


@pytest.fixture(scope="module")
def server() -> Iterator[FaultyProxy]:
    with stub_server(answer=answer) as running:
        yield running


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, server: FaultyProxy) -> Iterator[Path]:
    """A folder with pictures, a table of every strategy and a label table; the tests of this module sit in it."""
    place = tmp_path_factory.mktemp("desk")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for number in range(IMAGES):
            paint(Path("photos", f"{number}.png"), number)
        for path, text in {
            "tiny.txt": "\n".join(LABELS),
            "more.txt": "\n".join([*LABELS, "lamp"]),
            "farm.txt": "cow\nsheep\nhorse\n",
            "cars.txt": "car\nbus\n",
            "text.parquet": "hello",
            "nothing.parquet": "",
            "nothing.yaml": "",
            "no-scenes.yaml": "scenes: []",
            "odd.yaml": "scenes: [{name: kitchen, label: [cup]}]",
            "cars.yaml": "scenes: [{name: street, labels: [car, bus]}]",
            "scenes.yaml": "scenes: [{name: farm, labels: [cow, sheep, tractor]}, {name: table, labels: [cup, plate]}]",
        }.items():
            Path(path).write_text(text)
        for strategy in OTHERS:
            done(server, f"--strategy {strategy} --out {strategy}.parquet")
        done(server, "--group-size 4 --out groups.parquet")
        done(server, "--group-size 4 --arms disjoint --out one.parquet")
        run(server, "disambiguate groups.parquet --out labels.parquet")
        run(server, "disambiguate groups.parquet --threshold 0.999 --out none.parquet")
        run(server, "candidates photos --vocab farm.txt --out farm.parquet")
        yield place


def tables(folder: Path) -> dict[str, bytes | None]:
    """Tables and their evidence, without the logs: a command that has nothing to do is logged, too."""
    return {name: content for name, content in snapshot(folder).items() if not name.endswith(".log")}


def run(server: FaultyProxy, line: str) -> Any:
    result = tagllm(f"{line} --json", server.url)
    assert result.exit_code == 0, result.output
    return one_object(result.stdout)


def done(server: FaultyProxy, line: str) -> Any:
    return run(server, f"candidates photos --vocab tiny.txt {line}")


def rows_of(table: str) -> list[Row]:
    return list(open_table(Path(table)).rows())


@pytest.mark.parametrize("strategy", EACH)
def test_a_strategy_asks_so_much_and_then_nothing(
    workspace: Path, server: FaultyProxy, tmp_path: Path, strategy: str
) -> None:
    size = "--group-size 4" if strategy == "groups" else ""
    line = f"--strategy {strategy} {size} --out {tmp_path}/c.parquet"
    report = done(server, line)
    assert report["asked"]["requests"] == IMAGES * EACH[strategy]
    assert report["rows"]["ok"] == IMAGES
    before = tables(tmp_path)
    assert done(server, line)["asked"]["requests"] == 0
    assert done(server, f"--out {tmp_path}/c.parquet")["asked"]["requests"] == 0  # as it is pinned
    assert tables(tmp_path) == before


def test_strategies_are_evaluated_side_by_side(workspace: Path) -> None:
    for strategy in EACH:
        plain = tagllm(f"evaluate {strategy}.parquet --truth labels.parquet")
        told = tagllm(f"evaluate {strategy}.parquet --truth labels.parquet --json")
        assert (plain.exit_code, told.exit_code) == (0, 0)
        report, rows = one_object(told.stdout), rows_of(f"{strategy}.parquet")
        proposed = sum(entry.decision is None for row in rows for entry in row.labels or ())
        assert (report["images"], report["mean_predicted"]) == (IMAGES, pytest.approx(proposed / IMAGES, abs=1e-6))
        assert 0 < report["mean_predicted"] < len(LABELS)
        # Only where there are several arms is there anything to compare.
        assert (report["arms"] is None, "each arm alone" in plain.output) == (
            strategy != "groups",
            strategy == "groups",
        )


def test_the_candidates_of_binary_are_decided_and_exported(
    workspace: Path, server: FaultyProxy, tmp_path: Path
) -> None:
    report = run(server, f"disambiguate binary.parquet --concepts none --out {tmp_path}/l.parquet")
    proposed = [
        {entry.name for entry in row.labels or () if entry.decision is None} for row in rows_of("binary.parquet")
    ]
    assert report["asked"]["requests"] == sum(map(len, proposed)) < IMAGES * len(LABELS)
    decided = rows_of(f"{tmp_path}/l.parquet")
    assert [{entry.name for entry in row.labels or ()} for row in decided] == proposed
    assert {entry.decision for row in decided for entry in row.labels or ()} == {Decision.YES}
    assert run(server, f"export {tmp_path}/l.parquet --format csv --out {tmp_path}/l.csv")["labels"] == sum(
        map(len, proposed)
    )
    # As it is, by probability: just what was proposed, and with a lower threshold more.
    half, less = (
        run(server, f"export binary.parquet --threshold {least} --format jsonl --out {tmp_path}/{least}.jsonl")[
            "labels"
        ]
        for least in (0.5, 0.2)
    )
    assert sum(map(len, proposed)) == half < less


def test_arms_are_typed_with_seeds_and_counted_as_votes(workspace: Path, server: FaultyProxy, tmp_path: Path) -> None:
    line = f"--arms random@7,cooccurring,disjoint@2 --group-size 4 --out {tmp_path}/c.parquet"
    report = done(server, line)
    before = tables(tmp_path)
    assert done(server, line)["asked"]["requests"] == 0
    assert tables(tmp_path) == before  # whatever the order in which arms are typed
    assert list(open_table(tmp_path / "c.parquet").info.plan["arms"]) == ["cooccurring", "disjoint@2", "random@7"]
    voted = done(server, f"{line} --min-votes 3")
    assert (report["asked"]["requests"], voted["asked"]["requests"]) == (IMAGES * 6, 0)
    assert voted["rows"]["labels"] <= report["rows"]["labels"]
    entries = [entry for row in rows_of(f"{tmp_path}/c.parquet") for entry in row.labels or ()]
    assert {len(entry.arms) for entry in entries} == {3}
    told = tagllm(f"evaluate {tmp_path}/c.parquet --truth labels.parquet")
    assert "made with --min-votes 3" in told.output


def test_a_label_table_says_which_labels_share_images(workspace: Path, server: FaultyProxy, tmp_path: Path) -> None:
    line = f"--cooccurrence labels.parquet --group-size 4 --out {tmp_path}/c.parquet"
    done(server, line)
    plan = open_table(tmp_path / "c.parquet").info.plan
    assert plan["knowledge"].startswith("labels.parquet, ")
    assert sorted(name for _, group in plan["arms"]["disjoint"] for name in group) == sorted(LABELS)
    before = tables(tmp_path)
    assert done(server, line)["asked"]["requests"] == 0
    assert tables(tmp_path) == before


@pytest.mark.parametrize(
    ("file", "unseen", "foreign"),
    [
        ("farm.parquet", "never shows cat, dog, cup, fork, spoon and 1 more", "lacks horse of farm.parquet"),
        ("scenes.yaml", "never shows cat, dog, fork, spoon:", "lacks tractor of scenes.yaml"),
    ],
)
def test_of_another_vocabulary_the_common_labels_count_and_the_others_are_named(
    workspace: Path, server: FaultyProxy, tmp_path: Path, file: str, unseen: str, foreign: str
) -> None:
    result = tagllm(
        f"candidates photos --vocab tiny.txt --cooccurrence {file} --group-size 2 --out {tmp_path}/c.parquet",
        server.url,
    )
    assert result.exit_code == 0
    assert f"{file} {unseen}" in result.stderr
    assert f"tiny {foreign}: not used" in result.stderr
    groups = [set(group) for _, group in open_table(tmp_path / "c.parquet").info.plan["arms"]["cooccurring"]]
    assert {"cow", "sheep"} in groups


REPLANS = {
    "binary": ("--strategy binary", ["--replan keeps --strategy binary"]),
    "arms": (
        "--arms random@7,disjoint --group-size 3",
        ["--replan keeps --arms disjoint,random@7", "--replan keeps --group-size 3"],
    ),
    "counted": (
        "--cooccurrence scenes.yaml",
        ["--replan keeps the groups made by scenes.yaml, 2 scenes; give --cooccurrence to make others"],
    ),
}


@pytest.mark.parametrize("case", REPLANS)
def test_a_replan_for_another_model_keeps_everything_else(
    workspace: Path, server: FaultyProxy, tmp_path: Path, case: str
) -> None:
    options, notes = REPLANS[case]
    asked = done(server, f"{options} --out {tmp_path}/c.parquet")["asked"]["requests"]
    before = open_table(tmp_path / "c.parquet").info.plan
    line = f"candidates photos --vocab tiny.txt --out {tmp_path}/c.parquet --replan"
    with stub_server("another", answer) as other:
        dry = tagllm(f"{line} --dry-run", other.url)
        assert (dry.exit_code, open_table(tmp_path / "c.parquet").info.plan) == (0, before)
        result = tagllm(line, other.url)
        assert len(other.questions) == asked
    assert result.exit_code == 0
    for note in notes:
        assert note in dry.stderr
        assert note in result.stderr
    after = open_table(tmp_path / "c.parquet").info.plan
    new = {"model": "another", "model_digest": after["model_digest"]}
    assert after == {**before, **new}


RUN = "candidates photos --vocab tiny.txt"
ERRORS = {
    f"{RUN} --strategy all --arms disjoint --out x.parquet": "--arms is about groups, and --strategy all has none",
    f"{RUN} --strategy binary --group-size 4 --out x.parquet": "--group-size is about groups",
    f"{RUN} --strategy open --cooccurrence labels.parquet --out x.parquet": "--cooccurrence is about groups",
    f"{RUN} --arms disjoint --out binary.parquet": "--arms is about groups, and --strategy binary has none",
    f"{RUN} --strategy most --out x.parquet": "--strategy",
    f"{RUN} --arms cooccuring --out x.parquet": "no arm named 'cooccuring'",
    f"{RUN} --arms disjoint,random@x --out x.parquet": "no arm named 'random@x'",
    f"{RUN} --arms random@ --out x.parquet": "no arm named 'random@'",
    f"{RUN} --arms random@-1 --out x.parquet": "no arm named 'random@-1'",
    f"{RUN} --arms disjoint@1@2 --out x.parquet": "no arm named 'disjoint@1@2'",
    f"{RUN} --arms random,random@0 --out x.parquet": "random and random@0 are one and the same arm",
    f"{RUN} --min-votes 3 --out x.parquet": "more arms than the table has (cooccurring, disjoint)",
    f"{RUN} --min-votes 3 --out groups.parquet": "--min-votes 3 asks for more arms",
    f"{RUN} --min-votes 2 --out one.parquet": "--min-votes 2 asks for more arms than the table has (disjoint)",
    f"{RUN} --min-votes 2 --strategy binary --out x.parquet": "--min-votes 2 asks for more arms",
    f"{RUN} --min-votes 2 --replan --out binary.parquet": "more arms than the table has (binary)",
    f"{RUN} --min-votes 0 --out x.parquet": "--min-votes",
    f"{RUN} --strategy open --out binary.parquet": "pinned to --strategy binary; the command asks for open",
    f"{RUN} --strategy binary --out groups.parquet": "pinned to --strategy groups; the command asks for binary",
    f"{RUN} --arms disjoint@1,cooccurring --out groups.parquet": "pinned to --arms cooccurring,disjoint",
    f"{RUN} --cooccurrence gone.parquet --out x.parquet": "no table at gone.parquet",
    f"{RUN} --cooccurrence gone.yaml --out x.parquet": "gone.yaml",
    f"{RUN} --cooccurrence photos --out x.parquet": "photos is not a file",
    f"{RUN} --cooccurrence text.parquet --out x.parquet": "text.parquet is not a Parquet file",
    f"{RUN} --cooccurrence nothing.parquet --out x.parquet": "nothing.parquet is not a Parquet file",
    f"{RUN} --cooccurrence tiny.txt --out x.parquet": "tiny.txt is not a Parquet file",
    f"{RUN} --cooccurrence none.parquet --out x.parquet": "none.parquet shows no label of tiny",
    f"{RUN} --cooccurrence nothing.yaml --out x.parquet": "nothing.yaml: it is not a mapping",
    f"{RUN} --cooccurrence no-scenes.yaml --out x.parquet": "no-scenes.yaml shows no label of tiny",
    f"{RUN} --cooccurrence odd.yaml --out x.parquet": "unknown key 'label' (did you mean 'labels'?)",
    f"{RUN} --cooccurrence cars.yaml --out x.parquet": "cars.yaml shows no label of tiny",
    "candidates photos --vocab cars.txt --cooccurrence labels.parquet --out x.parquet": "shows no label of cars",
    "export binary.parquet --format csv --out x.csv": "nothing in it is decided",
    "evaluate labels.parquet --truth binary.parquet": "is a candidate table",
}


@pytest.mark.parametrize("line", ERRORS)
def test_what_is_refused_is_two_lines_and_touches_nothing(workspace: Path, server: FaultyProxy, line: str) -> None:
    check_error(line, ERRORS[line], server.url)
