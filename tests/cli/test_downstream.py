"""`tagllm evaluate --downstream` as typed."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tagllm_cli.cli.app import app
from tests.evaluation.downstream.world import World, save_resnet


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"), images=80)


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_resnet(tmp_path_factory.mktemp("resnet"))


def _typed(*words: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["evaluate", *map(str, words)])
    return done.exit_code, done.stdout, done.stderr


def test_json_is_one_object_with_what_was_trained(world: World, resnet: Path) -> None:
    what = (world.right(), "--truth", world.truth, "--compare", world.shuffled(), "--json")
    code, out, _ = _typed(*what, "--downstream", "--backbone", resnet, "--epochs", 2, "--seeds", 2)
    assert code == 0
    found = json.loads(out)
    assert found["of1"] == 1
    assert [each["name"] for each in found["downstream"]["sets"]] == ["right", "shuffled", "truth"]
    assert found["downstream"]["gaps"][0]["plain"] == "shuffled"
    assert [len(curve) for curve in found["downstream"]["sets"][0]["curves"]] == [2, 2]


def test_people_read_the_labels_figures_and_then_the_classifiers(world: World, resnet: Path, tmp_path: Path) -> None:
    more = ("--backbone", resnet, "--epochs", 1, "--seeds", 1, "--plot", tmp_path / "curve.svg")
    code, out, _ = _typed(world.right(), "--truth", world.truth, "--downstream", *more)
    assert code == 0
    assert out.index("OF1") < out.index("trained on") < out.index("by seed")
    assert (tmp_path / "curve.svg").exists()


@pytest.mark.parametrize("option", [("--plot", "curve.png"), ("--fine-tune",), ("--seeds", "3"), ("--root", "photos")])
def test_options_of_training_without_it_are_refused(world: World, option: tuple[str, ...]) -> None:
    code, _, err = _typed(world.right(), "--truth", world.truth, *option)
    assert code == 2
    assert f"{option[0]} is for --downstream only" in err


def test_what_cannot_be_is_refused_before_the_table_is_measured(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    what = ("nothing.parquet", "--truth", world.truth, "--downstream")
    assert "no picture" in _typed(*what, "--plot", tmp_path / "curve.txt")[2]
    assert "--test-share" in _typed(*what, "--test-share", "1.5")[2]
    monkeypatch.setitem(sys.modules, "transformers", None)
    code, _, err = _typed(*what)
    assert code == 2
    assert "--downstream needs transformers" in err
    assert "pip install 'tagllm[downstream]'" in err


_PAGE = (Path(__file__).parents[2] / "docs" / "downstream.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("command", re.findall(r"^tagllm evaluate (.*)$", _PAGE, re.MULTILINE))
def test_the_commands_of_the_docs_work(
    world: World, resnet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    for name, file in {"labels": world.right(), "plain": world.shuffled()}.items():
        shutil.copy(file, tmp_path / f"{name}.parquet")
    shutil.copy(world.truth, tmp_path)
    monkeypatch.chdir(tmp_path)
    words = [word for word in command.split() if word != "facebook/dinov2-base"]
    words = [each for word in words for each in ([word, str(resnet)] if word == "--backbone" else [word])]
    backbone = [] if "--backbone" in words else ["--backbone", str(resnet)]
    code, out, _ = _typed(*words, *backbone, "--epochs", 1, "--seeds", 1)
    assert code == 0
    assert "labels" in out
