"""FILES laid out as a source of each kind, on disk and in a bucket."""

from __future__ import annotations

import csv
import dataclasses
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from tagllm_cli.sources.base import DEFAULT_OPTIONS, SourceOptions
from tests.support.object_store import object_store
from tests.support.packing import tar_of

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
        path.write_bytes(tar_of(files))

    def vanish(name: str) -> None:
        path, files = next((path, files) for path, files in shards.items() if name in files)
        del files[name]
        if files:
            path.write_bytes(tar_of(files))
        else:
            path.unlink()

    return Laid("tar", str(root), vanish, lambda: str(root.rename(tmp_path / "moved")), format="tar")


def tar_on_s3(tmp_path: Path) -> Laid:
    store = object_store()
    root = store.bucket()
    shards = {f"{root}/shards/{number}.tar": files for number, files in enumerate(tar_shards())}
    for url, files in shards.items():
        store.upload(url, tar_of(files))

    def vanish(name: str) -> None:
        url, files = next((url, files) for url, files in shards.items() if name in files)
        del files[name]
        if files:
            store.upload(url, tar_of(files))
        else:
            store.delete(url)

    def move() -> str:
        for url, files in shards.items():
            store.upload(url.replace("/shards/", "/moved/"), tar_of(files))
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
