"""What is read of Parquet files: bytes, paths and URLs in one column, and of row groups no more than is wanted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tagllm_cli.records import Image, Shard
from tagllm_cli.sources.base import ReadFailure, list_images
from tagllm_cli.sources.registry import open_source
from tagllm_cli.sources.storage.storage import Storage
from tests.support.object_store import object_store
from tests.support.parquet_files import BYTES, found, ids, put, source_of
from tests.support.web_server import Reply, WebServer


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


def test_columns_may_differ_between_files(tmp_path: Path) -> None:
    put(tmp_path, {"image": BYTES[:1], "label": ["x"]})
    put(tmp_path, {"other": [1.5], "jpg": BYTES[1:2]}, "b.parquet")
    put(tmp_path, {"label": ["x"]}, "c.parquet")
    assert found(source_of(tmp_path)) == {"a.parquet/0": b"zero", "b.parquet/0": b"one", "c.parquet": "no_image_column"}


def test_a_first_file_without_images_is_no_reason_to_stop(tmp_path: Path) -> None:
    put(tmp_path, {"label": ["x"]})
    put(tmp_path, {"image": BYTES[:1]}, "b.parquet")
    assert found(source_of(tmp_path)) == {"a.parquet": "no_image_column", "b.parquet/0": b"zero"}


def test_files_without_rows_are_files_without_images(tmp_path: Path) -> None:
    put(tmp_path, {"image": pa.array([], pa.binary())})
    put(tmp_path, {"image": BYTES[:1]}, "b.parquet")
    source = source_of(tmp_path)
    assert [len(list(source.images(shard))) for shard in source.shards()] == [0, 1]
    assert list(source.stream(Shard("a.parquet"))) == []


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
