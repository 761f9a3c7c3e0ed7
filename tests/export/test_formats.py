"""Each export format, read by the tool that it is for. What all formats must do is in test_conformance."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pycocotools.coco import COCO

from tagllm_cli.errors import TableError, UsageError
from tagllm_cli.evaluation.truth import load_truth
from tagllm_cli.export import hf
from tagllm_cli.export.base import ExportSettings
from tagllm_cli.export.registry import FORMATS, export_table
from tagllm_cli.records import Decision, LabelEntry, Row, SourceInfo, Status
from tagllm_cli.store.table import TableInfo, open_table, write_table
from tagllm_cli.vocabulary.model import Label, Vocabulary

SALT = 'salt, "pepper"\n'
VOCABULARY = Vocabulary(
    "pets", (Label("dog", parent="animal"), Label("cat", parent="animal"), Label(SALT), Label("münze"))
)


def said(name: str, decision: str | None, score: float, source: str = "model") -> LabelEntry:
    return LabelEntry(name, Decision(decision) if decision else None, score=score, source=source)


ENTRIES: dict[str, tuple[LabelEntry, ...] | None] = {
    "a dog & cat.png": (said("cat", "yes", 0.9), said("dog", "yes", 0.7), said("münze", "no", 0.4)),
    "sub/nothing.jpg": (),
    "sub/ünsicher\n.png": (said("dog", "unknown", 1.0), said(SALT, "yes", 0.6)),
    "sub/human.png": (said("cat", "yes", 0.1, "human"), said("dog", "no", 1.0, "human")),
    "broken.jpg": None,
    "waiting.jpg": None,
}
LABELS = {
    "a dog & cat.png": ["dog", "cat"],
    "sub/nothing.jpg": [],
    "sub/ünsicher\n.png": [SALT],
    "sub/human.png": ["cat"],
}


def rows(root: Path) -> Iterator[Row]:
    for number, (name, entries) in enumerate(ENTRIES.items()):
        status = Status.OK if entries is not None else Status.FAILED if name == "broken.jpg" else Status.PENDING
        fingerprint = hashlib.blake2b((root / name).read_bytes(), digest_size=16).digest()
        yield Row(name, name, fingerprint, 8 + number, 6, status, None, entries)


def written(path: Path, root: Path, rows: Iterable[Row], stage: str = "labels", words: Vocabulary = VOCABULARY) -> Path:
    write_table(path, TableInfo(stage, SourceInfo("folder", str(root)), words), rows)
    return path


def one_row(*entries: LabelEntry) -> list[Row]:
    return [Row("1", "1", b"1", 4, 4, Status.OK, None, entries)]


def export(table: Path, format_: str, **settings: Any) -> Path:
    out = table.parent / f"out.{format_}"
    export_table(table, format_, out, ExportSettings(**settings))
    return out


def lines(table: Path, **settings: Any) -> dict[str, dict[str, Any]]:
    values = [json.loads(line) for line in export(table, "jsonl", **settings).read_text().splitlines()]
    return {value["image_id"]: value for value in values}


def load(out: Path, **options: Any) -> Any:
    return datasets.load_dataset(str(out), split="train", cache_dir=str(out.parent / "cache"), **options)


def content(path: Path) -> dict[Path, bytes | None]:
    return {each: each.read_bytes() if each.is_file() else None for each in (path, *sorted(path.rglob("*")))}


def test_coco_is_read_by_pycocotools(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coco = COCO(str(export(table, "coco")))
    capsys.readouterr()
    categories = [(each["id"], each["name"]) for each in coco.loadCats(coco.getCatIds())]
    assert categories == list(enumerate(VOCABULARY.names, 1))
    assert coco.getCatIds(supNms=["animal"]) == [1, 2]
    images = {each["file_name"]: each for each in coco.loadImgs(coco.getImgIds())}
    assert list(images) == list(LABELS)
    for name, labels in LABELS.items():
        found = coco.loadAnns(coco.getAnnIds(imgIds=[images[name]["id"]], iscrowd=False))
        assert [coco.cats[each["category_id"]]["name"] for each in found] == labels
        width, height = images[name]["width"], images[name]["height"]
        assert {(tuple(each["bbox"]), each["area"]) for each in found} <= {((0, 0, width, height), width * height)}
    assert [each["score"] for each in coco.loadAnns(coco.getAnnIds(imgIds=[1]))] == [0.7, 0.9]
    assert len(coco.anns) == 4


def test_csv_is_one_line_per_image_for_pandas(table: Path) -> None:
    frame = pd.read_csv(export(table, "csv"))
    assert frame["image_id"].tolist() == list(LABELS)
    hot = frame["labels"].str.get_dummies("|")
    assert hot.loc[0, ["cat", "dog"]].tolist() == [1, 1]
    assert hot.loc[1].sum() == 0
    assert frame["scores"].fillna("").tolist() == ["0.7|0.9", "", "0.6", "1.0"]  # a person said yes


@pytest.mark.parametrize("format_", ["coco", "csv"])
def test_an_export_is_a_truth(table: Path, format_: str) -> None:
    found = load_truth(export(table, format_)).labels
    assert found == {image: frozenset(names) for image, names in LABELS.items()}


ODD_IDS = (
    " lead.jpg",
    "trail.jpg ",
    "cr\r.jpg",
    "lf\n.jpg",
    "=1+1.jpg",
    "+x",
    "-x",
    "@x",
    "'=x",
    "'tis.jpg",
    "\tx",
    '"x",y.jpg',
)


@pytest.mark.parametrize("format_", ["coco", "csv"])
def test_odd_names_of_images_come_back_as_truth(table: Path, root: Path, format_: str) -> None:
    (first, *_) = rows(root)
    odd = [replace(first, image_id=name, uri=name, labels=(said("=dog", "yes", 0.5),)) for name in ODD_IDS]
    info = replace(open_table(table).info, vocabulary=Vocabulary("v", (Label("=dog"),)), plan={})
    write_table(table, info, odd)
    assert load_truth(export(table, format_)).labels == dict.fromkeys(ODD_IDS, frozenset({"=dog"}))


def test_no_cell_of_csv_is_a_formula(table: Path, root: Path) -> None:
    (first, *_) = rows(root)
    names = [name for name in ODD_IDS if name[0] in "=+-@\t"]
    write_table(table, open_table(table).info, [replace(first, image_id=name, uri=name) for name in names])
    written_lines = export(table, "csv").read_text(encoding="utf-8").splitlines()
    assert [line.split('",')[0] for line in written_lines[1:]] == [f"\"'{name}" for name in names]


@pytest.mark.parametrize("uri", ["../secret.jpg", "/etc/passwd", "a/../../b.jpg"])
@pytest.mark.parametrize("format_", [name for name in FORMATS if name != "yolo-cls"])  # whose images have one label
def test_a_path_out_of_the_images_folder_is_left_out(table: Path, root: Path, format_: str, uri: str) -> None:
    first, second, *_ = rows(root)
    write_table(table, open_table(table).info, [first, replace(second, image_id="x", uri=uri, labels=())])
    summary = export_table(table, format_, table.with_name("out"), ExportSettings())
    assert (summary.images, dict(summary.left_out)) == (1, {"bad_name": 1})


def test_jsonl_says_all_that_is_known(table: Path) -> None:
    found = lines(table)
    assert {image: value["labels"] for image, value in found.items()} == LABELS
    assert found["sub/ünsicher\n.png"]["unknown"] == ["dog"]
    assert found["a dog & cat.png"] == {
        "image_id": "a dog & cat.png",
        "file_name": "a dog & cat.png",
        "width": 8,
        "height": 6,
        "labels": ["dog", "cat"],
        "scores": [0.7, 0.9],
        "unknown": [],
    }


def test_jsonl_beside_the_images_is_an_imagefolder(table: Path, root: Path) -> None:
    (root / "broken.jpg").unlink()
    (root / "waiting.jpg").unlink()
    export(table, "jsonl").rename(root / "metadata.jsonl")
    loaded = datasets.load_dataset(
        "imagefolder", data_dir=str(root), split="train", cache_dir=str(root.parent / "cache")
    )
    found = {example["image_id"]: (example["labels"], example["image"].size) for example in loaded}
    assert found["a dog & cat.png"] == (["dog", "cat"], (8, 6))
    assert len(found) == len(LABELS)


@pytest.mark.parametrize("streaming", [False, True])
def test_hf_is_read_by_datasets(table: Path, root: Path, streaming: bool) -> None:
    loaded = load(export(table, "hf"), streaming=streaming)
    assert loaded.features["labels"].feature.names == list(VOCABULARY.names)
    found = {example["image_id"]: example for example in loaded}
    names = loaded.features["labels"].feature.int2str
    assert {image: names(example["labels"]) for image, example in found.items()} == LABELS
    for image, example in found.items():
        with Image.open(root / image) as original:
            assert example["image"].convert("RGB").tobytes() == original.convert("RGB").tobytes()
    assert names(found["sub/ünsicher\n.png"]["unknown"]) == ["dog"]
    assert found["a dog & cat.png"]["scores"] == pytest.approx([0.7, 0.9])


def test_hf_is_whole_without_the_images_unless_they_are_linked(table: Path, root: Path, tmp_path: Path) -> None:
    copied = export(table, "hf").rename(tmp_path / "copied")
    linked = export(table, "hf", images="reference")
    assert {example["image"].size for example in load(linked)} == {(8, 6), (9, 6), (10, 6), (11, 6)}
    root.rename(tmp_path / "away")
    assert {example["image"].size for example in load(copied)} == {(8, 6), (9, 6), (10, 6), (11, 6)}
    assert not any(str(tmp_path).encode() in shard.read_bytes() for shard in (copied / "data").iterdir())
    with pytest.raises(FileNotFoundError):
        load(linked)[0]


def test_hf_comes_in_shards_and_row_groups(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hf, "GROUP_ROWS", 1)
    monkeypatch.setattr(hf, "SHARD_BYTES", 1)
    out = export(table, "hf")
    assert sorted(path.name for path in (out / "data").iterdir()) == [
        f"train-0000{n}-of-00004.parquet" for n in range(4)
    ]
    monkeypatch.setattr(hf, "SHARD_BYTES", 1 << 20)
    shard = next((export(table, "hf") / "data").iterdir())
    assert pq.ParquetFile(shard).num_row_groups == 4
    assert [example["image_id"] for example in load(out)] == list(LABELS)


def test_hf_leaves_out_images_that_changed_or_vanished(table: Path, root: Path, tmp_path: Path) -> None:
    (root / "sub/human.png").unlink()
    (root / "sub/nothing.jpg").write_bytes((root / "broken.jpg").read_bytes())
    summary = export_table(table, "hf", tmp_path / "out", ExportSettings())
    assert (summary.images, summary.labels, summary.unknown) == (2, 3, 1)
    assert summary.left_out == {"changed": 1, "failed": 1, "pending": 1, "vanished": 1}
    assert [example["image_id"] for example in load(tmp_path / "out")] == ["a dog & cat.png", "sub/ünsicher\n.png"]


def test_hf_reads_images_where_they_are_now(table: Path, root: Path, tmp_path: Path) -> None:
    moved = root.rename(tmp_path / "moved")
    assert len(load(export(table, "hf", root=str(moved)))) == len(LABELS)
    (tmp_path / "empty").mkdir()
    before = content(tmp_path)
    for wrong in (root, tmp_path / "empty"):
        with pytest.raises(UsageError):
            export_table(table, "hf", tmp_path / "other", ExportSettings(root=str(wrong)))
    assert content(tmp_path) == before


def test_threshold_and_unknown_decide_what_is_a_label(table: Path) -> None:
    def labels(**settings: Any) -> dict[str, list[str]]:
        return {image: value["labels"] for image, value in lines(table, **settings).items()}

    assert labels(threshold=0.39)["a dog & cat.png"] == ["dog", "cat", "münze"]
    assert labels(threshold=0.4)["a dog & cat.png"] == ["dog", "cat"]  # only above it, as `disambiguate` decides
    assert labels(threshold=0.8)["a dog & cat.png"] == ["cat"]
    # Human decisions stand, and an undecided label is not made one by the arms' votes.
    assert labels(threshold=0.65)["sub/human.png"] == ["cat"]
    assert labels(threshold=0.65)["sub/ünsicher\n.png"] == []
    assert labels(unknown="yes")["sub/ünsicher\n.png"] == ["dog", SALT]
    for nothing in (1.0, 1.5, -0.1):
        with pytest.raises(UsageError, match="is not from 0 to below 1"):
            labels(threshold=nothing)


def test_a_candidate_table_needs_a_threshold(tmp_path: Path, root: Path) -> None:
    entries = (said("cat", None, 1.0), said("dog", None, 0.5), said("münze", "unknown", 0.0))
    proposed = written(tmp_path / "candidates.parquet", root, one_row(*entries), "candidates")
    with pytest.raises(UsageError, match="candidate table"):
        lines(proposed)
    assert lines(proposed, threshold=0.4)["1"]["labels"] == ["dog", "cat"]
    assert lines(proposed, threshold=0.5)["1"]["labels"] == ["cat"]


def test_what_cannot_be_exported_is_one_line(table: Path, tmp_path: Path, root: Path) -> None:
    with pytest.raises(UsageError, match="yolo"):
        export(table, "yolo")
    with pytest.raises(TableError):
        export(tmp_path / "none.parquet", "coco")
    with pytest.raises(TableError, match="zebra"):
        export(written(tmp_path / "odd.parquet", root, one_row(said("zebra", "yes", 1.0))), "csv")
    bars = written(tmp_path / "bars.parquet", root, [], words=Vocabulary("bars", (Label("a|b"),)))
    with pytest.raises(UsageError, match=r"a\|b"):
        export(bars, "csv")
    for out in (table / "below a file", Path("/proc/nowhere/out"), tmp_path / ("x" * 300)):
        with pytest.raises(UsageError, match="cannot write"):
            export_table(table, "csv", out, ExportSettings())


def test_the_earlier_folder_comes_back_when_the_new_one_cannot_take_its_place(
    table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = content(export(table, "hf"))
    rename = Path.rename

    def refused(path: Path, target: Path) -> Path:
        if path.name == "new":
            raise PermissionError(1, "refused")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(UsageError, match="cannot write"):
        export(table, "hf")
    assert content(table.parent / "out.hf") == before
