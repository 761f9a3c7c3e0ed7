"""Splits of a folder are those that `datasets` finds in it."""

from __future__ import annotations

from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tagllm_cli.errors import SourceError
from tagllm_cli.sources.base import SourceOptions, list_images
from tagllm_cli.sources.registry import open_source

LAYOUTS = {
    "sharded": [
        "data/train-00000-of-00002.parquet",
        "data/train-00001-of-00002.parquet",
        "data/eval-00000-of-00001.parquet",
    ],
    "names of their own": ["data/day-00000-of-00001.parquet", "data/night-00000-of-00001-abc.parquet"],
    "folders": ["train/0.parquet", "train/deep/1.parquet", "dev/0.parquet", "testing/x/test.parquet"],
    "folders with more in their names": ["my train 1/0.parquet", "x/val_2/0.parquet"],
    "files": ["train.parquet", "my-validation.parquet", "x/test_1.parquet", "evaluation-0.parquet"],
    "folders before files": ["train/test.parquet", "train/validation.parquet"],
    "none": ["a.parquet", "b/contest.parquet", "trained.parquet"],
    "one outside": ["train/0.parquet", "other/0.parquet"],
}


def lay(root: Path, names: list[str]) -> None:
    """Write a file of one row, which holds its name, for each name."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"image": [name.encode()]}), root / name)


def ours(root: Path, *splits: str) -> list[str]:
    source = open_source(str(root), SourceOptions(splits=splits), "parquet")
    return [source.read(image).decode() for image in list_images(source)]


def theirs(root: Path, cache: Path, config: str | None = None) -> dict[str, list[str]]:
    loaded = datasets.load_dataset(str(root), config, cache_dir=str(cache))
    return {split: sorted(row["image"].decode() for row in rows) for split, rows in loaded.items()}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_splits_by_name(layout: str, tmp_path: Path) -> None:
    root = tmp_path / "dataset"
    lay(root, LAYOUTS[layout])
    expected = theirs(root, tmp_path / "cache")
    assert {split: ours(root, split) for split in expected} == expected
    assert ours(root) == sorted(LAYOUTS[layout])


CONFIGS = {
    "patterns": "configs:\n- config_name: default\n  data_files:\n  - split: one\n    path: data/a*\n  - split: two\n"
    "    path: [data/b.parquet, more/*.parquet]\n",
    "any depth": "configs:\n- config_name: default\n  data_files:\n  - split: one\n    path: data/**\n",
    "folder": "configs:\n- config_name: default\n  data_dir: data\n",
    "a text": "configs:\n- config_name: default\n  data_files: data/*.parquet\n",
}


@pytest.mark.parametrize("front", CONFIGS)
def test_splits_of_the_readme(front: str, tmp_path: Path) -> None:
    root = tmp_path / "dataset"
    lay(root, ["data/a1.parquet", "data/a2.parquet", "data/b.parquet", "more/train.parquet"])
    (root / "README.md").write_text(f"---\nlicense: mit\n{CONFIGS[front]}---\n# Cats\n")
    expected = theirs(root, tmp_path / "cache")
    assert {split: ours(root, split) for split in expected} == expected
    with pytest.raises(SourceError, match="no split 'night'") as caught:
        ours(root, "night")
    assert all(split in caught.value.message for split in expected)


@pytest.mark.parametrize("readme", ["", "# Cats\n", "---\n: [\n---\n", "---\nconfigs: 3\n---\n", "---\n- 1\n---\n"])
def test_a_readme_without_configs_changes_nothing(readme: str, tmp_path: Path) -> None:
    lay(tmp_path, ["train.parquet", "test.parquet"])
    (tmp_path / "README.md").write_text(readme)
    assert ours(tmp_path, "train") == ["train.parquet"]


def test_several_splits_come_in_the_order_of_their_files(tmp_path: Path) -> None:
    lay(tmp_path, ["train/0.parquet", "test/0.parquet", "dev/0.parquet"])
    assert ours(tmp_path, "train", "test") == ["test/0.parquet", "train/0.parquet"]


def test_splits_of_what_was_saved_to_disk(tmp_path: Path) -> None:
    images = datasets.Dataset.from_dict({"image": [b"1", b"2"]})
    datasets.DatasetDict(day=images, night=images.select([1])).save_to_disk(tmp_path / "both")
    images.save_to_disk(tmp_path / "one")
    assert ours(tmp_path / "both") == ["1", "2", "2"]
    assert ours(tmp_path / "both", "night") == ["2"]
    assert ours(tmp_path / "one", "train") == ["1", "2"]
    with pytest.raises(SourceError, match="no split 'test': the splits are day, night"):
        ours(tmp_path / "both", "test")


def test_the_splits_are_part_of_the_description(tmp_path: Path) -> None:
    lay(tmp_path, ["train.parquet", "test.parquet"])
    source = open_source(str(tmp_path), SourceOptions(splits=("test",)), "parquet")
    assert source.describe().options == {"splits": ["test"]}
