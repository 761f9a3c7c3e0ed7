"""The options that all exports share: labels, least probability, undecided labels, splits, images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tagllm_cli.errors import SourceError, UsageError
from tagllm_cli.export.base import ExportSettings
from tagllm_cli.export.registry import FORMATS, export_table, outputs
from tagllm_cli.export.settings import chosen_images, chosen_unknown, label_names, shard_size
from tagllm_cli.export.splits import Splits, parse_shares
from tagllm_cli.records import LabelEntry, Row, SourceInfo
from tagllm_cli.store.table import TableInfo, open_table, write_table
from tests.export.test_conformance import READERS, every_format
from tests.export.test_formats import LABELS, SALT, VOCABULARY, lines, one_row, rows, said, written
from tests.support.parquet_files import put

SHARES = (("train", 0.6), ("val", 0.2), ("test", 0.2))


def split_of_each(table: Path, **settings: Any) -> dict[str, str]:
    """The split of each image, by its id."""
    out = table.with_name("split.jsonl")
    settings = {"split": SHARES, **settings}
    export_table(table, "jsonl", out, ExportSettings(**settings))
    found: dict[str, str] = {}
    for name, path in outputs("jsonl", out, ExportSettings(**settings)).items():
        labels, _ = READERS["jsonl"](path)
        assert not found.keys() & labels.keys()
        found |= dict.fromkeys(labels, name)
    return found


def numbered(table: Path, count: int, folders: int = 1) -> Path:
    """Write a table of so many images without labels, of other fingerprints each."""
    info = TableInfo("labels", SourceInfo("folder", "images"), VOCABULARY)
    write_table(table, info, (image(number, f"{number % folders}/{number}.jpg") for number in range(count)))
    return table


def image(number: int, name: str) -> Row:
    (row,) = one_row()
    return replace(row, image_id=name, uri=name, fingerprint=number.to_bytes(16, "big"))


@every_format
def test_only_the_labels_that_are_named_are_exported_under_their_numbers(table: Path, format_: str) -> None:
    out = table.parent / "out"
    info = replace(open_table(table).info, plan={"label_ids": {"dog": 7, "cat": 3, SALT: 1, "münze": 9}})
    write_table(table, info, list(open_table(table).rows()))
    summary = export_table(table, format_, out, ExportSettings(labels=("cat", "münze")))
    found, numbers = READERS[format_](out)
    assert found == {image: [name for name in names if name == "cat"] for image, names in LABELS.items()}
    assert numbers.keys() <= {"cat", "münze"}
    assert (summary.labels, summary.unknown) == (2, 0)
    if format_ in ("coco", "numpy"):
        assert numbers == {"cat": 3 + (format_ == "coco"), "münze": 9 + (format_ == "coco")}


@every_format
def test_a_label_that_the_table_lacks_is_refused_with_names_like_it(table: Path, format_: str) -> None:
    with pytest.raises(UsageError, match="has no label 'catt'") as caught:
        export_table(table, format_, table.parent / "out", ExportSettings(labels=("dog", "catt")))
    assert caught.value.hint == "Did you mean 'cat'?"
    assert not (table.parent / "out").exists()


def test_labels_are_named_by_a_file_too(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("# mine\ndog\n\n cat, or kitten \n", encoding="utf-8")
    assert label_names(["cow", f"@{tmp_path / 'names.txt'}"]) == ("cow", "dog", "cat, or kitten")
    (tmp_path / "empty.txt").write_text("# nothing\n", encoding="utf-8")
    for name in ("empty.txt", "missing.txt"):
        with pytest.raises(UsageError):
            label_names([f"@{tmp_path / name}"])


@every_format
def test_a_yes_that_is_not_sure_enough_is_undecided_and_a_persons_stands(table: Path, format_: str) -> None:
    out = table.parent / "out"
    summary = export_table(table, format_, out, ExportSettings(min_probability=0.8))
    assert READERS[format_](out)[0] == {image: ["cat"] if "cat" in names else [] for image, names in LABELS.items()}
    assert (summary.labels, summary.unknown) == (2, 3)


def test_the_least_probability_is_one_of_the_probability_where_there_is_one(tmp_path: Path, root: Path) -> None:
    sure = replace(said("cat", "yes", 0.1), probability=0.9)
    unsure = replace(said("dog", "yes", 0.9), probability=0.4)
    one = written(tmp_path / "one.parquet", root, one_row(sure, unsure))
    (found,) = lines(one, min_probability=0.4).values()
    assert (found["labels"], found["unknown"]) == (["dog", "cat"], [])  # 0.4 is enough
    (found,) = lines(one, min_probability=0.41).values()
    assert (found["labels"], found["unknown"]) == (["cat"], ["dog"])


@every_format
def test_images_with_undecided_labels_are_dropped_and_counted(table: Path, format_: str) -> None:
    out = table.parent / "out"
    summary = export_table(table, format_, out, ExportSettings(unknown="drop"))
    assert READERS[format_](out)[0] == {image: names for image, names in LABELS.items() if SALT not in names}
    assert summary.left_out == {"failed": 1, "pending": 1, "undecided": 1}
    assert (summary.images, summary.labels, summary.unknown) == (3, 3, 0)
    ours = ExportSettings(unknown="drop", labels=("cat",))  # what is undecided is another label
    assert export_table(table, format_, out, ours).images == 4


@every_format
def test_keeping_undecided_labels_is_refused_where_they_would_be_taken_for_absent(table: Path, format_: str) -> None:
    out = table.parent / "out"
    if FORMATS[format_].holds_unknown:
        assert export_table(table, format_, out, ExportSettings(unknown="keep")).unknown == 1
    else:
        with pytest.raises(UsageError, match="cannot tell undecided labels from absent ones"):
            export_table(table, format_, out, ExportSettings(unknown="keep"))


@every_format
def test_undecided_labels_count_as_yes_where_that_is_wanted_except_a_persons(table: Path, format_: str) -> None:
    undecided = said("dog", "unknown", 0.3), said("cat", "unknown", 0.3, "human")
    write_table(table, open_table(table).info, [replace(next(open_table(table).rows()), labels=undecided)])
    summary = export_table(table, format_, table.parent / "out", ExportSettings(unknown="yes"))
    assert list(READERS[format_](table.parent / "out")[0].values()) == [["dog"]]
    assert (summary.labels, summary.unknown) == (1, 1)


@every_format
def test_every_image_is_in_one_split_and_what_is_left_out_is_counted_once(table: Path, format_: str) -> None:
    out = table.parent / "out"
    settings = ExportSettings(split=(("train", 0.5), ("test", 0.5)), seed=3)
    summary = export_table(table, format_, out, settings)
    places = outputs(format_, out, settings)
    found = [READERS[format_](place)[0] for place in places.values()]
    assert {image: labels for each in found for image, labels in each.items()} == LABELS
    assert sum(map(len, found)) == len(LABELS)
    assert sum(summary.splits.values()) == summary.images == 4
    assert list(summary.splits) == ["train", "test"]
    assert summary.left_out == {"failed": 1, "pending": 1}
    assert all(path.is_file() for path in summary.files)
    assert len(places) == (1 if FORMATS[format_].lays_out_splits else 2)


def test_the_split_of_an_image_does_not_change_when_others_are_added(tmp_path: Path) -> None:
    few = split_of_each(numbered(tmp_path / "few.parquet", 300))
    many = split_of_each(numbered(tmp_path / "many.parquet", 900))
    assert {name: many[name] for name in few} == few
    shares = {name: list(many.values()).count(name) / len(many) for name, _ in SHARES}
    assert shares == pytest.approx(dict(SHARES), abs=0.05)
    assert split_of_each(numbered(tmp_path / "few.parquet", 300), seed=1) != few


def test_copies_of_an_image_stay_together_and_so_do_the_images_of_a_folder(tmp_path: Path) -> None:
    table = numbered(tmp_path / "t.parquet", 400, folders=40)
    copies = [row for each in open_table(table).rows() for row in (each, replace(each, image_id=f"z/{each.image_id}"))]
    write_table(tmp_path / "copies.parquet", open_table(table).info, copies)
    found = split_of_each(tmp_path / "copies.parquet")
    assert all(found[f"z/{name}"] == split for name, split in found.items() if not name.startswith("z/"))
    by_folder: dict[str, set[str]] = {}
    for name, split in split_of_each(table, group_by="folder").items():
        by_folder.setdefault(name.partition("/")[0], set()).add(split)
    assert {len(splits) for splits in by_folder.values()} == {1}
    assert set.union(*by_folder.values()) == {"train", "val", "test"}


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_images_with_one_value_of_a_column_stay_together(tmp_path: Path, kind: str) -> None:
    names = [f"{number:03}.jpg" for number in range(120)]
    wards = [f"ward {number % 30}" for number in range(120)]
    if kind == "csv":
        text = "".join(f"{name},{ward}\n" for name, ward in zip(names, wards, strict=True))
        (tmp_path / "list.csv").write_text(f"path,ward\n{text}")
    elif kind == "jsonl":
        text = "".join(f'{{"path": "{name}", "ward": "{ward}"}}\n' for name, ward in zip(names, wards, strict=True))
        (tmp_path / "list.jsonl").write_text(text)
    else:
        put(tmp_path, {"path": names, "ward": wards}, "list.parquet")
    for name in names:
        (tmp_path / name).touch()
    source = SourceInfo("parquet" if kind == "parquet" else "manifest", str(tmp_path), {"pattern": f"list.{kind}"})
    uris = [f"list.parquet#{number}" if kind == "parquet" else name for number, name in enumerate(names)]
    listed = [replace(image(number, name), uri=uris[number]) for number, name in enumerate(names)]
    table = tmp_path / "t.parquet"
    write_table(table, TableInfo("labels", source, VOCABULARY), listed)
    found = split_of_each(table, group_by="ward")
    by_ward: dict[str, set[str]] = {}
    for name, ward in zip(names, wards, strict=True):
        by_ward.setdefault(ward, set()).add(found[name])
    assert {len(splits) for splits in by_ward.values()} == {1}
    assert set.union(*by_ward.values()) == {"train", "val", "test"}
    with pytest.raises(SourceError, match="no column 'clinic'") as caught:
        split_of_each(table, group_by="clinic")
    assert "--group-by" in caught.value.hint


def test_folders_have_no_columns_and_one_group_is_said(table: Path, root: Path) -> None:
    with pytest.raises(UsageError, match=r"is a column, and the images of .* have none"):
        split_of_each(table, group_by="ward")
    info = open_table(table).info
    write_table(table, info, [row for row in rows(root) if row.image_id.startswith("sub/")])
    settings = ExportSettings(split=SHARES, group_by="folder")
    notes = export_table(table, "jsonl", table.with_name("o"), settings).notes
    assert notes == ("all images are in one group by folder, and so in one split",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("train=.8", "sum to 0.8"),
        ("train=.8,val=.3", "sum to 1.1"),
        ("train=1.5,val=-.5", "not above 0"),
        ("train=nan,val=.5", "not above 0"),
        ("train", "NAME=SHARE"),
        ("../x=.5,b=.5", "cannot be the name"),
        ("=1", "cannot be the name"),
        ("a=.5,A=.5", "one split twice"),
    ],
)
def test_shares_that_make_no_sense_are_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_shares(text)


def test_shares_sum_to_one_as_people_write_it() -> None:
    assert parse_shares("a=.333333,b=.333333,c=.333334")[2] == ("c", 0.333334)
    thirds = Splits.of((("a", 1 / 3), ("b", 1 / 3), ("c", 1 / 3)))
    assert {thirds.split_of(bytes([number])) for number in range(100)} == {"a", "b", "c"}


@every_format
def test_what_a_format_cannot_do_with_images_is_refused(table: Path, format_: str) -> None:
    for mode in {"copy", "link", "reference"} - set(FORMATS[format_].image_modes):
        with pytest.raises(UsageError, match=f"holds no images|cannot {mode} images"):
            export_table(table, format_, table.parent / "out", ExportSettings(images=mode))
    if not FORMATS[format_].has_shards:
        with pytest.raises(UsageError, match="has no shards"):
            export_table(table, format_, table.parent / "out", ExportSettings(shard_images=5))
    assert not (table.parent / "out").exists()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"min_probability": 1.5}, "not from 0 to 1"),
        ({"unknown": "perhaps"}, "none of keep, drop, yes"),
        ({"group_by": "folder"}, "there is no --split"),
        ({"split": (("a", 0.5),)}, "sum to 0.5"),
    ],
)
def test_settings_that_make_no_sense_are_refused(table: Path, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        export_table(table, "jsonl", table.parent / "out", ExportSettings(**settings))


def test_one_of_copy_link_and_reference_is_chosen_and_shards_have_a_size() -> None:
    assert chosen_images(copy=False, link=True, reference=False) == "link"
    with pytest.raises(UsageError, match="exclude each other"):
        chosen_images(copy=True, link=True, reference=False)
    assert chosen_images(copy=False, link=False, reference=False, no_embed=True) == "reference"
    with pytest.raises(UsageError, match="--no-embed is --reference, and --copy is given"):
        chosen_images(copy=True, link=False, reference=False, no_embed=True)
    assert [chosen_unknown(given, include_unknown=True) for given in (None, "yes")] == ["yes", "yes"]
    with pytest.raises(UsageError, match="--include-unknown is --unknown yes"):
        chosen_unknown("drop", include_unknown=True)
    for wrong in ("", "many", "0", "0MB", "1.5", "-5"):
        with pytest.raises(UsageError, match="--shard-size takes"):
            shard_size(wrong)


def test_what_people_decided_about_a_failed_image_is_exported(table: Path, root: Path) -> None:
    def decided(labels: Sequence[LabelEntry]) -> None:
        listed = [replace(row, labels=tuple(labels)) for row in rows(root) if row.image_id == "broken.jpg"]
        write_table(table, open_table(table).info, listed)

    decided([said("cat", "yes", 0.0, "human"), *(said(name, "unknown", 0.0) for name in ("dog", SALT, "münze"))])
    assert lines(table)["broken.jpg"]["labels"] == ["cat"]
    assert lines(table)["broken.jpg"]["scores"] == [1.0]
    assert lines(table)["broken.jpg"]["unknown"] == ["dog", SALT, "münze"]
