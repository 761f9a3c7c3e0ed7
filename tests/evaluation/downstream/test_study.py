"""Downstream comparisons as a whole: right labels train well, wrong ones do not, and what is missing is said."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tagllm_cli.errors import ModelError, SourceError, UsageError
from tagllm_cli.evaluation.downstream.options import DownstreamOptions
from tests.evaluation.downstream.world import NAMES, World, compared, nothing, yes


def test_right_labels_train_a_classifier_and_shuffled_ones_do_not(world: World, resnet: Path) -> None:
    found = compared(world, world.right(), resnet, against=(world.shuffled(),), epochs=60)
    right, shuffled, truth = found.sets
    assert (right.name, shuffled.name, truth.name) == ("right", "shuffled", "truth")
    assert right.maps == truth.maps  # the same labels, seeds and images
    assert truth.map.value > 0.95
    prevalence = np.mean([len(present) for present in world.true.values()]) / len(NAMES)
    assert shuffled.map.value == pytest.approx(prevalence, abs=0.15)
    (gap,) = found.gaps
    assert gap.closed is not None
    assert (gap.closed.value, gap.closed.low, gap.closed.high) == pytest.approx((1, 1, 1), abs=1e-6)
    assert found.training_images + found.test_images == len(world.true)
    assert found.warnings == []


def test_labels_that_are_as_good_as_the_truth_leave_no_gap_to_close(world: World, resnet: Path) -> None:
    found = compared(world, world.right(), resnet, against=(world.right("too"),))
    assert found.gaps[0].closed is None
    assert "not measurable" in found.tables()[1][1][1][0][-1]
    assert found.to_json()["gaps"][0]["closed"] is None


@pytest.mark.parametrize(
    "chosen", [{}, {"fine_tune": True, "early_stopping": True}, {"backbone": "scratch", "epochs": 1}]
)
def test_the_same_command_gives_the_same_numbers(world: World, resnet: Path, chosen: dict[str, Any]) -> None:
    once, again = (compared(world, world.right(), **{"backbone": resnet, "epochs": 2, **chosen}) for _ in range(2))
    assert once.to_json() == again.to_json()
    assert json.loads(json.dumps(once.to_json())) == once.to_json()
    assert once.sets[0].curves[0] != once.sets[0].curves[1]


def test_early_stopping_validates_on_training_labels_and_keeps_an_earlier_epoch(world: World, resnet: Path) -> None:
    found = compared(world, world.shuffled(), resnet, epochs=60, early_stopping=True)
    assert found.validation_images > 0
    assert found.training_images + found.validation_images + found.test_images == len(world.true)
    shuffled = found.sets[0]
    assert all(len(curve) == kept + 6 < 60 for curve, kept in zip(shuffled.curves, shuffled.kept, strict=True))
    assert [curve[kept] for curve, kept in zip(shuffled.curves, shuffled.kept, strict=True)] == list(shuffled.maps)


def test_images_that_cannot_be_used_are_left_out_and_counted(tmp_path: Path, resnet: Path) -> None:
    world = World(tmp_path)
    ours = world.table("ours", lambda image: yes(*world.true[image]), failed=("000.png", "001.png"))
    plain = world.table("plain", lambda image: yes(), failed=("002.png",))
    (world.folder / "003.png").unlink()
    (world.folder / "004.png").write_bytes((world.folder / "005.png").read_bytes())
    world.write_truth("truth.csv", {image: present for image, present in world.true.items() if image != "006.png"})
    found = compared(world, ours, resnet, against=(plain,), epochs=1)
    assert dict(found.left_out) == {
        f"no answer in {plain}": 1,
        "no answer": 2,
        "not in the truth": 1,
        "vanished": 1,
        "changed since they were labeled": 1,
    }
    assert found.training_images + found.test_images == len(world.true) - 6
    assert len(found.warnings) == 5


def test_an_image_that_cannot_be_decoded_is_left_out(tmp_path: Path, resnet: Path) -> None:
    world = World(tmp_path)
    (world.folder / "007.png").write_bytes(b"no image")
    found = compared(world, world.right(), resnet, epochs=1)
    assert dict(found.left_out) == {"not_an_image": 1}


def test_images_that_moved_are_found_below_root(tmp_path: Path, resnet: Path) -> None:
    world = World(tmp_path)
    table = world.right()
    world.folder.rename(tmp_path / "moved")
    with pytest.raises(SourceError, match="images"):
        compared(world, table, resnet, epochs=1)
    assert compared(world, table, resnet, epochs=1, root=str(tmp_path / "moved")).left_out == {}


def test_a_root_without_any_of_the_images_is_an_error(world: World, resnet: Path, tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "other.png")
    with pytest.raises(UsageError, match="not one image") as error:
        compared(world, world.right(), resnet, root=str(tmp_path))
    assert "160 vanished" in error.value.hint


def test_a_truth_for_other_images_is_an_error(world: World, resnet: Path) -> None:
    other = world.write_truth("other.csv", {"elsewhere.png": ["red"]})
    from tagllm_cli.evaluation.downstream.study import compare_downstream

    with pytest.raises(UsageError, match="share no image"):
        compare_downstream(world.right(), other, DownstreamOptions(backbone=str(resnet)), nothing)


def test_too_few_images_are_an_error(tmp_path: Path, resnet: Path) -> None:
    world = World(tmp_path, images=30)
    with pytest.raises(UsageError, match=r"too few images: \d+ to train on"):
        compared(world, world.right(), resnet)


def test_a_folder_that_is_no_image_model_is_an_error(world: World, tmp_path: Path, resnet: Path) -> None:
    with pytest.raises(ModelError, match="as an image model"):
        compared(world, world.right(), tmp_path)
    shutil.copytree(resnet, tmp_path / "damaged")
    (tmp_path / "damaged" / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="as an image model"):
        compared(world, world.right(), tmp_path / "damaged")


@pytest.mark.parametrize("package", ["torch", "transformers", "torchmetrics", "matplotlib"])
def test_a_missing_package_is_named_with_the_extra(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UsageError, match=rf"needs {package}") as error:
        DownstreamOptions(plot=Path("curve.png")).check()
    assert "tagllm[downstream]" in error.value.hint


@pytest.mark.parametrize("name", ["curve.png", "curve.svg"])
def test_curves_are_drawn(world: World, resnet: Path, tmp_path: Path, name: str) -> None:
    found = compared(world, world.right(), resnet, against=(world.shuffled(),), plot=tmp_path / name)
    assert [len(curve) for curve in found.sets[0].curves] == [6, 6]
    if name.endswith(".png"):
        with Image.open(tmp_path / name) as picture:
            assert min(picture.size) > 600
        return
    drawn = (tmp_path / name).read_text()
    # Each line has its own style: two are dashed in different ways or not at all.
    assert len(set(re.findall(r"stroke-dasharray: ([\d., ]+)", drawn))) >= 1
    assert {"right", "shuffled", "truth"} <= set(re.findall(r"<!-- (\w+):", drawn))
