"""Whole runs of every strategy: asked once, resumed, reused, read otherwise, and decided by the second stage."""

from __future__ import annotations

import zlib
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tagllm_cli.cli.console import Console
from tagllm_cli.errors import ModelError, StoppedRunError, UsageError
from tagllm_cli.labeling.answers.parse_list import Parsed, parse_names
from tagllm_cli.labeling.plan import STRATEGIES, Plan
from tagllm_cli.pipeline.label.job import RunOptions
from tagllm_cli.pipeline.label.run import run_job
from tagllm_cli.records import Decision, DecodedImage, Failure, Request, Response
from tagllm_cli.store.table import open_table
from tests.support.rule_engine import RuleEngine
from tests.support.rule_engine import answer as answer_lists_and_yes_no
from tests.support.workspace import LABELS, Workspace, evidence_rows, snapshot

IMAGES = 12
EACH = {"groups": 4, "all": 1, "open": 1, "binary": len(LABELS)}  # requests about an image
SEEN = ("Cats, a lamp", "dogs and a cup", "none", "table, plate, fork")


def answer(picture: DecodedImage | None, request: Request) -> Response:
    """Answer an open question too, with what is in the vocabulary and what is not."""
    if request.text.startswith("List everything"):
        assert picture is not None
        return Response(SEEN[sum(picture.uuid.encode()) % len(SEEN)], prompt_tokens=40, output_tokens=5)
    return answer_lists_and_yes_no(picture, request)


def new_engine(**settings: Any) -> RuleEngine:
    return RuleEngine(**{"answer": answer, **settings})


def chosen(strategy: str) -> dict[str, Any]:
    return {"strategy": strategy, "group_size": 5 if strategy == "groups" else None}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    workspace = Workspace(tmp_path, IMAGES)
    workspace.engine = new_engine()
    return workspace


def names(workspace: Workspace) -> set[str]:
    return {entry.name for row in workspace.rows().values() for entry in row.labels or ()}


class Dying(RuleEngine):
    """Answers some images and is gone."""

    async def ask(
        self, picture: DecodedImage | None, requests: Sequence[Request]
    ) -> AsyncGenerator[tuple[Request, Response]]:
        if len({uuid for uuid, _ in self.asked}) == 5:
            raise ModelError("the model has died", "Look into its log.")
        async for pair in super().ask(picture, requests):
            yield pair


every_strategy = pytest.mark.parametrize("strategy", STRATEGIES)


@every_strategy
def test_a_strategy_asks_its_questions_once(workspace: Workspace, strategy: str) -> None:
    summary = workspace.candidates(chosen(strategy))
    assert (summary.stats.asked, summary.rows.ok) == (IMAGES * EACH[strategy], IMAGES)
    assert summary.rows.labels > 0
    assert pq.read_schema(workspace.out).metadata[b"tagllm.plan"].count(f'"strategy": "{strategy}"'.encode()) == 1
    before, workspace.engine = snapshot(workspace.out.parent), new_engine()
    for again in (chosen(strategy), {"group_size": None}):
        assert workspace.candidates(again).stats.asked == 0
    assert (workspace.engine.started, snapshot(workspace.out.parent)) == (0, before)


@every_strategy
def test_a_run_that_died_goes_on_where_it_was(workspace: Workspace, tmp_path: Path, strategy: str) -> None:
    whole = Workspace(tmp_path / "whole", IMAGES)
    whole.engine = new_engine()
    whole.candidates(chosen(strategy))
    workspace.engine = Dying(answer=answer, capacity=EACH[strategy])
    summary = workspace.candidates(chosen(strategy))
    assert isinstance(summary.error, StoppedRunError)
    assert "has died" in summary.error.message
    assert summary.rows.pending > 0
    ((answered,),) = evidence_rows(workspace.out.with_suffix(".evidence"), "SELECT count(*) FROM response")
    assert 0 < answered < IMAGES * EACH[strategy]
    workspace.engine = new_engine()
    assert workspace.candidates(chosen(strategy)).stats.asked == IMAGES * EACH[strategy] - answered
    assert workspace.rows() == whole.rows()


