"""What every source owes: each image once, stable ids and order, exact bytes, named failures, the same when reopened.

A source joins the suite with one function that lays out FILES as a source of its kind, and a line in SOURCES.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tagllm_cli.errors import SourceError
from tagllm_cli.records import SourceInfo
from tagllm_cli.sources.base import DEFAULT_OPTIONS, ReadFailure, Source, SourceOptions, list_images, read_all, recall
from tagllm_cli.sources.registry import KINDS, open_source, reopen
from tests.support.object_store import object_store

NAMES = [
    "plain.jpg",
    "deep/er/still.PNG",
    "with space.jpg",
    " leading.jpg",
    "-leading-dash.png",
    "--help.jpg",
    "new\nline.jpg",
    "carriage\rreturn.jpg",
    "tab\tand\x1bescape.jpg",
    "quote'\"`.jpg",
    "percent%20#hash?.jpg",
    "=1+1.jpg",
    "{{ braces }}{a,b}[c].jpg",
    "back\\slash.jpg",
    "right-to-left\u202egpj.jpg",
    "猫とÄpfel é🐈.webp",
    "e\u0301.jpg",  # NFD, as macOS writes it
    "\u00e9.jpg",  # NFC: another image
    "two..dots...jpg",
    "n" * 200 + ".jpg",
    "same bytes 1.jpg",
    "same bytes 2.jpg",
]
FILES: Mapping[str, bytes] = {
    name: b"same" if name.startswith("same") else f"bytes of {name}".encode() for name in NAMES
}


@dataclass(frozen=True)
class Laid:
    """FILES laid out as a source: how a user names it, how to move it, how to make an image vanish from it.

    `format` is what the user says about its kind; `left_out` is what lies there beside the images.
    """

    kind: str
    spec: str
    vanish: Callable[[str], None]
    move: Callable[[], str]
    format: str | None = None
    left_out: Mapping[str, int] = field(default_factory=lambda: {".txt": 1})
    options: SourceOptions = DEFAULT_OPTIONS


def folder(tmp_path: Path) -> Laid:
    root = tmp_path / "folder"
    for name, data in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    (root / "notes.txt").touch()
    return Laid("folder", str(root), lambda name: (root / name).unlink(), lambda: str(root.rename(tmp_path / "moved")))


def parquet(tmp_path: Path, write: Callable[[Path, Mapping[str, bytes]], None]) -> Laid:
    """Two files of images and a table of tagllm, which holds none."""
    root = tmp_path / "dataset"
    (root / "data").mkdir(parents=True)
    files = {"data/part-0.parquet": NAMES[::2], "data/part-1.parquet": NAMES[1::2]}

    def put() -> None:
        for path, names in files.items():
            write(root / path, {name: FILES[name] for name in names})

    def vanish(name: str) -> None:
        for names in files.values():
            if name in names:
                names.remove(name)
        put()

    put()
    labels = pa.schema([("image_id", pa.string())], {"tagllm.schema_version": "1"})
    pq.write_table(labels.empty_table(), root / "labels.parquet")
    left_out = {"label table of tagllm": 1}
    return Laid("parquet", str(root), vanish, lambda: str(root.rename(tmp_path / "moved")), left_out=left_out)


def parquet_bytes(tmp_path: Path) -> Laid:
    def write(path: Path, files: Mapping[str, bytes]) -> None:
        table = pa.table({"label": list(files), "jpg": pa.array(list(files.values()), pa.binary())})
        pq.write_table(table, path, row_group_size=4)

    return parquet(tmp_path, write)


def parquet_ids(tmp_path: Path) -> Laid:
    def write(path: Path, files: Mapping[str, bytes]) -> None:
        table = pa.table({"id": list(files), "jpg": pa.array(list(files.values()), pa.large_binary())})
        pq.write_table(table, path, row_group_size=4)

    return dataclasses.replace(parquet(tmp_path, write), options=SourceOptions(id_column="id"))


def parquet_paths(tmp_path: Path) -> Laid:
    """Rows that name files; images that lie beside a Parquet file of the same dataset."""
    for name, data in FILES.items():
        (tmp_path / "dataset" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "dataset" / name).write_bytes(data)

    def write(path: Path, files: Mapping[str, bytes]) -> None:
        pq.write_table(pa.table({"file_name": pa.array(list(files), pa.string())}), path)

    return dataclasses.replace(parquet(tmp_path, write), format="parquet")


def dataset_of(files: Mapping[str, bytes]) -> datasets.Dataset:
    images = [{"bytes": data, "path": name} for name, data in files.items()]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    return datasets.Dataset.from_dict({"image": images, "label": range(len(images))}, features)


def hugging_face(tmp_path: Path) -> Laid:
    return parquet(tmp_path, lambda path, files: dataset_of(files).to_parquet(path))


def saved_to_disk(tmp_path: Path) -> Laid:
    root = tmp_path / "saved"
    names = list(NAMES)

    def put() -> None:
        shutil.rmtree(root, ignore_errors=True)
        half = {"train": names[::2], "test": names[1::2]}
        splits = {split: dataset_of({name: FILES[name] for name in some}) for split, some in half.items()}
        datasets.DatasetDict(splits).save_to_disk(root)
        (root / "test" / "cache-1.arrow").touch()  # what `datasets` leaves beside

    def vanish(name: str) -> None:
        names.remove(name)
        put()

    put()
    return Laid("parquet", str(root), vanish, lambda: str(root.rename(tmp_path / "moved")), left_out={".arrow": 1})


def parquet_in_bucket(tmp_path: Path) -> Laid:
    """Files of Hugging Face in S3; a bucket cannot be renamed, but its objects can be put into another one."""
    store = object_store()
    root = store.bucket()
    local = hugging_face(tmp_path)

    def upload(to: str) -> str:
        for path in Path(local.spec).rglob("*.parquet"):
            store.upload(f"{to}/{path.relative_to(local.spec)}", path.read_bytes())
        return to

    def vanish(name: str) -> None:
        local.vanish(name)
        upload(root)

    def move() -> str:
        for path in Path(local.spec).rglob("*.parquet"):
            store.delete(f"{root}/{path.relative_to(local.spec)}")
        return upload(store.bucket())

    return dataclasses.replace(local, spec=upload(root), vanish=vanish, move=move)


def tar_bytes(files: Mapping[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return packed.getvalue()


def tar_shards() -> list[dict[str, bytes]]:
    """Return FILES as members of three shards, the first with one image, the last with a sidecar."""
    first, *names = NAMES
    parts = [[first], names[:10], names[10:]]
    shards = [{name: FILES[name] for name in part} for part in parts]
    shards[-1]["notes.txt"] = b""
    return shards


def tar(tmp_path: Path) -> Laid:
    root = tmp_path / "shards"
    shards = {root / f"{number}.tar": files for number, files in enumerate(tar_shards())}
    root.mkdir(parents=True)
    for path, files in shards.items():
        path.write_bytes(tar_bytes(files))

    def vanish(name: str) -> None:
        path, files = next((path, files) for path, files in shards.items() if name in files)
        del files[name]
        if files:
            path.write_bytes(tar_bytes(files))
        else:
            path.unlink()

    return Laid("tar", str(root), vanish, lambda: str(root.rename(tmp_path / "moved")), format="tar")


def tar_on_s3(tmp_path: Path) -> Laid:
    store = object_store()
    root = store.bucket()
    shards = {f"{root}/shards/{number}.tar": files for number, files in enumerate(tar_shards())}
    for url, files in shards.items():
        store.upload(url, tar_bytes(files))

    def vanish(name: str) -> None:
        url, files = next((url, files) for url, files in shards.items() if name in files)
        del files[name]
        if files:
            store.upload(url, tar_bytes(files))
        else:
            store.delete(url)

    def move() -> str:
        for url, files in shards.items():
            store.upload(url.replace("/shards/", "/moved/"), tar_bytes(files))
            store.delete(url)
        return f"{root}/moved"

    return Laid("tar", f"{root}/shards", vanish, move, format="tar")


def folder_on_s3(tmp_path: Path) -> Laid:
    store = object_store()
    root = store.bucket({f"photos/{name}": data for name, data in {**FILES, "notes.txt": b""}.items()})

    def move() -> str:
        for name in [*FILES, "notes.txt"]:
            store.delete(f"{root}/photos/{name}")
        return store.bucket({**FILES, "notes.txt": b""})

    return Laid("folder", f"{root}/photos/", lambda name: store.delete(f"{root}/photos/{name}"), move)


def manifest(tmp_path: Path) -> Laid:
    """A CSV beside the images that it names, with one line that names none."""
    laid = folder(tmp_path)
    root = Path(laid.spec)
    names = list(NAMES)

    def write() -> None:
        with open(root / "list.csv", "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([["image", "label"], *([name, "x"] for name in names), ["", "x"]])

    def vanish(name: str) -> None:
        laid.vanish(name)
        names.remove(name)
        write()

    write()
    return Laid("manifest", str(root / "list.csv"), vanish, laid.move, left_out={"lines without an image": 1})


SOURCES = [
    folder,
    folder_on_s3,
    manifest,
    tar,
    tar_on_s3,
    parquet_in_bucket,
    parquet_bytes,
    parquet_ids,
    parquet_paths,
    hugging_face,
    saved_to_disk,
]


@pytest.fixture(params=SOURCES, ids=lambda each: each.__name__)
def laid(request: pytest.FixtureRequest, tmp_path: Path) -> Laid:
    return request.param(tmp_path)


def contents(source: Source) -> dict[str, bytes]:
    return {image.id: source.read(image) for image in list_images(source)}


def test_every_kind_is_tested(tmp_path: Path) -> None:
    assert {each(tmp_path / each.__name__).kind for each in SOURCES} == set(KINDS)


def test_every_image_comes_exactly_once_with_its_bytes(laid: Laid) -> None:
    source = open_source(laid.spec, laid.options, laid.format)
    images = list(list_images(source))
    assert len({image.id for image in images}) == len(images) == len(FILES)
    assert sorted(map(source.read, images)) == sorted(FILES.values())


def test_ids_can_be_stored(laid: Laid) -> None:
    for image in list_images(open_source(laid.spec, laid.options, laid.format)):
        assert json.loads(json.dumps([image.id, image.uri])) == [image.id, image.uri]
        assert (image.id + image.uri).encode("utf-8")


def test_ids_order_and_versions_are_stable(laid: Laid) -> None:
    source = open_source(laid.spec, laid.options, laid.format)
    first = list(list_images(source))
    assert list(list_images(source)) == list(list_images(open_source(laid.spec, laid.options, laid.format))) == first


def test_two_listings_at_once_do_not_disturb_each_other(laid: Laid) -> None:
    source = open_source(laid.spec, laid.options, laid.format)
    pairs = list(zip(list_images(source), list_images(source), strict=True))
    assert [one for one, _ in pairs] == [other for _, other in pairs] == list(list_images(source))


def test_shards_come_in_the_order_of_their_names_and_hold_the_images(laid: Laid) -> None:
    source = open_source(laid.spec, laid.options, laid.format)
    shards = list(source.shards())
    assert [shard.name for shard in shards] == sorted({shard.name for shard in shards})
    for shard in shards:
        for image in source.images(shard):
            assert image.shard == shard.name == source.shard_of(image.uri)


def test_streams_give_what_read_gives(laid: Laid) -> None:
    source = open_source(laid.spec, laid.options, laid.format)
    images = list(list_images(source))
    assert [pair for shard in source.shards() for pair in source.stream(shard)] == [
        (image, source.read(image)) for image in images
    ]
    assert list(read_all(source, images[1::2])) == [(image, source.read(image)) for image in images[1::2]]


def test_threads_read_at_once(laid: Laid) -> None:
    source = open_source(laid.spec, laid.options, laid.format)
    images = list(list_images(source))
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(source.read, images * 5)) == [source.read(image) for image in images] * 5


def test_a_record_alone_is_enough_to_read(laid: Laid) -> None:
    """As `disambiguate` does: the table has id and uri, and nothing has been listed."""
    source = open_source(laid.spec, laid.options, laid.format)
    images = [
        recall(source, image.id, image.uri) for image in list_images(open_source(laid.spec, laid.options, laid.format))
    ]
    assert sorted(map(source.read, reversed(images))) == sorted(FILES.values())
    assert [data for _, data in read_all(source, images)] == list(map(source.read, images))


def test_an_image_that_vanished_is_a_read_failure(laid: Laid) -> None:
    source = open_source(laid.spec, laid.options, laid.format)
    image = next(image for image in list_images(source) if source.read(image) == FILES["plain.jpg"])
    laid.vanish("plain.jpg")
    with pytest.raises(ReadFailure) as caught:
        source.read(image)
    assert (caught.value.kind, "\n" in caught.value.message) == ("vanished", False)
    assert len(list(list_images(source))) == len(FILES) - 1


def test_a_uri_that_was_never_listed_is_a_read_failure(laid: Laid) -> None:
    source = open_source(laid.spec, laid.options, laid.format)
    image = next(list_images(source))
    for uri in ("nowhere.jpg", "../secret.jpg", "/etc/passwd", "a/../../b.jpg", "", ".", "\0", "//\\xff.jpg"):
        with pytest.raises(ReadFailure):
            source.read(dataclasses.replace(image, id=uri, uri=uri))


def test_what_is_located_is_the_file(laid: Laid) -> None:
    source = open_source(laid.spec, laid.options, laid.format)
    for image in list_images(source):
        path = source.locate(image)
        if path is not None and os.path.isabs(path):
            assert Path(path).read_bytes() == source.read(image)


def test_reopening_gives_the_same_images(laid: Laid) -> None:
    source = open_source(laid.spec, laid.options, laid.format)
    info = source.describe()
    assert info.kind == laid.kind
    stored = json.loads(json.dumps(dataclasses.asdict(info)))
    again = reopen(SourceInfo(**stored))
    assert list(list_images(again)) == list(list_images(source))
    assert contents(again) == contents(source)
    assert again.describe() == info


def test_reopening_a_source_that_moved(laid: Laid) -> None:
    source = open_source(laid.spec, laid.options, laid.format)
    info, before = source.describe(), contents(source)
    moved = laid.move()
    with pytest.raises(SourceError) as caught:
        reopen(info)
    assert "--root" in caught.value.hint
    assert contents(reopen(info, moved)) == before
    offline = reopen(info, offline=True)
    assert offline.describe() == info
    with pytest.raises(SourceError):
        list(list_images(offline))


def test_what_is_left_out_is_known_after_a_complete_listing(laid: Laid) -> None:
    source = open_source(laid.spec, laid.options, laid.format)
    assert source.left_out == {}
    list(islice(list_images(source), 3))
    assert source.left_out == {}
    for _ in range(2):
        list(list_images(source))
        assert dict(source.left_out) == laid.left_out


def test_a_source_without_an_image_is_an_error_that_helps(laid: Laid) -> None:
    for name in FILES:
        laid.vanish(name)
    with pytest.raises(SourceError, match="there are no images") as caught:
        list(list_images(open_source(laid.spec, laid.options, laid.format)))
    assert all(f"{count} {what}" in caught.value.hint for what, count in laid.left_out.items())
    assert "Known endings: " in caught.value.hint
