"""A folder that `datasets.load_dataset(out)` reads: `image`, `image_id`, `labels`, `scores` and `unknown`, in Parquet.

`labels` and `unknown` are lists of `ClassLabel`, whose numbers are positions in the list of names that travels with
them. Names stand in the order of the permanent label ids, so that a label that is added later moves no other; one that
is removed moves those after it: compare two exports by name. By default the images' own bytes are copied in, so that
the folder can be moved, uploaded or mounted elsewhere and names no path of this machine; it then weighs what the images
weigh. With `images` = `reference` it holds absolute paths instead: small, and only good where the images are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tagllm_cli.export.base import Example, Examples, ExportSettings, ExportSummary, Format, export_card
from tagllm_cli.export.folders import CARD, put_folder_card
from tagllm_cli.export.images import check_some_read, located, read
from tagllm_cli.sources.base import Source
from tagllm_cli.sources.registry import reopen
from tagllm_cli.store.atomic import replacing

if TYPE_CHECKING:
    import pyarrow as pa

    from tagllm_cli.store.table import Table

# A row group is what is in memory at a time, here and in `datasets`. The Hub likes shards of about 500 MB.
GROUP_ROWS, GROUP_BYTES, SHARD_BYTES = 1000, 32 << 20, 500 << 20

# Encoded images are not compressed again, and statistics about them are of no use.
_AS_THEY_ARE = {"compression": "none", "use_dictionary": False, "write_statistics": False}
_SHARD = re.compile(r"[A-Za-z0-9_-]+-\d{5}-of-\d{5}\.parquet")
_ONLY = "train"  # what `datasets` calls the split of files without any
_MARK = b"tagllm.export"


def export(table: Table, out: Path, settings: ExportSettings) -> ExportSummary:
    """Write the folder. Images that cannot be read, or that changed since they were labeled, are left out and counted.

    Raises SourceError where the source is not there, and UsageError where not one image of it could be read or named.
    """
    examples = Examples(table, settings)
    source = reopen(table.info.source, settings.root)
    splits = [name for name, _ in settings.split] or [_ONLY]
    schema = _schema([label.name for label in examples.vocabulary])
    with replacing(out, is_ours=_is_ours) as new:
        data = new / "data"
        data.mkdir(parents=True)
        with ExitStack() as stack:
            shards = {name: stack.enter_context(_Shards(data, name, schema, settings)) for name in splits}
            for split, record in _records(examples, source, embed=settings.images != "reference"):
                shards[split or _ONLY].add(record)
        summary = examples.summary([])
        if not summary.images:
            check_some_read(examples, source)
        names = [name for each in shards.values() for name in each.named()]
        card = export_card(table, summary, settings, {name: f"data/{name}-*.parquet" for name in splits})
        kept = put_folder_card(out / CARD, new / CARD, card)
    files = tuple(out / "data" / name for name in names)
    return replace(examples.summary(files), card=out / CARD, card_kept=kept)


def _is_ours(path: Path) -> bool:
    files = (each for each in path.rglob("*") if not each.is_dir() and each != path / CARD)
    return path.is_dir() and all(file.parent == path / "data" and _is_shard(file) for file in files)


def _is_shard(file: Path) -> bool:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return bool(_SHARD.fullmatch(file.name)) and _MARK in (pq.read_schema(file).metadata or {})
    except pa.ArrowException:
        return False


FORMAT = Format(
    "hf",
    "a folder for Hugging Face datasets, images included",
    export,
    _is_ours,
    lays_out_splits=True,
    holds_unknown=True,
    has_shards=True,
    images=("copy", "reference"),
)


def _records(examples: Examples, source: Source, *, embed: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the split and the columns of each image."""
    images: Iterator[tuple[Example, dict[str, Any]]]
    if embed:
        images = ((each, {"bytes": data, "path": _last(each.row.image_id)}) for each, data in read(examples, source))
    else:
        images = ((each, {"bytes": None, "path": path}) for each, path in located(examples, source))
    for example, image in images:
        yield example.split, {"image": image, "image_id": example.row.image_id, **_labels(example)}


def _last(image_id: str) -> str:
    return image_id.rpartition("/")[2]


def _labels(example: Example) -> dict[str, Sequence[float]]:
    return {"labels": example.labels, "scores": example.scores, "unknown": example.unknown}


class _Shards:
    """The Parquet files of one split; a row group of it is in memory at a time."""

    def __init__(self, folder: Path, split: str, schema: pa.Schema, settings: ExportSettings) -> None:
        self._folder = folder
        self._split = split
        self._schema = schema
        self._most_images = settings.shard_images
        self._most_bytes = settings.shard_bytes or (0 if settings.shard_images else SHARD_BYTES)
        self._group: list[dict[str, Any]] = []
        self._group_bytes = self._bytes = self._images = 0
        self._paths: list[Path] = []
        self._writer: Any = None

    def __enter__(self) -> _Shards:
        return self

    def __exit__(self, *_: object) -> None:
        self._end_group()
        if not self._paths:  # without any image, one shard without row groups
            self._open()
        self._end_shard()

    def add(self, record: dict[str, Any]) -> None:
        """Add an image."""
        self._group.append(record)
        self._group_bytes += len(record["image"]["bytes"] or b"")
        is_full = self._most_images and self._images + len(self._group) >= self._most_images
        if is_full or len(self._group) == GROUP_ROWS or self._group_bytes >= GROUP_BYTES:
            self._end_group()

    def named(self) -> list[str]:
        """Give the files their last names, now that it is known how many there are, and return these."""
        names = [f"{self._split}-{number:05}-of-{len(self._paths):05}.parquet" for number in range(len(self._paths))]
        for path, name in zip(self._paths, names, strict=True):
            path.rename(path.with_name(name))
        return names

    def _end_group(self) -> None:
        import pyarrow as pa

        if not self._group:
            return
        if self._writer is None:
            self._open()
        self._writer.write_table(pa.Table.from_pylist(self._group, schema=self._schema))
        self._images += len(self._group)
        self._bytes += self._group_bytes
        self._group, self._group_bytes = [], 0
        if (0 < self._most_images <= self._images) or (0 < self._most_bytes <= self._bytes):
            self._end_shard()

    def _open(self) -> None:
        import pyarrow.parquet as pq

        self._paths.append(self._folder / f"{self._split}.{len(self._paths)}")
        self._writer = pq.ParquetWriter(self._paths[-1], self._schema, **_AS_THEY_ARE)

    def _end_shard(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer, self._images, self._bytes = None, 0, 0


def _schema(names: Sequence[str]) -> pa.Schema:
    import pyarrow as pa

    listed = {"feature": {"names": list(names), "_type": "ClassLabel"}, "_type": "Sequence"}
    features = {
        "image": {"_type": "Image"},
        "image_id": {"dtype": "string", "_type": "Value"},
        "labels": listed,
        "scores": {"feature": {"dtype": "float32", "_type": "Value"}, "_type": "Sequence"},
        "unknown": listed,
    }
    types = {
        "image": pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
        "image_id": pa.string(),
        "labels": pa.list_(pa.int64()),
        "scores": pa.list_(pa.float32()),
        "unknown": pa.list_(pa.int64()),
    }
    return pa.schema(types.items(), {"huggingface": json.dumps({"info": {"features": features}}), _MARK: b"hf"})