@every_strategy
def test_what_failed_is_asked_again_and_nothing_else(workspace: Workspace, tmp_path: Path, strategy: str) -> None:
    whole = Workspace(tmp_path / "whole", IMAGES)
    whole.engine = new_engine()
    whole.candidates(chosen(strategy))

    def fault(picture: DecodedImage | None, request: Request) -> Failure | None:
        fails = picture is not None and (sum(picture.uuid.encode()) + len(request.text)) % 3 == 0
        return Failure("timeout", "no answer") if fails else None

    workspace.engine = new_engine(fault=fault)
    summary = workspace.candidates(chosen(strategy))
    failed = summary.stats.failed_requests
    assert 0 < failed < IMAGES * EACH[strategy]
    assert summary.rows.failed + summary.rows.partial > 0
    workspace.engine = new_engine()
    summary = workspace.candidates(chosen(strategy))
    assert (summary.stats.asked, summary.rows.ok) == (failed, IMAGES)
    assert workspace.rows() == whole.rows()


@pytest.mark.parametrize(("strategy", "each"), [("groups", 2), ("all", 1), ("open", 0), ("binary", 1)])
def test_an_added_label_asks_no_more_than_its_strategy_must(workspace: Workspace, strategy: str, each: int) -> None:
    workspace.candidates(chosen(strategy))
    workspace.write_vocabulary([*LABELS, "lamp"])
    workspace.engine = new_engine()
    summary = workspace.candidates(chosen(strategy))
    assert (summary.stats.asked, workspace.engine.started) == (each * IMAGES, int(each > 0))
    assert all("lamp" in text for _, text in workspace.engine.asked) or strategy == "all"  # in the system part
    assert "lamp" in names(workspace)


@every_strategy
def test_another_strategy_needs_a_replan(workspace: Workspace, strategy: str) -> None:
    workspace.candidates(chosen(strategy))
    before = snapshot(workspace.out.parent)
    other = "all" if strategy == "groups" else "groups"
    with pytest.raises(UsageError, match=f"--strategy {strategy}; the command asks for {other}"):
        workspace.candidates(chosen(other))
    assert snapshot(workspace.out.parent) == before
    assert workspace.candidates(chosen(other), replan=True).stats.asked == IMAGES * EACH[other]


@pytest.mark.parametrize(
    ("settings", "votes"),
    [(chosen("all"), 2), (chosen("binary"), 2), ({"arms": ("disjoint",)}, 2), ({"arms": ("random@1", "random@2")}, 3)],
    ids=["all", "binary", "one arm", "two arms"],
)
def test_more_votes_than_arms_are_refused(workspace: Workspace, settings: dict[str, Any], votes: int) -> None:
    with pytest.raises(UsageError, match=f"--min-votes {votes} asks for more arms than the table has") as raised:
        workspace.candidates({**settings, "min_votes": votes})
    assert raised.value.exit_code == 2
    assert not workspace.out.parent.exists()
    assert workspace.candidates({**settings, "min_votes": votes - 1}).rows.ok == IMAGES


def forgetful(picture: DecodedImage | None, request: Request) -> Response:
    """Answer a list question without some of what is there, other things for every list and order."""
    response, about = answer(picture, request), f"{request.text} {picture and picture.uuid}"
    kept = [name for name in response.text.split(", ") if zlib.crc32(f"{about} {name}".encode()) % 3]
    return replace(response, text=", ".join(kept) or "none")


def test_min_votes_reads_the_answers_anew_without_a_model(workspace: Workspace) -> None:
    arms = {"arms": ("cooccurring", "disjoint", "random@1", "cooccurring@2")}
    workspace.engine = new_engine(answer=forgetful)
    workspace.candidates(arms)
    workspace.engine = new_engine()
    found = []
    for votes in (1, 2, 3, 4):
        summary = workspace.candidates({**arms, "min_votes": votes})
        entries = {(id_, each.name): each for id_, row in workspace.rows().items() for each in row.labels or ()}
        assert all(len(each.arms) >= votes and each.score == len(each.arms) / 4 for each in entries.values())
        assert summary.rows.labels == len(entries)
        found.append(set(entries))
    assert found[0] > found[1] > found[2] > found[3] > set()
    assert (workspace.engine.started, workspace.engine.asked) == (0, [])


