"""Image files of exports: each kind of source, hostile names, copies and links; read by the tools they are for."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest
import webdataset

from tagllm_cli.errors import UsageError
from tagllm_cli.export.base import Examples, ExportSettings
from tagllm_cli.export.images import placed
from tagllm_cli.export.names import file_name, folder_names, path_name
from tagllm_cli.export.registry import export_table
from tagllm_cli.store.table import open_table, write_table
from tests.export.test_conformance import READERS
from tests.export.test_file_names import labeled
from tests.export.test_formats import LABELS, SALT, VOCABULARY, content, load, rows, written
from tests.support.packing import packed
from tests.support.workspace import Workspace

SPLIT = (("train", 0.5), ("val", 0.5))
WITH_IMAGES = ("hf", "imagefolder", "webdataset")
HOSTILE_PATHS = ("../../x.png", "/etc/passwd.png", "con.png", "a:b.png", "c:\\windows\\x.png", "-rf.png", ".hidden.png")


def exported(table: Path, format_: str, **settings: Any) -> Path:
    out = table.parent / f"out-{format_}"
    export_table(table, format_, out, ExportSettings(**settings))
    return out


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path, 3)


# It leaves the shards that it has read to the collector.
reads_webdataset = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")


def samples(out: Path) -> list[dict[str, Any]]:
    """What `webdataset` reads, shard by shard."""
    shards = [str(path) for path in sorted(out.glob("*.tar"))]
    return list(webdataset.WebDataset(shards, shardshuffle=False, empty_check=False).decode("pil"))


@reads_webdataset
def test_webdataset_reads_every_label_of_every_image(table: Path, root: Path) -> None:
    found = {sample["json"]["image_id"]: sample for sample in samples(exported(table, "webdataset"))}
    assert {name: sample["json"]["labels"] for name, sample in found.items()} == LABELS
    assert found["sub/ünsicher\n.png"]["json"]["unknown"] == ["dog"]
    assert found["a dog & cat.png"]["json"]["scores"] == [0.7, 0.9]
    assert (found["sub/human.png"]["json"]["scores"], found["sub/human.png"]["json"]["human"]) == (
        [1.0],
        ["dog", "cat"],
    )
    sizes = {name: sample["jpg" if name.endswith("jpg") else "png"].size for name, sample in found.items()}
    assert sizes == {name: (8 + number, 6) for number, name in enumerate(LABELS)}
    assert [sample["__key__"] for sample in found.values()] == [f"{number:09}" for number in range(4)]


@reads_webdataset
def test_webdataset_comes_in_shards_and_splits(table: Path) -> None:
    out = exported(table, "webdataset", shard_images=1, split=SPLIT)
    names = sorted(path.name for path in out.glob("*.tar"))
    assert all(name.startswith(("train-00000", "val-00000")) for name in names)
    assert len(names) == 4
    assert {each["json"]["image_id"]: each["json"]["labels"] for each in samples(out)} == LABELS
    assert len(samples(exported(table, "webdataset", shard_bytes=1))) == 4


@pytest.mark.parametrize("format_", ["imagefolder", "webdataset", "hf"])
@pytest.mark.parametrize("kind", ["folder", "tar", "parquet", "manifest"])
def test_images_are_copied_from_every_kind_of_source(
    workspace: Workspace, tmp_path: Path, format_: str, kind: str
) -> None:
    if kind == "manifest":
        (tmp_path / "list.txt").write_text("".join(f"{path}\n" for path in sorted(workspace.images.iterdir())))
        table = labeled(workspace, tmp_path / "list.txt")
    elif kind == "folder":
        table = labeled(workspace, workspace.images)
    else:
        table = labeled(workspace, packed(workspace.images, kind, tmp_path / "packed", per_shard=2))
    out = exported(table, format_)
    found, _ = READERS[format_](out)
    wanted = {
        row.image_id: {entry.name for entry in row.labels or () if entry.decision == "yes"}
        for row in open_table(table).rows()
    }
    assert {name: set(labels) for name, labels in found.items()} == wanted
    if format_ == "imagefolder":
        copies = sorted(path.read_bytes() for path in out.rglob("*.png"))
        assert copies == sorted(path.read_bytes() for path in workspace.images.iterdir())


def test_datasets_reads_an_imagefolder_in_splits(table: Path, tmp_path: Path) -> None:
    out = exported(table, "imagefolder", split=SPLIT)
    for spec in ({"path": "imagefolder", "data_dir": str(out)}, {"path": str(out)}):
        loaded = datasets.load_dataset(**spec, cache_dir=str(tmp_path / "cache"))
        found = {each["image_id"]: each for split in loaded.values() for each in split}
        assert {name: each["labels"] for name, each in found.items()} == LABELS
        assert {name: each["image"].size for name, each in found.items()} == {
            name: (8 + number, 6) for number, name in enumerate(LABELS)
        }
        assert found["sub/ünsicher\n.png"]["unknown"] == '["dog"]'
    assert len(load(exported(table, "imagefolder"))) == 4


def test_hf_in_splits_is_read_by_datasets(table: Path, tmp_path: Path) -> None:
    loaded = datasets.load_dataset(str(exported(table, "hf", split=SPLIT)), cache_dir=str(tmp_path / "cache"))
    assert list(loaded) == ["train", "val"]
    names = loaded["train"].features["labels"].feature.int2str
    assert {each["image_id"]: names(each["labels"]) for split in loaded.values() for each in split} == LABELS


def test_numpy_holds_what_is_present_undecided_and_how_sure(table: Path) -> None:
    with np.load(exported(table, "numpy"), allow_pickle=False) as arrays:
        assert arrays["names"].tolist() == list(VOCABULARY.names)
        assert arrays["label_ids"].tolist() == [0, 1, 2, 3]
        assert arrays["image_ids"].tolist() == list(LABELS)
        assert arrays["labels"].tolist() == [[name in LABELS[image] for name in VOCABULARY.names] for image in LABELS]
        assert arrays["unknown"].tolist() == [[False] * 4, [False] * 4, [True, False, False, False], [False] * 4]
        scores = [[0.7, 0.9, 0, 0.4], [0] * 4, [1, 0, 0.6, 0], [0, 1, 0, 0]]  # a person: no dog, but a cat
        assert arrays["scores"] == pytest.approx(np.array(scores, np.float32))
        assert (arrays["labels"].dtype, arrays["scores"].dtype) == (np.bool_, np.float32)


def test_csv_wide_and_long_are_read_by_pandas(table: Path) -> None:
    wide = pd.read_csv(exported(table, "csv-wide"), index_col="image_id")
    assert list(wide.columns) == list(VOCABULARY.names)
    assert wide.loc["a dog & cat.png"].tolist() == [1, 1, 0, 0]
    assert np.isnan(wide.loc["sub/ünsicher\n.png", "dog"])
    assert wide.loc["sub/ünsicher\n.png", SALT] == 1
    long = pd.read_csv(exported(table, "csv-long"))
    assert long["image"].drop_duplicates().tolist() == list(LABELS)
    assert long[long["image"] == "sub/nothing.jpg"]["label"].isna().tolist() == [True]
    human = long[long["image"] == "sub/human.png"]
    assert human[["label", "decision", "source"]].to_numpy().tolist() == [
        ["dog", "no", "human"],
        ["cat", "yes", "human"],
    ]
    found = long[long["decision"] == "yes"].groupby("image", sort=False)["label"].apply(list).to_dict()
    assert found == {name: labels for name, labels in LABELS.items() if labels}


def test_parquet_is_read_by_pandas_with_its_splits(table: Path) -> None:
    frame = pd.read_parquet(exported(table, "parquet", split=SPLIT)).set_index("image_id")
    assert {name: list(labels) for name, labels in frame["labels"].items()} == LABELS
    assert {name: list(labels) for name, labels in frame["unknown"].items() if len(labels)} == {
        "sub/ünsicher\n.png": ["dog"]
    }
    assert list(frame.loc["sub/human.png", "human"]) == ["dog", "cat"]
    assert set(frame["split"]) == {"train", "val"}
    assert frame.loc["a dog & cat.png", "width"] == 8


def test_links_share_the_images_bytes_and_copies_do_not(table: Path, root: Path) -> None:
    out = exported(table, "imagefolder", images="link")
    assert (out / "a dog & cat.png").samefile(root / "a dog & cat.png")
    assert len(load(out)) == 4
    out = exported(table, "imagefolder", images="copy")
    assert not (out / "a dog & cat.png").samefile(root / "a dog & cat.png")


def test_a_link_is_symbolic_where_hard_ones_do_not_work(
    table: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refused)
    out = exported(table, "imagefolder", images="link")
    assert (out / "sub/human.png").readlink() == root / "sub/human.png"
    assert READERS["imagefolder"](out)[0] == LABELS


def test_images_in_archives_cannot_be_linked(workspace: Workspace, tmp_path: Path) -> None:
    table = labeled(workspace, packed(workspace.images, "tar", tmp_path / "packed"))
    with pytest.raises(UsageError, match="not files of this machine") as caught:
        exported(table, "imagefolder", images="link")
    assert caught.value.hint == "Use --copy."


def test_hostile_paths_come_to_names_below_their_folder() -> None:
    clean = [path_name(name) for name in HOSTILE_PATHS]
    assert clean == ["x.png", "etc/passwd.png", "_con.png", "a_b.png", "windows/x.png", "_rf.png", "_hidden.png"]
    assert path_name("https://me:pw@host/a/b.jpg?x=1#2") == "host/a/b.jpg"
    assert path_name("") == path_name("../..") == path_name("/") == "_"


@pytest.mark.parametrize("flat", [False, True])
def test_two_images_that_come_to_one_name_are_both_there(table: Path, root: Path, flat: bool) -> None:
    names = ["a:b.png", "a|b.png", "a_b.png", "a_b.png/c.png"]
    (first, *_) = rows(root)
    for name in names[:3]:
        (root / name).write_bytes((root / first.uri).read_bytes())
    write_table(table, open_table(table).info, [replace(first, image_id=name, uri=name) for name in names[:3]])
    opened, settings = open_table(table), ExportSettings()
    examples = Examples(opened, settings)
    found = [name for _, name in placed(examples, opened, settings, lambda _: table.parent / "out", flat=flat)]
    assert len(set(found)) == 3
    assert found[0] == "a_b.png"
    assert all((table.parent / "out" / name).is_file() for name in found)


@pytest.mark.parametrize("format_", WITH_IMAGES)
def test_the_same_table_gives_the_same_bytes_and_changed_images_are_left_out(
    table: Path, root: Path, format_: str
) -> None:
    settings = {"split": SPLIT, "seed": 1}
    first = content(exported(table, format_, **settings))
    assert content(exported(table, format_, **settings)) == first
    (root / "sub/human.png").unlink()
    (root / "sub/nothing.jpg").write_bytes(b"other bytes")
    summary = export_table(table, format_, table.parent / "out", ExportSettings(images="copy"))
    assert summary.left_out == {"changed": 1, "failed": 1, "pending": 1, "vanished": 1}
    assert (summary.images, summary.labels, summary.human) == (2, 3, 0)


@pytest.mark.parametrize("format_", ["imagefolder", "webdataset"])
def test_a_folder_that_somebody_put_a_file_into_is_left_alone(table: Path, format_: str) -> None:
    out = exported(table, format_)
    (out / ".DS_Store").touch()  # a file manager does that
    exported(table, format_)
    (out / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds something else"):
        exported(table, format_)
    assert (out / "mine.txt").read_text() == "mine"


@reads_webdataset
def test_an_image_without_an_ending_gets_that_of_its_bytes(tmp_path: Path, root: Path) -> None:
    (first, *_) = rows(root)
    (root / "no ending").write_bytes((root / first.uri).read_bytes())
    table = written(tmp_path / "t.parquet", root, [replace(first, image_id="no ending", uri="no ending")])
    (line,) = (exported(table, "imagefolder") / "metadata.jsonl").read_text().splitlines()
    assert json.loads(line)["file_name"] == "no ending.png"
    (sample,) = samples(exported(table, "webdataset"))
    assert sample["png"].size == (8, 6)


def test_names_of_files_are_harmless_and_those_of_labels_differ() -> None:
    for name in (
        "",
        ".",
        "..",
        "a/b",
        "a\\b",
        "nul",
        "COM1.txt",
        "x\0y",
        "a\nb",
        "\u202egnp.exe",
        "-x",
        "~x",
        " ",
        "…" * 300,
        "x" * 300,
    ):
        clean = file_name(name)
        assert clean not in ("", ".", "..")
        assert not set(clean) & set('/\\:*?"<>|\0\n\u202e')
        assert len(clean.encode()) <= 120
        assert not clean.startswith((".", "-", "~"))
    labels = ["a/b", "a:b", "A_b", "..", ".", "", "dog", "Dog"]
    found = folder_names(labels)
    assert len({name.casefold() for name in found}) == len(labels)
    assert folder_names(labels[::-1]) == found[::-1]
