"""Concept cards on real vLLM: the demo model tries drafts that a scripted LLM writes, good ones and the other sense."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tagllm_cli.vocabulary.load import load_vocabulary
from tests.demo.wordings import OWN_PROMPTS
from tests.support.command_line import one_object, tagllm
from tests.support.live import IMAGES, LiveServer
from tests.support.scripted_llm import ScriptedLLM, card

pytestmark = pytest.mark.live

TRUTH = IMAGES.with_name("truth.json")
MEANT = {label.name: label.description for label in load_vocabulary("scenes").labels}
# A draft for each of three ambiguous names; the last one is what the dataset does not mean.
OTHER_SENSE = "the instrument with black and white keys that is played with both hands"
DRAFTS = {"mouse": MEANT["mouse"], "football": MEANT["football"], "keyboard": OTHER_SENSE}


def run(line: str, server: LiveServer) -> dict[str, Any]:
    """Type a command, with the server that serves the demo model, and return its JSON."""
    result = tagllm(f"{line} --json", server.url)
    assert result.exit_code == 0, result.output
    return dict(one_object(result.stdout))


def test_real_pictures_decide_which_cards_stay(live_server: LiveServer, tmp_path: Path) -> None:
    names, cards, table = tmp_path / "names.yaml", tmp_path / "cards.yaml", tmp_path / "candidates.parquet"
    bare = [{"name": name} for name in MEANT]
    names.write_text(yaml.safe_dump({"name": "names", "labels": bare}), encoding="utf-8")
    run(f"candidates {IMAGES} --vocab {names} --strategy all --prompts {OWN_PROMPTS} --out {table}", live_server)

    scripts = {name: [card(name, description)] for name, description in DRAFTS.items()}
    with ScriptedLLM(scripts, {name: (text,) for name, text in DRAFTS.items()}) as llm:
        command = f"concepts {names} --table {table} --truth {TRUTH} --labels {','.join(DRAFTS)} --out {cards}"
        summary = run(f"{command} --llm-endpoint {llm.url}", live_server)
    assert summary["cards"] == ["mouse", "football"]
    assert "breaks" in summary["unwritten"]["keyboard"]

    measured: dict[str, Any] = {}
    for concepts in ("none", str(cards)):
        labels = tmp_path / f"labels-{len(measured)}.parquet"
        run(f"disambiguate {table} --concepts {concepts} --out {labels}", live_server)
        found = run(f"evaluate {labels} --truth {TRUTH}", live_server)["labels"]
        measured[concepts] = {label["name"]: label for label in found}
    without, with_cards = measured.values()
    for name in ("mouse", "football"):
        assert with_cards[name]["precision"] > without[name]["precision"] + 0.1
        assert with_cards[name]["f1"] > without[name]["f1"]
    assert with_cards["keyboard"] == without["keyboard"]
