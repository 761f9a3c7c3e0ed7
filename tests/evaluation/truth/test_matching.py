"""How images and label names of the truth find their partners in the table."""

from __future__ import annotations

import unicodedata
from typing import Literal

import pytest

from tagllm_cli.evaluation.truth import Truth, match_images, match_names
from tagllm_cli.vocabulary.model import Label, Vocabulary


def truth(*keys: str, names: tuple[str, ...] = ("cat",)) -> Truth:
    return Truth({key: frozenset() for key in keys}, names, exhaustive=True)


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
        # Dots that are no ending stay; endings of images do not have to be written.
        (["2026-05-01 12.30.15"], ["2026-05-01 12.30.15.jpg"], {"2026-05-01 12.30.15.jpg": "2026-05-01 12.30.15"}),
        (["v1.2", "v1.3"], ["v1.2.png", "v1.3.png"], {"v1.2.png": "v1.2", "v1.3.png": "v1.3"}),
        (["a/1"], ["photos/a/1.jpg", "photos/b/1.jpg"], {"photos/a/1.jpg": "a/1"}),
        # Some match exactly, others in another spelling: both count.
        (["1.jpg", "2"], ["1.jpg", "2.jpg"], {"1.jpg": "1.jpg", "2.jpg": "2"}),
        (["A.JPG", "b.jpg"], ["a.jpg", "b.jpg"], {"a.jpg": "A.JPG", "b.jpg": "b.jpg"}),
        (["A.jpg"], ["a.jpg", "a.JPG"], {}),
        (["x.jpg", "X.jpg"], ["x.jpg", "X.JPG"], {"x.jpg": "x.jpg", "X.JPG": "X.jpg"}),
        # Another format is another file, unless the whole folder was converted.
        (["1.jpg", "2.jpg"], ["1.jpg", "2.png"], {"1.jpg": "1.jpg"}),
        (["1.jpg", "2.jpeg"], ["1.jpg", "2.jpg"], {"1.jpg": "1.jpg", "2.jpg": "2.jpeg"}),
        (["1.jpg", "2.jpg"], ["1.webp", "2.webp"], {"1.webp": "1.jpg", "2.webp": "2.jpg"}),
        # The longest end that is there counts.
        (
            ["/data/val/1.jpg", "/data/1.jpg"],
            ["val/1.jpg", "1.jpg"],
            {"val/1.jpg": "/data/val/1.jpg", "1.jpg": "/data/1.jpg"},
        ),
        # Images in shards are named by file name or path, where that is clear.
        (["1.jpg"], ["00000.tar/1.jpg", "00001.tar/2.jpg"], {"00000.tar/1.jpg": "1.jpg"}),
        (["1.jpg"], ["00000.tar/1.jpg", "00001.tar/1.jpg"], {}),
        (
            ["/data/a/1.jpg", "/data/b/1", "2.jpg"],
            ["0.tar/a/1.jpg", "x/1.parquet/b/1.JPG", "2.jpg"],
            {"0.tar/a/1.jpg": "/data/a/1.jpg", "x/1.parquet/b/1.JPG": "/data/b/1", "2.jpg": "2.jpg"},
        ),
        (["1.tar/1.jpg", "0.tar/2.jpg"], ["0.tar/1.jpg", "0.tar/2.jpg"], {"0.tar/2.jpg": "0.tar/2.jpg"}),
        (["train/0.parquet/12"], ["0.parquet/12", "0.parquet/2"], {"0.parquet/12": "train/0.parquet/12"}),
        # Addresses.
        (["/data/local-files/?d=photos/a/1.jpg"], ["a/1.jpg"], {"a/1.jpg": "/data/local-files/?d=photos/a/1.jpg"}),
        (["/data/upload/7/0a1b2c3d-1.jpg"], ["a/1.jpg"], {"a/1.jpg": "/data/upload/7/0a1b2c3d-1.jpg"}),
        (["https://host/a%20b/1.jpg?sig=x"], ["a b/1.jpg"], {"a b/1.jpg": "https://host/a%20b/1.jpg?sig=x"}),
        (["s3://bucket/a/1.jpg"], ["a/1.jpg"], {"a/1.jpg": "s3://bucket/a/1.jpg"}),
        (["s3://bucket/a/#1?.jpg"], ["a/#1?.jpg"], {"a/#1?.jpg": "s3://bucket/a/#1?.jpg"}),
        (["http://[bad/1.jpg"], ["1.jpg"], {"1.jpg": "http://[bad/1.jpg"}),
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


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_file_names_match_in_any_unicode_form(form: Literal["NFC", "NFD"]) -> None:
    names = [unicodedata.normalize("NFC", name) for name in ("caf\u00e9.jpg", "b/\u00fc\u00df.png", "\ud55c\uad6d.jpg")]
    key = [unicodedata.normalize(form, name) for name in names]
    image = [unicodedata.normalize("NFD" if form == "NFC" else "NFC", name) for name in names]
    assert match_images(truth(*key), image).keys == dict(zip(image, key, strict=True))
    stems = [name.rpartition(".")[0] for name in key]
    assert match_images(truth(*stems), image).keys == dict(zip(image, stems, strict=True))


def test_matched_images_come_in_the_order_of_the_table() -> None:
    ids = [f"{number}.jpg" for number in range(50)]
    match = match_images(truth(*(f"x/{image}" for image in reversed(ids))), ids)
    assert list(match.keys) == ids
    assert match.overlap == 1.0


def test_overlap_is_the_share_of_the_images_of_the_truth() -> None:
    assert match_images(truth("1.jpg", "2.jpg", "3.jpg", "4.jpg"), ["1.jpg", "9.jpg"]).overlap == 0.25
