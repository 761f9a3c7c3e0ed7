"""Answers of people improve the labels of pictures that nobody looked at: a review, then cards, on real vLLM."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml

from tagllm_cli.vocabulary.load import load_vocabulary
from tests.demo.dataset import generate
from tests.demo.descriptions import describe
from tests.demo.scenes import Dials
from tests.demo.things import MEANS, THINGS
from tests.demo.wordings import OWN_PROMPTS
from tests.support.command_line import one_object, tagllm
from tests.support.live import LiveServer
from tests.support.reviewer import decisions
from tests.support.scripted_llm import ScriptedLLM, card

pytestmark = pytest.mark.live

ANSWERS = 150
MEANT = {label.name: label.description for label in load_vocabulary("scenes").labels}
OTHER = {
    name: describe(Random(0), thing.id)
    for thing in THINGS.values()
    if (name := thing.name) in MEANS and MEANS[name] != thing.id
}


def run(line: str, server: LiveServer) -> dict[str, Any]:
    """Type a command, with the server that serves the demo model, and return its JSON."""
    result = tagllm(f"{line} --json", server.url)
    assert result.exit_code == 0, result.output
    return dict(one_object(result.stdout))


def labels_of(folder: Path, name: str, server: LiveServer, concepts: str = "none") -> Path:
    """Label the images of a folder, with candidates that are asked for once."""
    candidates, labels = folder / "candidates.parquet", folder / f"{name}.parquet"
    vocabulary = f"--vocab {folder.parent / 'names.yaml'}"
    run(
        f"candidates {folder / 'images'} {vocabulary} --strategy all --prompts {OWN_PROMPTS} --out {candidates}", server
    )
    run(f"disambiguate {candidates} --concepts {concepts} --out {labels}", server)
    return labels


def test_answers_about_ambiguous_names_improve_pictures_that_nobody_looked_at(
    live_server: LiveServer, tmp_path: Path
) -> None:
    """The LLM drafts for each name what the dataset does not mean, then what it means; only people can tell."""
    names, cards = tmp_path / "names.yaml", tmp_path / "cards.yaml"
    names.write_text(yaml.safe_dump({"name": "names", "labels": [{"name": name} for name in MEANT]}), encoding="utf-8")
    for part, count, first in (("reviewed", 280, 7001), ("unseen", 160, 7501)):
        generate(tmp_path / part, count, first, Dials(), workers=1)
    reviewed, unseen = tmp_path / "reviewed", tmp_path / "unseen"
    table = labels_of(reviewed, "labels", live_server)
    page, answers, names_of = reviewed / "review.html", reviewed / "decisions.jsonl", ",".join(OTHER)
    run(f"review {table} --labels {names_of} --limit {ANSWERS} --out {page}", live_server)
    assert decisions(page, reviewed / "truth.json", answers) == ANSWERS
    run(f"import {table} {answers}", live_server)

    scripts = {name: [card(name, OTHER[name]), card(name, MEANT[name])] for name in OTHER}
    with ScriptedLLM(scripts, {name: (MEANT[name], OTHER[name]) for name in OTHER}) as llm:
        truth = f"--truth {table} --human-only --labels {names_of}"
        command = f"concepts {names} --table {reviewed / 'candidates.parquet'} {truth} --out {cards}"
        summary = run(f"{command} --llm-endpoint {llm.url}", live_server)
    assert summary["cards"] == list(OTHER)
    before = run(f"evaluate {labels_of(unseen, 'before', live_server)} --truth {unseen / 'truth.json'}", live_server)
    after = labels_of(unseen, "after", live_server, str(cards))
    found = run(f"evaluate {after} --truth {unseen / 'truth.json'}", live_server)
    sides = [{label["name"]: label["f1"] for label in each["labels"]} for each in (before, found)]
    ambiguous = [sum(side[name] for name in OTHER) / len(OTHER) for side in sides]
    assert ambiguous[1] > ambiguous[0] + 0.1
    assert found["of1"] > before["of1"] + 0.02
