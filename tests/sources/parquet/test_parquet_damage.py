"""Files that are damaged, change or vanish: what can be read is read, and every other row says why not."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import datasets
import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tagllm_cli.errors import SourceError
from tagllm_cli.records import Image, Shard
from tagllm_cli.sources.base import ReadFailure, list_images, read_or_failure
from tagllm_cli.sources.parquet.source import Parquet
from tagllm_cli.sources.storage import remote_errors
from tests.support.object_store import expired_after, object_store

ROWS = 60
IMAGES = [b"%03d" % row * 100 for row in range(ROWS)]


def table(**more: Any) -> pa.Table:
    return pa.table({"image": [{"bytes": data, "path": f"{row}.jpg"} for row, data in enumerate(IMAGES)], **more})


def write(path: Path, **options: Any) -> Path:
    """Write three row groups of 20 images, in pages of 4 with checksums."""
    plain = {"compression": "NONE", "use_dictionary": False, "write_page_checksum": True}
    pages = {"row_group_size": 20, "write_batch_size": 4, "data_page_size": 1}
    pq.write_table(table(), path, **{**plain, **pages, **options})
    return path


def overwrite(path: Path, start: int, data: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(start)
        file.write(data)


def kind(found: bytes | ReadFailure) -> bytes | str:
    """Return bytes as they are, or the kind of a failure."""
    return found if isinstance(found, bytes) else found.kind


def outcomes(source: Parquet) -> list[bytes | str]:
    """Return the bytes of each image or the kind of failure; the same from `read`, and twice from `stream`."""
    found: list[bytes | str] = []
    for shard in source.shards():
        images = list(source.images(shard))
        streamed = list(source.stream(shard))
        assert [image for image, _ in streamed] == images
        said = [
            [kind(each) for each in some]
            for some in (
                [each for _, each in streamed],
                [each for _, each in source.stream(shard, images)],
                [read_or_failure(source, image) for image in images],
            )
        ]
        assert said[0] == said[1] == said[2]
        found += said[0]
    return found


def test_rows_before_a_damaged_page_stay(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet")
    overwrite(path, path.read_bytes().index(IMAGES[30]) + 50, b"damage")
    assert outcomes(Parquet(str(tmp_path))) == [*IMAGES[:28], *["corrupt_file"] * 12, *IMAGES[40:]]


def test_rows_of_a_damaged_row_group_fail_one_by_one(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet")
    chunk = pq.read_metadata(path).row_group(1).column(0)
    overwrite(path, chunk.data_page_offset, b"\xff" * chunk.total_compressed_size)
    source = Parquet(str(tmp_path))
    assert outcomes(source) == [*IMAGES[:20], *["corrupt_file"] * 20, *IMAGES[40:]]
    assert [image.id for image in list_images(source)] == [f"a.parquet/{row}.jpg" for row in range(ROWS)]


def test_rows_whose_names_are_damaged_are_listed_by_number(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet")
    chunk = pq.read_metadata(path).row_group(1).column(1)
    overwrite(path, chunk.data_page_offset, b"\xff" * chunk.total_compressed_size)
    source = Parquet(str(tmp_path))
    ids = [image.id for image in list_images(source)]
    assert ids[19:21] + ids[39:41] == ["a.parquet/19.jpg", "a.parquet/20", "a.parquet/39", "a.parquet/40.jpg"]
    assert outcomes(source) == [*IMAGES[:20], *["corrupt_file"] * 20, *IMAGES[40:]]


def test_a_message_is_one_line_of_text(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet")
    chunk = pq.read_metadata(path).row_group(0).column(0)
    overwrite(path, chunk.data_page_offset, b"\xff" * 40)
    with pytest.raises(ReadFailure, match="the Parquet file is damaged: ") as caught:
        Parquet(str(tmp_path)).read(Image("x", "a.parquet#3"))
    assert caught.value.message.isprintable()


@pytest.mark.parametrize(
    ("name", "failure", "said"),
    [
        ("cut", "truncated_file", "ends too early"),
        ("empty", "empty_file", "empty"),
        ("text", "corrupt_file", "not a Parquet file"),
        ("footer", "corrupt_file", "damaged"),
        ("rows", "corrupt_file", "two numbers of rows"),
        ("names", "corrupt_file", "damaged"),
        ("encrypted", "unreadable", "encrypted: decrypt it first"),
        ("folder", "not_a_file", "folder"),
        ("link", "not_a_file", "link"),
        ("fifo", "not_a_file", "regular"),
        ("columns", "no_image_column", "the columns are other"),
        ("list", "no_image_column", "'images' holds a list of images"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_row_beside_the_others(
    name: str, failure: str, said: str, tmp_path: Path
) -> None:
    write(tmp_path / "a.parquet")
    data = write(tmp_path / "c.parquet").read_bytes()
    bad = tmp_path / "b.parquet"
    match name:
        case "cut":
            bad.write_bytes(data[:-100])
        case "empty":
            bad.touch()
        case "text":
            bad.write_text("id,image\n1,a.jpg\n")
        case "footer":
            bad.write_bytes(data[:-200] + b"\xff" * 100 + data[-100:])
        case "rows":
            assert data.count(b"\x16\x78") == 1  # in Thrift's compact protocol: 60 rows
            bad.write_bytes(data.replace(b"\x16\x78", b"\x16\x76"))
        case "names":
            bad.write_bytes(data.replace(b"path", b"\xff\xff\xff\xff"))
        case "encrypted":
            encrypt(bad)
        case "folder":
            (tmp_path / "real").mkdir()
            bad.symlink_to("real")
        case "link":
            bad.symlink_to("nowhere")
        case "fifo":
            os.mkfifo(bad)
        case "columns":
            pq.write_table(pa.table({"other": [1]}), bad)
        case "list":
            pq.write_table(pa.table({"images": [[b"1", b"2"]]}), bad)
    source = Parquet(str(tmp_path))
    source.check()
    if name == "folder":  # holds no file; not listed at all
        assert outcomes(source) == IMAGES * 2
        return
    assert outcomes(source) == [*IMAGES, failure, *IMAGES]
    placeholder = list(list_images(source))[ROWS]
    assert (placeholder.id, placeholder.uri, placeholder.shard) == ("b.parquet",) * 3
    assert source.shard_of(placeholder.uri) == "b.parquet"
    with pytest.raises(ReadFailure, match=said):
        source.read(placeholder)


def encrypt(path: Path) -> None:
    with duckdb.connect() as connection:
        connection.execute("SET force_mbedtls_unsafe = 'true'")
        connection.execute("PRAGMA add_parquet_key('key', '0123456789112345')")
        connection.execute(f"COPY (SELECT 'x'::BLOB AS image) TO '{path}' (ENCRYPTION_CONFIG {{footer_key: 'key'}})")


def test_a_file_that_is_whole_again_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").touch()
    source = Parquet(str(tmp_path))
    (placeholder,) = list_images(source)
    write(tmp_path / "a.parquet")
    with pytest.raises(ReadFailure, match="the next run lists its rows") as caught:
        source.read(placeholder)
    assert caught.value.kind == "vanished"


@pytest.mark.parametrize("size", [10, 300, 3000, 12000])
def test_arrow_files_that_end_too_early(size: int, tmp_path: Path) -> None:
    datasets.Dataset.from_dict({"image": IMAGES}).save_to_disk(tmp_path)
    (path,) = tmp_path.glob("*.arrow")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) - size])
    assert outcomes(Parquet(str(tmp_path))) == ["corrupt_file"]


def test_an_arrow_file_that_is_cut_between_two_batches(tmp_path: Path) -> None:
    """To pyarrow this is a whole file with fewer rows."""
    path = tmp_path / "a.arrow"
    schema = pa.schema([("image", pa.binary())])
    with pa.ipc.new_stream(path, schema) as writer:
        writer.write_table(pa.table({"image": IMAGES[:10]}))
        size = path.stat().st_size
        writer.write_table(pa.table({"image": IMAGES[10:]}))
    (tmp_path / "state.json").write_text('{"_data_files": [{"filename": "a.arrow"}]}')
    assert outcomes(Parquet(str(tmp_path))) == IMAGES
    whole = path.read_bytes()
    path.write_bytes(whole[:size])
    assert outcomes(Parquet(str(tmp_path))) == [*IMAGES[:10], "truncated_file"]
    path.write_bytes(whole[: size + 100])
    assert outcomes(Parquet(str(tmp_path))) == [*IMAGES[:10], "corrupt_file"]
    path.write_bytes(b"something else")
    assert outcomes(Parquet(str(tmp_path))) == ["corrupt_file"]


def test_rows_behind_the_damage_of_an_arrow_file(tmp_path: Path) -> None:
    """Listed while the file was whole, and read afterwards."""
    datasets.Dataset.from_dict({"image": IMAGES}).save_to_disk(tmp_path)
    (path,) = tmp_path.glob("*.arrow")
    source = Parquet(str(tmp_path))
    images = [Image(image.id, image.uri, shard=image.shard) for image in list_images(source)]
    data = path.read_bytes()
    path.write_bytes(data[:-3000])
    assert {kind(read_or_failure(source, image)) for image in images} == {"corrupt_file"}
    assert {kind(each) for _, each in source.stream(Shard(path.name), images)} == {"corrupt_file"}
    datasets.Dataset.from_dict({"image": IMAGES[:10]}).save_to_disk(tmp_path / "new")
    (tmp_path / "new" / path.name).rename(path)
    found = [each for _, each in source.stream(Shard(path.name), images)]
    assert found[:10] == IMAGES[:10]
    assert {kind(each) for each in found[10:]} == {"vanished"}


def test_an_arrow_file_with_offsets_out_of_bounds(tmp_path: Path) -> None:
    """A reader that trusts them reads memory that is not its own."""
    offsets = pa.py_buffer(np.array([0, 3, 1 << 30, 6], np.int32))
    bad = pa.Array.from_buffers(pa.binary(), 3, [None, offsets, pa.py_buffer(b"abcdef")])
    path = tmp_path / "a.arrow"
    with pa.ipc.new_stream(path, pa.schema([("image", pa.binary())])) as writer:
        writer.write_batch(pa.record_batch({"image": IMAGES[:2]}))
        writer.write_batch(pa.record_batch([bad], ["image"]))
    (tmp_path / "state.json").write_text('{"_data_files": [{"filename": "a.arrow"}]}')
    assert outcomes(Parquet(str(tmp_path))) == [*IMAGES[:2], "corrupt_file"]


@pytest.mark.parametrize("names", ["paths", "numbers"])
def test_rows_of_a_file_that_was_replaced(names: str, tmp_path: Path) -> None:
    """No row gives the bytes of another image; a path that is still in its row is the same image."""
    column = [{"bytes": data, "path": f"{row}.jpg"} for row, data in enumerate(IMAGES)] if names == "paths" else IMAGES
    pq.write_table(pa.table({"image": column}), tmp_path / "a.parquet")
    source = Parquet(str(tmp_path))
    images = list(list_images(source))
    assert source.read(images[5]) == IMAGES[5]
    pq.write_table(pa.table({"image": [*column[:5], *column[6:30]]}), tmp_path / "new")
    (tmp_path / "new").rename(tmp_path / "a.parquet")
    expected = IMAGES[:5] if names == "paths" else ["vanished"] * 5
    found = [read_or_failure(source, image) for image in images]
    streamed = [each for _, each in source.stream(Shard("a.parquet"), images)]
    for each in (found, streamed):
        assert [kind(one) for one in each] == [*expected, *["vanished"] * 55]


def test_a_file_that_vanishes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet")
    write(tmp_path / "b.parquet")
    source = Parquet(str(tmp_path))
    shard, other = source.shards()
    images = list(source.images(shard))
    path.unlink()
    assert [each.kind for _, each in source.stream(shard, images) if isinstance(each, ReadFailure)] == ["vanished"] * 60
    assert [(image.id, each.kind) for image, each in source.stream(shard) if isinstance(each, ReadFailure)] == [
        ("a.parquet", "vanished")
    ]
    assert [each for _, each in source.stream(other)] == IMAGES


def test_a_file_that_is_cut_while_it_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet")
    source = Parquet(str(tmp_path))
    images = list(list_images(source))
    stream = source.stream(Shard("a.parquet"), images)
    first = [next(stream) for _ in range(3)]
    os.truncate(path, 5000)
    rest = [each for _, each in stream]
    assert [each for _, each in first] == IMAGES[:3]
    assert len(rest) == 57
    kinds = {"corrupt_file", "truncated_file"}
    assert {kind(each) for each in rest} <= {*IMAGES[3:20], *kinds}
    assert isinstance(rest[-1], ReadFailure)


def test_a_stream_that_is_left_early_keeps_nothing_open_but_two_files(tmp_path: Path) -> None:
    for number in range(5):
        write(tmp_path / f"{number}.parquet")
    source = Parquet(str(tmp_path))
    for shard in source.shards():
        stream = source.stream(shard)
        next(stream)
        del stream
    opened = [os.readlink(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd") if exists(number)]
    assert len([name for name in opened if name.startswith(str(tmp_path))]) <= 2


def exists(number: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{number}")


def test_a_dataset_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError):
        Parquet(str(tmp_path / "nowhere")).check()
    with pytest.raises(SourceError, match="no Parquet file") as caught:
        Parquet(str(tmp_path)).check()
    assert ".parquet" in caught.value.hint


def test_credentials_that_expire_are_not_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_errors, "PATIENCE_S", 0.0)
    store = object_store()
    root = store.bucket({"a.parquet": write(tmp_path / "a.parquet").read_bytes()})
    source = Parquet(root)
    (shard,) = source.shards()
    images = list(source.images(shard))
    for count in range(8):
        with store.failing(expired_after(count)):
            kinds = {each.kind for _, each in source.stream(shard, images) if isinstance(each, ReadFailure)}
            assert kinds <= {"forbidden"}
        with store.failing(expired_after(count)):
            listed = list(source.images(shard))
            failed = [image for image in listed if image.id == "a.parquet"]
            assert listed == images or listed[-1:] == failed
        if failed:
            with store.failing(expired_after(0)), pytest.raises(ReadFailure) as caught:
                source.read(failed[0])
            assert caught.value.kind == "forbidden"
    assert [each for _, each in source.stream(shard, images)] == IMAGES


def test_an_object_that_is_replaced_while_it_is_read(tmp_path: Path) -> None:
    store = object_store()
    path = write(tmp_path / "a.parquet")
    root = store.bucket({"a.parquet": path.read_bytes()})
    source = Parquet(root)
    (shard,) = source.shards()
    images = list(source.images(shard))
    pq.write_table(table().slice(1), path)
    store.upload(f"{root}/a.parquet", path.read_bytes())
    assert {each.kind for _, each in source.stream(shard, images) if isinstance(each, ReadFailure)} == {"vanished"}
    shutil.rmtree(tmp_path)
