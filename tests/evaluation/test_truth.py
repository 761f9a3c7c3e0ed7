"""Truth files of every format, what is wrong with broken ones, and how names and images find their partners."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tagllm_cli.errors import TableError, UsageError
from tagllm_cli.evaluation.truth import Truth, load_truth, match_images, match_names
from tagllm_cli.records import Decision, LabelEntry, Row, SourceInfo, Status
from tagllm_cli.store.table import TableInfo, write_table
from tagllm_cli.vocabulary.model import Label, Vocabulary

COCO: dict[str, Any] = {
    "images": [
        {"id": 1, "file_name": "val/1.jpg"},
        {"id": 2, "file_name": "val/2.jpg"},
        {"id": 3, "file_name": "val/3.jpg"},
    ],
    "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}, {"id": 9, "name": "boat"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 3, "iscrowd": 0, "segmentation": [[0.5, 1.5, 2.5]]},
        {"id": 2, "image_id": 1, "category_id": 3, "iscrowd": 0},
        {"id": 3, "image_id": 2, "category_id": 7, "iscrowd": 1, "segmentation": {"counts": [1, 2], "size": [1, 3]}},
        {"id": 4, "image_id": 2, "category_id": 3, "iscrowd": 0},
    ],
}
EXPECTED = {"a.jpg": frozenset({"cat", "dog"}), "b.jpg": frozenset({"hot dog"}), "c.jpg": frozenset()}


def truth_of(tmp_path: Path, text: str | bytes, name: str = "truth.csv") -> Truth:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_truth(path)


def truth(*keys: str, names: tuple[str, ...] = ("cat",)) -> Truth:
    return Truth({key: frozenset() for key in keys}, names, exhaustive=True)


def test_coco_counts_crowds_as_present_and_images_without_annotations_as_negatives(tmp_path: Path) -> None:
    found = truth_of(tmp_path, json.dumps(COCO), "instances.json")
    assert found.labels == {"val/1.jpg": {"cat"}, "val/2.jpg": {"cat", "dog"}, "val/3.jpg": frozenset()}
    assert found.names == ("dog", "cat", "boat")
    assert found.exhaustive


def test_coco_without_file_names_is_keyed_by_number(tmp_path: Path) -> None:
    images = [{"id": image["id"]} for image in COCO["images"]]
    assert set(truth_of(tmp_path, json.dumps({**COCO, "images": images})).labels) == {"1", "2", "3"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"annotations": [{"image_id": 1, "caption": "a cat"}]}, "category_id"),
        ({"annotations": [{"image_id": 99, "category_id": 3}]}, "99"),
        ({"annotations": [{"image_id": 1, "category_id": 99}]}, "99"),
        ({"annotations": None}, "COCO"),
        ({"images": [1, 2]}, "COCO"),
        ({"images": []}, "any image"),
        ({"categories": [{"id": 3}]}, "name"),
    ],
)
def test_malformed_coco_is_one_line(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    if "images" in change and not change["images"]:
        change = {**change, "annotations": []}
    with pytest.raises(UsageError, match=said):
        truth_of(tmp_path, json.dumps({**COCO, **change}), "instances.json")


@pytest.mark.parametrize("text", ['{"images": [', "[1, 2", "[1, 2]", '{"images": []}', "[" * 100_000])
def test_json_that_is_not_coco_is_one_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match=r"truth\.json"):
        truth_of(tmp_path, text, "truth.json")


@pytest.mark.parametrize(
    "text",
    [
        "image,label\na.jpg,cat\na.jpg,dog\nb.jpg,hot dog\nc.jpg,\na.jpg,cat\n",
        "split,Label,Image\nval,cat,a.jpg\nval,dog,a.jpg\nval,hot dog,b.jpg\nval,,c.jpg\n",
        "file_name,labels\na.jpg,cat|dog\nb.jpg,hot dog\nc.jpg,\n",
        "file_name,labels\r\n\r\na.jpg,cat; dog\r\nb.jpg,hot dog\r\nc.jpg,\r\n",
        'image_id,tags\na.jpg,"[""cat"", ""dog""]"\nb.jpg,"[""hot dog""]"\nc.jpg,[]\n',
        "image\tlabels\na.jpg\tcat|dog\nb.jpg\thot dog\nc.jpg\t\n",
        "image;labels\na.jpg;cat|dog\nb.jpg;hot dog\nc.jpg;\n",
        "image,cat,dog,hot dog\na.jpg,1,1,0\nb.jpg,0,0,1\nc.jpg,0,0,0\n",
        ",filename,cat,dog,hot dog\n0,a.jpg,True,1.0,False\n1,b.jpg,False,0.0,TRUE\n2,c.jpg,False,0.0,False\n",
        b"\xef\xbb\xbfimage,label\na.jpg,cat\na.jpg,dog\nb.jpg,hot dog\nc.jpg,\n",
    ],
)
def test_every_csv_layout_says_the_same(tmp_path: Path, text: str | bytes) -> None:
    found = truth_of(tmp_path, text)
    assert found.labels == EXPECTED
    assert set(found.names) == {"cat", "dog", "hot dog"}


def test_only_a_wide_csv_names_labels_that_never_occur(tmp_path: Path) -> None:
    wide = truth_of(tmp_path, "image,cat,dog\na.jpg,1,0\n")
    long = truth_of(tmp_path, "image,label\na.jpg,cat\n")
    assert (wide.names, wide.exhaustive) == (("cat", "dog"), True)
    assert (long.names, long.exhaustive) == (("cat",), False)


def test_a_bar_in_the_file_leaves_semicolons_to_the_names(tmp_path: Path) -> None:
    found = truth_of(tmp_path, "image,labels\na.jpg,salt; pepper|[cat]\nb.jpg,[cat]\n")
    assert found.labels == {"a.jpg": {"salt; pepper", "[cat]"}, "b.jpg": {"[cat]"}}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("picture,cat\na.jpg,1\n", "line 1: the header names no column for the image"),
        ("image\na.jpg\n", "no column of labels"),
        ("image,cat\na.jpg,1\nb.jpg,maybe\n", "line 3: 'maybe' in column 'cat'"),
        ("image,cat\na.jpg,\n", "line 2: '' in column 'cat'"),
        ("image,label\na.jpg,cat,dog\n", "line 2: 3 fields where the header has 2"),
        ("image,label\n,cat\n", "line 2: there is no image"),
        ("image,label\n", "says nothing about any image"),
        ("", "the header names no column"),
        (b"image,label\n\xff\xfe,cat\n", "neither JSON, Parquet nor CSV in UTF-8"),
        ('image,label\n"a.jpg"x,cat\n', "neither JSON, Parquet nor CSV"),
        (b"\x89PNG\r\n\x1a\n" + bytes(64), "UTF-8"),
    ],
)
def test_malformed_csv_is_one_line(tmp_path: Path, text: str | bytes, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        truth_of(tmp_path, text)


def test_missing_files_and_folders_are_usage_errors(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.json"):
        with pytest.raises(UsageError, match="no truth file"):
            load_truth(path)


def label_table(path: Path, stage: str) -> Path:
    entries = tuple(LabelEntry(name, decision, score=0.5) for name, decision in zip("abc", Decision, strict=True))
    rows = [
        Row("1.jpg", "1.jpg", b"1", 4, 4, Status.OK, None, entries, ()),
        Row("2.jpg", "2.jpg", b"2", 4, 4, Status.OK, None, (), ()),
        Row("3.jpg", "3.jpg", b"", 0, 0, Status.FAILED, "empty_file: 0 bytes", None),
        Row("4.jpg", "4.jpg", b"", 0, 0, Status.PENDING, None, None),
    ]
    labels = tuple(Label(name) for name in "abcd")
    write_table(path, TableInfo(stage, SourceInfo("folder", "/images"), Vocabulary("letters", labels)), rows)
    return path


def test_a_label_table_is_truth_where_it_has_an_answer(tmp_path: Path) -> None:
    found = load_truth(label_table(tmp_path / "labels.parquet", "labels"))
    assert found == Truth(
        {"1.jpg": frozenset("a"), "2.jpg": frozenset()}, tuple("abcd"), True, {"1.jpg": frozenset("c")}
    )


def test_other_parquet_is_no_truth(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="candidate table"):
        load_truth(label_table(tmp_path / "candidates.parquet", "candidates"))
    with pytest.raises(TableError):
        truth_of(tmp_path, b"PAR1 and nothing else", "broken.parquet")


def test_names_match_exactly_then_by_case_then_by_synonym() -> None:
    labels = (
        Label("traffic light", synonyms=("stoplight",)),
        Label("TV", synonyms=("Monitor",)),
        Label("screen", synonyms=("monitor",)),
        Label("tv stand"),
        Label("Cat"),
        Label("cat"),
        Label("sofa", synonyms=("couch",)),
        Label("couch"),
    )
    said = ("Traffic_Light", "StopLight", "tv", "monitor", "CAT", "cat", "Couch", "tv-stand", "zebra")
    match = match_names(truth("1", names=said), Vocabulary("names", labels))
    assert match.in_vocabulary == {
        "Traffic_Light": "traffic light",
        "StopLight": "traffic light",
        "tv": "TV",
        "cat": "cat",
        "Couch": "couch",
        "tv-stand": "tv stand",
    }
    assert match.not_in_vocabulary == ("monitor", "CAT", "zebra")
    assert match.not_in_truth == ("screen", "Cat", "sofa")


@pytest.mark.parametrize(
    ("keys", "ids", "pairs"),
    [
        (["a/1.jpg", "a/2.jpg"], ["a/1.jpg", "a/2.jpg"], {"a/1.jpg": "a/1.jpg", "a/2.jpg": "a/2.jpg"}),
        (["1.jpg", "2.jpg"], ["1.jpg", "sub/2.jpg"], {"1.jpg": "1.jpg", "sub/2.jpg": "2.jpg"}),
        (["/data/val/1.jpg"], ["val/1.jpg"], {"val/1.jpg": "/data/val/1.jpg"}),
        (["val\\1.jpg", "./2.jpg"], ["val/1.jpg", "2.jpg"], {"val/1.jpg": "val\\1.jpg", "2.jpg": "./2.jpg"}),
        # Two images with one name: neither is guessed.
        (["1.jpg", "2.jpg"], ["a/1.jpg", "b/1.jpg", "2.jpg"], {"2.jpg": "2.jpg"}),
        (["a/1.jpg", "b/1.jpg"], ["1.jpg"], {}),
        # Names alone count only where paths match nowhere.
        (["old/1.jpg", "old/2.jpg"], ["new/1.jpg", "new/2.jpg"], {"new/1.jpg": "old/1.jpg", "new/2.jpg": "old/2.jpg"}),
        (["old/1.jpg", "new/2.jpg"], ["new/1.jpg", "new/2.jpg"], {"new/2.jpg": "new/2.jpg"}),
        (
            ["42", "139"],
            ["val/000000000042.jpg", "000000000139.png"],
            {"val/000000000042.jpg": "42", "000000000139.png": "139"},
        ),
        (["a1"], ["a1.jpg", "a1.png"], {}),
        (["11.jpg"], ["1.jpg"], {}),
    ],
)
def test_images_match_one_to_one(keys: list[str], ids: list[str], pairs: dict[str, str]) -> None:
    match = match_images(truth(*keys), ids)
    assert match.keys == pairs
    assert set(match.not_in_table) == set(keys) - set(pairs.values())
    assert set(match.not_in_truth) == set(ids) - set(pairs)


def test_many_images_of_one_name_match_by_path() -> None:
    keys = [f"/data/{number}/image.jpg" for number in range(20_000)]
    ids = [f"{number}/image.jpg" for number in range(20_000)]
    match = match_images(truth(*keys), ids)
    assert match.keys == dict(zip(ids, keys, strict=True))
