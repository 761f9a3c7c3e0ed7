"""Images packed as sources of every kind, on disk and in a bucket: the same bytes in the same order."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.support.object_store import object_store

PER_SHARD = 5


def tar_of(files: Mapping[str, bytes]) -> bytes:
    """Return a tar file with these members."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return packed.getvalue()


def parquet_of(files: Mapping[str, bytes]) -> bytes:
    """Return a Parquet file with a struct of bytes and path, as Hugging Face datasets have it, in two row groups."""
    images = [{"bytes": data, "path": name} for name, data in files.items()]
    packed = io.BytesIO()
    column = pa.array(images, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    pq.write_table(pa.table({"image": column}), packed, row_group_size=(len(files) + 1) // 2)
    return packed.getvalue()


def files_below(folder: Path) -> dict[str, bytes]:
    """Return the files of a folder by path below it, in the order of a listing."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def shards_of(files: Mapping[str, bytes], kind: str, per_shard: int = PER_SHARD) -> dict[str, bytes]:
    """Return the files packed into shards of a kind (`tar`, `parquet`), by name."""
    pack = {"tar": tar_of, "parquet": parquet_of}[kind]
    names = list(files)
    parts = [names[start : start + per_shard] for start in range(0, len(names), per_shard)]
    return {f"{number:05}.{kind}": pack({name: files[name] for name in part}) for number, part in enumerate(parts)}


def packed(folder: Path, place: str, out: Path, per_shard: int = PER_SHARD) -> str:
    """Pack the images of a folder below `out` or into a new bucket, and return the source's name.

    `place` is one of PLACES; `per_shard` images go into a shard.
    """
    kind, _, where = place.partition(" on ")
    files = files_below(folder)
    if kind == "manifest":
        out.mkdir(parents=True)
        lines = [str(folder / name) for name in files]
        (out / "images.csv").write_text("path,id\n" + "".join(f"{line},{Path(line).name}\n" for line in lines))
        return str(out / "images.csv")
    contents = files if kind == "folder" else shards_of(files, kind, per_shard)
    if where == "S3":
        return f"{object_store().bucket({f'data/{name}': data for name, data in contents.items()})}/data"
    for name, data in contents.items():
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return str(out)


PLACES: Sequence[str] = (
    "folder", "tar", "parquet", "manifest", "folder on S3", "tar on S3", "parquet on S3",
)  # fmt: skip
