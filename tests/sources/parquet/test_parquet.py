"""Parquet as programs write it: ids, types, programs that write it, options.

What every source owes is in test_conformance.py, what is read is in test_parquet_reading.py.
"""

from __future__ import annotations

import base64
import uuid
from pathlib import Path
from typing import Any

import datasets
import duckdb
import pandas as pd
import pyarrow as pa
import pytest

from tagllm_cli.errors import SourceError
from tagllm_cli.records import Shard
from tagllm_cli.sources.base import ReadFailure, SourceOptions, list_images
from tagllm_cli.sources.parquet.source import Parquet
from tagllm_cli.sources.registry import open_source
from tagllm_cli.sources.storage.storage import Storage
from tests.support.parquet_files import BYTES, found, ids, images_of, put, source_of


def test_ids_are_those_of_the_id_column(tmp_path: Path) -> None:
    put(tmp_path, {"image": BYTES, "key": [7, 8, 9]})
    assert ids(source_of(tmp_path, id_column="key")) == ["7", "8", "9"]
    assert ids(source_of(tmp_path)) == ["a.parquet/0", "a.parquet/1", "a.parquet/2"]


UUIDS = [uuid.UUID(int=number) for number in range(3)]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        pytest.param(pa.array([1.5, -2.0, 1e300]), ["1.5", "-2", "1e+300"], id="float"),
        pytest.param(pa.array([True, False, None]), ["true", "false", "a.parquet/2"], id="bool"),
        pytest.param(pa.array(["a", "b", "c"]).dictionary_encode(), ["a", "b", "c"], id="categories"),
        pytest.param(pa.array(["a", "b", "c"], pa.large_string()), ["a", "b", "c"], id="large"),
        pytest.param(pa.array([u.bytes for u in UUIDS], pa.uuid()), [str(u) for u in UUIDS], id="uuid"),
        pytest.param(pa.array([b"\0", b"\1", b"\xff"], pa.binary(1)), ["00", "01", "ff"], id="fixed bytes"),
        pytest.param(pa.array([b"a", b"\xe9", b"\xc3\xa9"]), ["a", "\\xe9", "\u00e9"], id="bytes"),
        pytest.param(pa.array([1, 2, 3], pa.date32()), ["1970-01-02", "1970-01-03", "1970-01-04"], id="dates"),
    ],
)
def test_ids_of_any_type_are_text(keys: pa.Array, expected: list[str], tmp_path: Path) -> None:
    put(tmp_path, {"image": pa.array(BYTES), "key": keys})
    source = source_of(tmp_path, image_column="image", id_column="key")
    assert found(source) == dict(zip(expected, BYTES, strict=True))


def test_no_image_is_lost_where_ids_come_twice(tmp_path: Path) -> None:
    """In a file the second one is numbered; in several files all of them have the name of their file before them."""
    put(tmp_path, {"key": ["x", "x", "both", None, "x#2", "b.parquet/0"], "image": [*BYTES, *BYTES]})
    put(tmp_path, {"key": ["both", "y"], "image": BYTES[:2]}, "b.parquet")
    expected = ["x", "a.parquet/x#2", "a.parquet/both", "a.parquet/3", "a.parquet/x#2#2", "a.parquet/b.parquet/0"]
    source = source_of(tmp_path, id_column="key")
    assert ids(source) == [*expected, "b.parquet/both", "y"]
    assert list(found(source).values()) == [*BYTES, *BYTES, *BYTES[:2]]


def test_a_new_file_moves_no_ids_but_those_it_shares(tmp_path: Path) -> None:
    put(tmp_path, {"key": ["x", "y"], "image": BYTES[:2]}, "b.parquet")
    source = source_of(tmp_path, id_column="key")
    assert ids(source) == ["x", "y"]
    put(tmp_path, {"key": ["y", "z"], "image": BYTES[:2]}, "a.parquet")
    assert ids(source) == ["a.parquet/y", "z", "x", "b.parquet/y"]


