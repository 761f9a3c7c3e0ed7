"""What classifiers see: images of any source, read once; backbones of any family; where they do not fit, words."""

from __future__ import annotations

import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tagllm_cli.errors import ModelError, UsageError
from tagllm_cli.evaluation.downstream.backbone import load_backbone
from tagllm_cli.evaluation.downstream.inputs import stored
from tagllm_cli.evaluation.downstream.label_sets import load_label_sets
from tagllm_cli.evaluation.downstream.options import DownstreamOptions
from tagllm_cli.records import Row, Status, digest16
from tagllm_cli.sources.base import list_images
from tagllm_cli.sources.registry import open_source
from tagllm_cli.store.table import TableInfo, write_table
from tagllm_cli.vocabulary.model import Label, Vocabulary
from tests.evaluation.downstream.world import NAMES, World, compared, nothing, yes


def _mean_color(pixels: np.ndarray) -> np.ndarray:
    return pixels.mean((2, 3))


def _prepare(image: Any) -> np.ndarray:
    return np.asarray(image, np.float32).transpose(2, 0, 1)


def test_members_of_tar_shards_are_read_where_they_lie(tmp_path: Path) -> None:
    world, shards = World(tmp_path, images=100), tmp_path / "shards"
    shards.mkdir()
    files = sorted(world.folder.iterdir())
    for number, some in enumerate((files[:25], files[25:])):
        with tarfile.open(shards / f"{number}.tar", "w") as tar:
            for file in some:
                tar.add(file, file.name)
    source = open_source(str(shards))
    rows = []
    for image in list_images(source):
        name = image.id.rpartition("/")[2]
        labels = tuple(yes(*world.true[name]))
        print_ = digest16((world.folder / name).read_bytes())
        rows.append(Row(image.id, image.uri, print_, 16, 16, Status.OK, None, labels, ()))
    info = TableInfo("labels", source.describe(), Vocabulary("v", tuple(map(Label, NAMES))))
    write_table(tmp_path / "tar.parquet", info, rows)
    sets = load_label_sets(tmp_path / "tar.parquet", world.truth, DownstreamOptions())
    told: list[tuple[int, int]] = []
    with stored(
        sets, None, _prepare, _mean_color, np.float32, lambda what, done, total: told.append((done, total))
    ) as inputs:
        assert inputs.kept.all()
        colors = inputs.of(np.arange(100))
    truth = sets.sets[-1].targets > 0
    assert len(rows) == 100
    assert told[-1] == (100, 100)
    assert ((colors > 150) == truth).all()  # each image's color is what its own truth says


def test_the_temporary_file_is_gone_afterwards(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    sets = load_label_sets(world.right(), world.truth, DownstreamOptions())
    with stored(sets, None, _prepare, _mean_color, np.float32, nothing):
        assert [each.name for each in tmp_path.rglob("inputs")] == ["inputs"]
    assert list(tmp_path.iterdir()) == []


def test_the_temporary_file_is_gone_after_an_interrupt(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    sets = load_label_sets(world.right(), world.truth, DownstreamOptions())

    def interrupt(what: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), stored(sets, None, _prepare, _mean_color, np.float32, interrupt):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_too_small_is_an_error(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = SimpleNamespace(free=1)
    monkeypatch.setattr("tagllm_cli.evaluation.downstream.inputs.shutil.disk_usage", lambda path: usage)
    sets = load_label_sets(world.right(), world.truth, DownstreamOptions())
    with (
        pytest.raises(UsageError, match="GB left") as error,
        stored(sets, None, _prepare, _mean_color, np.float32, nothing),
    ):
        pass
    assert "TMPDIR" in error.value.hint


def test_images_of_several_shapes_are_an_error(tmp_path: Path) -> None:
    world = World(tmp_path)
    from PIL import Image

    Image.new("RGB", (16, 20)).save(world.folder / "010.png")
    sets = load_label_sets(world.right(), world.truth, DownstreamOptions())
    with (
        pytest.raises(UsageError, match="several shapes"),
        stored(sets, None, _prepare, _mean_color, np.float32, nothing),
    ):
        pass


@pytest.mark.parametrize("family", ["vit", "clip"])
def test_models_of_tokens_are_backbones_too(world: World, tmp_path: Path, family: str) -> None:
    import transformers

    transformers.utils.logging.disable_progress_bar()
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    picture = {"image_size": 16, "patch_size": 8}
    if family == "vit":
        transformers.ViTModel(transformers.ViTConfig(**small, **picture)).save_pretrained(tmp_path)
        transformers.ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(tmp_path)
    else:
        words = {**small, "vocab_size": 20, "max_position_embeddings": 8, "eos_token_id": 1, "bos_token_id": 0}
        config = transformers.CLIPConfig(text_config=words, vision_config={**small, **picture}, projection_dim=8)
        transformers.CLIPModel(config).save_pretrained(tmp_path)
        size = {"height": 16, "width": 16}
        transformers.CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=size).save_pretrained(tmp_path)
    found = compared(world, world.right(), tmp_path, epochs=10)
    assert found.sets[0].map.value > 0.6  # at random it is 0.4


def test_a_model_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError, match="as an image model"):
        load_backbone(DownstreamOptions(backbone="/nowhere/at-all"))