def test_another_parser_reads_the_answers_anew_without_a_model(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace.candidates()
    assert "cat" in names(workspace)
    workspace.engine = new_engine()

    def without_cats(*given: Any) -> Parsed:
        parsed = parse_names(*given)
        return Parsed(tuple(name for name in parsed.labels if name != "cat"), parsed.unmatched)

    monkeypatch.setattr("tagllm_cli.labeling.candidates.parse_names", without_cats)
    monkeypatch.setattr("tagllm_cli.__version__", "99.0")  # parsers change with releases
    assert workspace.candidates().stats.asked == 0
    assert names(workspace) == set(LABELS) - {"cat"}
    assert (workspace.engine.started, workspace.engine.asked) == (0, [])


def test_another_threshold_of_binary_asks_nothing(workspace: Workspace) -> None:
    first = workspace.candidates(chosen("binary")).rows.labels
    workspace.engine = new_engine()
    strict = workspace.candidates({**chosen("binary"), "threshold": 0.9})
    assert (strict.stats.asked, workspace.engine.started) == (0, 0)
    assert 0 < strict.rows.labels < first


def test_what_binary_says_no_to_is_not_asked_about_again(workspace: Workspace) -> None:
    workspace.candidates(chosen("binary"))
    entries = {id_: row.labels or () for id_, row in workspace.rows().items()}
    assert {len(labels) for labels in entries.values()} == {len(LABELS)}
    proposed = {id_: [each.name for each in labels if each.decision is None] for id_, labels in entries.items()}
    summary = workspace.disambiguate({"concepts": "none"})
    assert summary.stats.asked == sum(map(len, proposed.values())) < IMAGES * len(LABELS)
    rows = workspace.rows(workspace.labels_out)
    assert {id_: [each.name for each in row.labels or ()] for id_, row in rows.items()} == proposed
    assert {each.decision for row in rows.values() for each in row.labels or ()} == {Decision.YES}
    # The very same questions: either table's evidence could answer the other's.
    keys = [
        {key for (key,) in evidence_rows(table.with_suffix(".evidence"), "SELECT key FROM response")}
        for table in (workspace.out, workspace.labels_out)
    ]
    assert keys[1] < keys[0]


def made_with(workspace: Workspace) -> str:
    return str(open_table(workspace.labels_out).info.plan["cards"])


def test_the_label_table_says_which_cards_made_it(workspace: Workspace, tmp_path: Path) -> None:
    workspace.candidates()
    digests = []
    for number, text in enumerate(
        (
            "{name: cat, description: pet}, {name: cow, description: big}",
            "{name: cow, description: big}, {name: cat, description: pet}",
            "{name: cat, description: pet, similar: [dog]}, {name: cow, description: big}",
        )
    ):
        cards = tmp_path / f"{number}.yaml"
        cards.write_text(f"cards: [{text}]\n")
        workspace.disambiguate({"concepts": str(cards)})
        digests.append(made_with(workspace))
    assert digests[0] == digests[1] != digests[2]
    assert {len(digest) for digest in digests} == {32}
    workspace.disambiguate({"concepts": "none"})
    assert made_with(workspace) == "none"


def test_what_was_counted_makes_the_groups_and_is_named(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scenes = tmp_path / "scenes.yaml"
    pairs = list(zip(LABELS[:4], LABELS[4:], strict=True))
    scenes.write_text(
        "scenes:\n" + "".join(f"- {{name: {a} scene, labels: [{a}, {b}]}}\n" for a, b in [*pairs, ("cat", "unicorn")])
    )
    workspace.candidates()

    def run(cooccurrence: Path) -> Plan:
        run_job(workspace.candidates_job(cooccurrence=cooccurrence, group_size=2), RunOptions(), Console())
        return Plan.from_json(open_table(workspace.out).info.plan)

    first, workspace.out = workspace.out, workspace.out.with_name("other.parquet")
    plan = run(scenes)
    assert {group.names for group in plan.arms["cooccurring"]} == set(pairs)
    assert not {group.names for group in plan.arms["disjoint"]} & set(pairs)
    assert plan.grouped_by == "scenes.yaml, 5 scenes"
    assert "tiny lacks unicorn of scenes.yaml" in capsys.readouterr().err

    workspace.write_vocabulary([*LABELS, "lamp"])
    grown = run(first)
    assert grown.arms["cooccurring"][:4] == plan.arms["cooccurring"]
    said = capsys.readouterr().err
    assert "groups stay as they were pinned; --replan groups by c.parquet, " in said
    assert "c.parquet never shows lamp" in said
