"""Parquet as programs write it: ids, paths beside bytes, types, splits of row groups, what is read and what is not.

What every source owes is in test_conformance.py, damaged files are in test_parquet_damage.py.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tagllm_cli.errors import SourceError
from tagllm_cli.records import Image, Shard
from tagllm_cli.sources.base import ReadFailure, Source, SourceOptions, list_images, read_or_failure
from tagllm_cli.sources.parquet import Parquet
from tagllm_cli.sources.registry import open_source
from tagllm_cli.sources.storage import Storage
from tests.support.object_store import object_store
from tests.support.web_server import Reply, WebServer

BYTES = [b"zero", b"one", b"two"]


def put(root: Path, columns: dict[str, Any], name: str = "a.parquet", **options: Any) -> None:
    """Write a Parquet file of these columns."""
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), root / name, **options)


def source_of(root: Path | str, image_column: str = "", id_column: str = "", **options: Any) -> Source:
    return open_source(str(root), SourceOptions(image_column=image_column, id_column=id_column, **options), "parquet")


def ids(source: Source) -> list[str]:
    return [image.id for image in list_images(source)]


def found(source: Source) -> dict[str, bytes | str]:
    """Return the bytes of each image or the kind of its failure, the same from `read` and `stream`."""
    images = list(list_images(source))
    read = [read_or_failure(source, image) for image in images]
    streamed = [each for shard in source.shards() for _, each in source.stream(shard)]
    said = [[each if isinstance(each, bytes) else each.kind for each in some] for some in (read, streamed)]
    assert said[0] == said[1]
    return {image.id: each for image, each in zip(images, said[0], strict=True)}


def images_of(source: Source) -> list[bytes]:
    """Return the bytes of all images, none of which fails."""
    return [source.read(image) for image in list_images(source)]


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
        source_of(tmp_path, "sample.picture")


def test_a_thousand_rows_with_one_path_are_a_thousand_images(tmp_path: Path) -> None:
    put(tmp_path, {"image": [{"bytes": b"x", "path": "image.png"}] * 1000})
    assert ids(source_of(tmp_path))[-1] == "a.parquet/image.png#1000"


def test_bytes_and_paths_in_one_column(tmp_path: Path) -> None:
    """Paths are relative to the file, else to the root, or absolute; bytes go before a path."""
    for name in ("d/1.jpg", "2.jpg", "d/both.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    rows: list[tuple[bytes | None, str | None]] = [
        (None, "1.jpg"),
        (None, "2.jpg"),
        (None, "./2.jpg"),
        (None, f"{tmp_path}/2.jpg"),
        (None, f"file://{tmp_path}/d/1.jpg"),
        (None, "../2.jpg"),
        (None, "..\\2.jpg"),
        (b"bytes", "both.jpg"),
        (b"bytes", None),
        (b"", "1.jpg"),
        (None, None),
        (None, ""),
        (None, "nowhere.jpg"),
        (None, "nul\0.jpg"),
        (None, "d"),
    ]
    put(tmp_path, {"image": [{"bytes": data, "path": path} for data, path in rows]}, "d/a.parquet")
    expected = [b"d/1.jpg", b"2.jpg", b"2.jpg", b"2.jpg", b"d/1.jpg", b"2.jpg", b"2.jpg", b"bytes", b"bytes", b""]
    failures = ["no_image", "bad_name", "vanished", "bad_name", "not_a_file"]
    assert list(found(source_of(tmp_path)).values()) == [*expected, *failures]


def test_a_row_without_an_image_is_a_failure(tmp_path: Path) -> None:
    put(tmp_path, {"image": [b"x", None]})
    put(
        tmp_path,
        {"image": pa.array([None, {"bytes": None, "path": None}], pa.struct([("bytes", pa.binary())]))},
        "b.parquet",
    )
    source = source_of(tmp_path)
    assert list(found(source).values()) == [b"x", "no_image", "no_image", "no_image"]
    with pytest.raises(ReadFailure, match="the row holds no image"):
        source.read(list(list_images(source))[1])


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    name = b"caf\xe9.jpg"
    (tmp_path / name.decode("utf-8", "surrogateescape")).write_bytes(b"coffee")
    offsets = pa.array([0, len(name)], pa.int32()).buffers()[1]
    put(tmp_path, {"path": pa.Array.from_buffers(pa.string(), 1, [None, offsets, pa.py_buffer(name)])})
    assert found(source_of(tmp_path)) == {"a.parquet/caf\\xe9.jpg": b"coffee"}


def test_images_at_urls(tmp_path: Path) -> None:
    store = object_store()
    bucket = store.bucket({"deep/a b.jpg": b"in a bucket"})
    files = {f"/{number}.jpg": b"%d" % number for number in range(12)}
    with WebServer(files) as web:
        web.on("/page.jpg", Reply(200, {"Content-Type": "text/html"}, b"<!DOCTYPE html><html>sign in</html>"))
        web.on("/secret.jpg", Reply(403))
        for number in range(4):
            web.on(f"/{number}.jpg", Reply(200, {}, b"%d" % number, wait_s=0.1))
        urls = [f"{web.url}/{name}" for name in ("page.jpg", "secret.jpg", "gone.jpg")]
        urls += [f"{web.url}{path}" for path in files]
        put(tmp_path, {"url": [*urls, f"{bucket}/deep/a b.jpg", f"{bucket}/nowhere.jpg", "odd://x/y.jpg"]})
        outcomes = list(found(source_of(tmp_path)).values())
        assert outcomes[:3] == ["not_an_image", "forbidden", "vanished"]
        assert outcomes[3:-3] == list(files.values())
        assert outcomes[-3:] == [b"in a bucket", "vanished", "unreadable"]
        assert web.most_at_once >= 4


def test_a_url_that_is_signed_is_fetched_with_its_signature(tmp_path: Path) -> None:
    with WebServer({"/1.jpg": b"one"}) as web:
        put(tmp_path, {"url": [f"{web.url}/1.jpg?X-Amz-Signature=abc&size=2"]})
        source = source_of(tmp_path)
        (image,) = list_images(source)
        assert source.read(image) == b"one"
        assert web.requests[-1].target == "/1.jpg?X-Amz-Signature=abc&size=2"
        assert "abc" not in image.id


def test_a_file_on_a_web_server(tmp_path: Path) -> None:
    put(tmp_path, {"image": [{"bytes": None, "path": "x.jpg"}, *({"bytes": data, "path": None} for data in BYTES)]})
    files = {"/data/a.parquet": (tmp_path / "a.parquet").read_bytes(), "/data/x.jpg": b"beside"}
    with WebServer(files) as web:
        source = open_source(f"{web.url}/data/a.parquet")
        assert list(found(source).values()) == [b"beside", *BYTES]
    with WebServer(files, ranges=False) as web:
        source = open_source(f"{web.url}/data/a.parquet")
        assert found(source) == {"a.parquet": "unreadable"}
        with pytest.raises(ReadFailure, match="download the file"):
            source.read(next(list_images(source)))


def test_urls_show_no_secrets(tmp_path: Path) -> None:
    signed = "https://me:pw@host.invalid/1.jpg?X-Amz-Signature=abc&size=2"
    put(tmp_path, {"url": [signed, signed.replace("abc", "def")]})
    listed = list(list_images(source_of(tmp_path)))
    assert [image.id for image in listed] == [
        "a.parquet/https://host.invalid/1.jpg?size=2",
        "a.parquet/https://host.invalid/1.jpg?size=2#2",
    ]
    assert [image.uri for image in listed] == ["a.parquet#0", "a.parquet#1"]


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


def test_columns_may_differ_between_files(tmp_path: Path) -> None:
    put(tmp_path, {"image": BYTES[:1], "label": ["x"]})
    put(tmp_path, {"other": [1.5], "jpg": BYTES[1:2]}, "b.parquet")
    put(tmp_path, {"label": ["x"]}, "c.parquet")
    assert found(source_of(tmp_path)) == {"a.parquet/0": b"zero", "b.parquet/0": b"one", "c.parquet": "no_image_column"}


def test_a_first_file_without_images_is_no_reason_to_stop(tmp_path: Path) -> None:
    put(tmp_path, {"label": ["x"]})
    put(tmp_path, {"image": BYTES[:1]}, "b.parquet")
    assert found(source_of(tmp_path)) == {"a.parquet": "no_image_column", "b.parquet/0": b"zero"}


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
        source_of(tmp_path, **options)
    assert caught.value.message.startswith(said)
    assert caught.value.hint


def test_files_without_rows_are_files_without_images(tmp_path: Path) -> None:
    put(tmp_path, {"image": pa.array([], pa.binary())})
    put(tmp_path, {"image": BYTES[:1]}, "b.parquet")
    source = source_of(tmp_path)
    assert [len(list(source.images(shard))) for shard in source.shards()] == [0, 1]
    assert list(source.stream(Shard("a.parquet"))) == []


def test_options_and_secrets_of_the_description(tmp_path: Path) -> None:
    put(tmp_path, {"image": BYTES, "mask": BYTES, "key": [1, 2, 3]})
    info = source_of(tmp_path, "mask", "key").describe()
    assert (info.kind, info.uri) == ("parquet", str(tmp_path))
    assert info.options == {"image_column": "mask", "id_column": "key"}


def some(images: Sequence[Image], *rows: int) -> list[Image]:
    return [images[row] for row in rows]


def test_row_groups_without_a_wanted_image_are_not_read(tmp_path: Path) -> None:
    put(tmp_path, {"image": [b"%d" % row for row in range(100)]}, row_group_size=10, compression="NONE")
    source = source_of(tmp_path)
    images = list(list_images(source))
    damage(tmp_path / "a.parquet", groups=[0, 2, 3, 9])
    wanted = some(images, 10, 19, 40, 85)
    fresh = [Image(image.id, image.uri, shard=image.shard) for image in wanted]
    assert [data for _, data in source.stream(Shard("a.parquet"), fresh)] == [b"10", b"19", b"40", b"85"]
    assert [source.read(image) for image in fresh] == [b"10", b"19", b"40", b"85"]


def damage(path: Path, groups: Sequence[int], column: int = 0) -> None:
    """Overwrite the pages of a column in some row groups."""
    data = bytearray(path.read_bytes())
    metadata = pq.read_metadata(path)
    for group in groups:
        chunk = metadata.row_group(group).column(column)
        start = min(chunk.data_page_offset, chunk.dictionary_page_offset or chunk.data_page_offset)
        data[start : start + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    path.write_bytes(data)


def test_a_large_row_group_is_not_in_memory_whole(tmp_path: Path) -> None:
    size, rows = 100_000, 600
    images = [bytes([row % 256]) * size for row in range(rows)]
    put(tmp_path, {"image": images}, row_group_size=rows, use_dictionary=False, write_batch_size=1, compression="NONE")
    source = source_of(tmp_path)
    listed = list(list_images(source))
    before, most = pa.total_allocated_bytes(), 0
    for row, (_, data) in enumerate(source.stream(Shard("a.parquet"), listed)):
        assert data == images[row]
        most = max(most, pa.total_allocated_bytes() - before)
    assert most < size * rows // 3


def test_listing_in_a_bucket_reads_no_images_and_reading_is_front_to_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [{"bytes": bytes([row]) * 20_000, "path": f"{row}.jpg"} for row in range(100)]
    put(tmp_path, {"image": images}, row_group_size=50, compression="NONE", use_dictionary=False)
    store = object_store()
    root = store.bucket({"data/a.parquet": (tmp_path / "a.parquet").read_bytes()})
    source = source_of(root)
    with monkeypatch.context() as patched:
        pieces: list[bytes] = []
        read = Storage.read
        patched.setattr(Storage, "read", lambda *call: pieces.append(read(*call)) or pieces[-1])  # type: ignore[func-returns-value]
        patched.setattr(Storage, "open", None)
        listed = list(list_images(source))
    assert [image.id for image in listed] == [f"data/a.parquet/{row}.jpg" for row in range(100)]
    assert sum(map(len, pieces)) < 200_000
    store.requests.clear()
    assert [data for _, data in source.stream(Shard("data/a.parquet"), listed)] == [row["bytes"] for row in images]
    assert sum(store.requests.values()) < 15
    fresh = source_of(root)
    store.requests.clear()
    assert [fresh.read(image) for image in listed[10:20]] == [row["bytes"] for row in images[10:20]]
    assert len(store.opened(root)) == 1
    assert sum(count for (method, _), count in store.requests.items() if method == "GET") < 6


def test_a_second_listing_of_ids_reads_only_what_is_new(tmp_path: Path) -> None:
    store = object_store()
    files = {}
    for number in range(3):
        put(tmp_path, {"image": BYTES[:1], "key": [number]}, f"{number}.parquet")
        files[f"{number}.parquet"] = (tmp_path / f"{number}.parquet").read_bytes()
    root = store.bucket(files)
    source = source_of(root, id_column="key")
    assert ids(source) == ["0", "1", "2"]
    store.requests.clear()
    assert len(list(source.shards())) == 3
    assert store.opened(root) == []