def test_paths_are_ids_below_their_file(tmp_path: Path) -> None:
    paths = ["p.jpg", "p.jpg", None, "q.jpg", "2", "p.jpg"]
    images = [{"bytes": b"%d" % row, "path": path} for row, path in enumerate(paths)]
    put(tmp_path, {"image": images})
    put(tmp_path, {"image": images[:1]}, "b.parquet")
    expected = ["a.parquet/p.jpg", "a.parquet/p.jpg#2", "a.parquet/2", "a.parquet/q.jpg", "a.parquet/2#2"]
    source = source_of(tmp_path)
    assert ids(source) == [*expected, "a.parquet/p.jpg#3", "b.parquet/p.jpg"]
    assert list(found(source).values()) == [b"0", b"1", b"2", b"3", b"4", b"5", b"0"]


def test_an_id_column_that_cannot_be_read_everywhere_loses_no_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a file shares is not known while the storage fails: the ids of that file have its name before them."""
    for name in ("a.parquet", "b.parquet"):
        put(tmp_path, {"key": ["x"], "image": BYTES[:1]}, name)
    source = source_of(tmp_path, id_column="key")
    opened = Storage.open
    failures = iter([ReadFailure("unreachable", "no answer")])

    def fail_once(storage: Storage, name: str) -> Any:
        if name == "b.parquet" and (failure := next(failures, None)):
            raise failure
        return opened(storage, name)

    monkeypatch.setattr(Storage, "open", fail_once)
    assert ids(source) == ["x", "b.parquet/x"]
    assert ids(source) == ["a.parquet/x", "b.parquet/x"]


def test_images_in_a_struct_of_a_struct(tmp_path: Path) -> None:
    rows = [{"image": {"bytes": data, "path": f"{row}.jpg"}, "id": row} for row, data in enumerate(BYTES)]
    put(tmp_path, {"sample": rows, "other": [b"x"] * 3})
    expected = {f"a.parquet/{row}.jpg": data for row, data in enumerate(BYTES)}
    assert found(source_of(tmp_path, "sample.image")) == expected
    assert found(source_of(tmp_path, "sample.image", "sample.id")) == {"0": b"zero", "1": b"one", "2": b"two"}
    with pytest.raises(SourceError, match=r"no column 'sample\.picture'"):
        list(list_images(source_of(tmp_path, "sample.picture")))


def test_a_thousand_rows_with_one_path_are_a_thousand_images(tmp_path: Path) -> None:
    put(tmp_path, {"image": [{"bytes": b"x", "path": "image.png"}] * 1000})
    assert ids(source_of(tmp_path))[-1] == "a.parquet/image.png#1000"


@pytest.mark.parametrize(
    "values",
    [
        pytest.param(pa.array(BYTES, pa.large_binary()), id="large_binary"),
        pytest.param(pa.array(BYTES, pa.binary_view()), id="binary_view"),
        pytest.param(pa.array(BYTES).dictionary_encode(), id="dictionary"),
        pytest.param(
            pa.ExtensionArray.from_storage(pa.opaque(pa.binary(), "jpeg", "camera"), pa.array(BYTES)), id="opaque"
        ),
        pytest.param(pa.StructArray.from_arrays([pa.array(BYTES, pa.large_binary())], ["bytes"]), id="struct"),
    ],
)
def test_types_of_bytes(values: pa.Array, tmp_path: Path) -> None:
    put(tmp_path, {"image": values, "label": [1, 2, 3]})
    assert images_of(source_of(tmp_path)) == BYTES


def test_files_of_pandas(tmp_path: Path) -> None:
    frame = pd.DataFrame({"picture": BYTES, "kind": pd.Categorical(["a", "b", "a"])}, index=["x", "y", "z"])
    frame.to_parquet(tmp_path / "a.parquet")
    frame.rename_axis("key").to_parquet(tmp_path / "b.parquet")
    source = source_of(tmp_path)
    assert images_of(source) == BYTES * 2
    (tmp_path / "a.parquet").unlink()
    assert ids(source_of(tmp_path, id_column="key")) == ["x", "y", "z"]


def test_files_of_pandas_with_structs(tmp_path: Path) -> None:
    pd.DataFrame({"image": [{"bytes": data, "path": None} for data in BYTES]}).to_parquet(tmp_path / "a.parquet")
    assert images_of(source_of(tmp_path)) == BYTES


def test_files_of_duckdb(tmp_path: Path) -> None:
    query = "SELECT uuid() AS key, ('img' || i)::BLOB AS image, {'bytes': NULL, 'x': i} AS box FROM range(5000) t(i)"
    with duckdb.connect() as connection:
        connection.execute(f"COPY ({query}) TO '{tmp_path}/a.parquet' (ROW_GROUP_SIZE 2048, COMPRESSION zstd)")
        connection.execute(
            f"COPY (SELECT 'day' AS part, '1'::BLOB AS image) TO '{tmp_path}/h' (FORMAT parquet, PARTITION_BY part)"
        )
        keys = connection.execute(f"SELECT key::VARCHAR FROM '{tmp_path}/a.parquet'").fetchall()
    source = source_of(tmp_path)
    assert [data for _, data in source.stream(Shard("a.parquet"))] == [b"img%d" % row for row in range(5000)]
    assert [shard.name.rpartition("/")[0] for shard in source.shards()] == ["", "h/part=day"]
    (only,) = (tmp_path / "h" / "part=day").iterdir()
    only.unlink()
    assert ids(source_of(tmp_path, id_column="key")) == [key for (key,) in keys]


def test_a_dataset_of_the_hub(tmp_path: Path) -> None:
    """As `push_to_hub` lays it out: shards named after splits, bytes in the files, a README."""
    images = [{"bytes": b"%d" % number, "path": f"{number}.jpg"} for number in range(6)]
    features = datasets.Features({"image": datasets.Image(), "mask": datasets.Value("binary")})
    rows = datasets.Dataset.from_dict({"image": images, "mask": [b"m"] * 6}, features)
    (tmp_path / "data").mkdir()
    for number in range(2):
        rows.shard(2, number).to_parquet(tmp_path / "data" / f"train-{number:05}-of-00002.parquet")
    rows.select([5]).to_parquet(tmp_path / "data" / "test-00000-of-00001.parquet")
    readme = "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: data/train-*\n---\n"
    (tmp_path / "README.md").write_text(readme)
    assert images_of(source_of(tmp_path, splits=("train",))) == [b"0", b"1", b"2", b"3", b"4", b"5"]
    assert ids(source_of(tmp_path))[0] == "data/test-00000-of-00001.parquet/5.jpg"


def test_a_dataset_saved_in_several_files(tmp_path: Path) -> None:
    rows = datasets.Dataset.from_dict({"image": BYTES * 4})
    rows.filter(lambda row: row["image"] != b"one").save_to_disk(tmp_path, num_shards=3)
    source = source_of(tmp_path)
    assert source.lists_by_reading
    assert images_of(source) == [b"zero", b"two"] * 4
    assert len(list(source.shards())) == 3


def test_an_arrow_file_with_a_footer(tmp_path: Path) -> None:
    table = pa.table({"image": BYTES})
    with pa.ipc.new_file(tmp_path / "a.arrow", table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    source = Parquet(str(tmp_path), SourceOptions(pattern="*.arrow"))
    assert found(source) == {f"a.arrow/{row}": data for row, data in enumerate(BYTES)}


def test_arrow_files_that_no_dataset_names_are_left_out(tmp_path: Path) -> None:
    put(tmp_path, {"image": BYTES})
    (tmp_path / "cache-1.arrow").write_bytes(b"")
    source = source_of(tmp_path)
    assert not source.lists_by_reading
    assert len(ids(source)) == 3
    assert dict(source.left_out) == {".arrow": 1}


def test_excluded_files_are_counted(tmp_path: Path) -> None:
    for name in ("a.parquet", "b.parquet", "old/c.parquet"):
        put(tmp_path, {"image": BYTES[:1]}, name)
    source = source_of(tmp_path, exclude=("old", "a.*"))
    assert ids(source) == ["b.parquet/0"]
    assert dict(source.left_out) == {"by --exclude old": 1, "by --exclude 'a.*'": 1}


@pytest.mark.parametrize(
    ("columns", "options", "said"),
    [
        ({"a": [b"1"], "b": [b"2"]}, {}, "a.parquet: several columns can hold the images: 'a', 'b'"),
        ({"a": [1]}, {}, "a.parquet: no column holds images"),
        ({"a": [[b"1", b"2"]]}, {}, "a.parquet: column 'a' holds a list of images in each row"),
        ({"a": [b"1"]}, {"image_column": "b"}, "a.parquet: there is no column 'b'"),
        ({"a": [b"1"]}, {"id_column": "b"}, "a.parquet: there is no column 'b'"),
        ({"a": [b"1"]}, {"splits": ("night",)}, "there is no split 'night': the splits are train"),
    ],
)
def test_what_cannot_be_used_is_said_before_anything_is_read(
    columns: dict[str, Any], options: dict[str, Any], said: str, tmp_path: Path
) -> None:
    put(tmp_path, columns)
    with pytest.raises(SourceError) as caught:
        list(list_images(source_of(tmp_path, **options)))
    assert caught.value.message.startswith(said)
    assert caught.value.hint


def test_images_as_base64_text_are_one_row_that_says_so(tmp_path: Path) -> None:
    put(tmp_path, {"image": [None, base64.b64encode(bytes(range(256)) * 4).decode()]}, "a.parquet")
    source = source_of(tmp_path)
    [image] = list_images(source)
    assert image.id == "a.parquet"
    with pytest.raises(ReadFailure, match="column 'image' holds base64 text") as caught:
        source.read(image)
    assert caught.value.kind == "no_image_column"


def test_a_file_without_rows_is_named(tmp_path: Path) -> None:
    put(tmp_path, {"image": pa.array([], pa.binary())}, "a.parquet")
    with pytest.raises(SourceError, match=f"there are no images in {tmp_path}/a.parquet"):
        list(list_images(open_source(f"{tmp_path}/a.parquet")))


def test_options_and_secrets_of_the_description(tmp_path: Path) -> None:
    put(tmp_path, {"image": BYTES, "mask": BYTES, "key": [1, 2, 3]})
    info = source_of(tmp_path, "mask", "key").describe()
    assert (info.kind, info.uri) == ("parquet", str(tmp_path))
    assert info.options == {"image_column": "mask", "id_column": "key"}


@pytest.mark.parametrize("ending", ["parquet", "arrow"])
def test_rows_are_excluded_by_their_own_paths(tmp_path: Path, ending: str) -> None:
    names = ["cat.jpg", "cat.seg.png", "dog.jpg"]  # `datasets` keeps no folders
    rows = {"image": [{"bytes": name.encode(), "path": name} for name in names]}
    if ending == "parquet":
        put(tmp_path, rows)
    else:
        features = datasets.Features({"image": datasets.Image()})
        datasets.Dataset.from_dict(rows, features).save_to_disk(tmp_path)
    source = source_of(tmp_path, exclude=("*.seg.png", "**/dog.*"))
    (only,) = [data for shard in source.shards() for _, data in source.stream(shard)]
    assert only == b"cat.jpg"
    assert {what: count for what, count in source.left_out.items() if "exclude" in what} == {
        "by --exclude '*.seg.png'": 1,
        "by --exclude '**/dog.*'": 1,
    }
