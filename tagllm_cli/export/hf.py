"""A folder that `datasets.load_dataset(out)` reads: `image`, `image_id`, `labels`, `scores` and `unknown`, in Parquet.

`labels` and `unknown` are lists of `ClassLabel`, whose numbers are positions in the list of names that travels with
them. Names stand in the order of the permanent label ids, so that a label that is added later moves no other; one that
is removed moves those after it: compare two exports by name. By default the images' own bytes are copied in, so that
the folder can be moved, uploaded or mounted elsewhere and names no path of this machine; it then weighs what the images
weigh. With `embed` off it holds absolute paths instead: small, and only good where the images are.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tagllm_cli.errors import UsageError
from tagllm_cli.export.base import Example, Examples, ExportSettings, ExportSummary, Format, export_card
from tagllm_cli.records import Image, digest16
from tagllm_cli.sources.base import ReadFailure, Source, read_all, recall
from tagllm_cli.sources.registry import reopen
from tagllm_cli.store.atomic import replacing

if TYPE_CHECKING:
    import pyarrow as pa

    from tagllm_cli.store.table import Table

# A row group is what is in memory at a time, here and in `datasets`. The Hub likes shards of about 500 MB.
GROUP_ROWS, GROUP_BYTES, SHARD_BYTES = 1000, 32 << 20, 500 << 20

# Encoded images are not compressed again, and statistics about them are of no use.
_AS_THEY_ARE = {"compression": "none", "use_dictionary": False, "write_statistics": False}
_SHARD = re.compile(r"train-\d{5}-of-\d{5}\.parquet")
_MARK = b"tagllm.export"
_NO_FILE = "not_a_file"
_NAMES = "train-*.parquet"
CARD = "README.md"


def export(table: Table, out: Path, settings: ExportSettings) -> ExportSummary:
    """Write the folder. Images that cannot be read, or that changed since they were labeled, are left out and counted.

    Raises SourceError where the source is not there, and UsageError where not one image of it could be read or named.
    """
    examples = Examples(table, settings)
    source = reopen(table.info.source, settings.root)
    with replacing(out, is_ours=_is_ours) as new:
        data = new / "data"
        data.mkdir(parents=True)
        shards = _write_shards(
            data, _schema([label.name for label in examples.vocabulary]), _records(examples, source, settings.embed)
        )
        summary = examples.summary([])
        if not summary.images and len(table) > summary.left_out.get("failed", 0) + summary.left_out.get("pending", 0):
            raise _nothing_found(source, summary.left_out)
        names = [f"train-{number:05}-of-{len(shards):05}.parquet" for number in range(len(shards))]
        for shard, name in zip(shards, names, strict=True):
            shard.rename(data / name)
        kept = _put_card(out / CARD, new / CARD, export_card(table, summary, settings, f"data/{_NAMES}"))
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


def _put_card(old: Path, new: Path, text: str) -> bool:
    """Write the card of a folder that takes the place of an older one; tell whether somebody's card was kept."""
    from tagllm_cli.store.dataset_card import is_untouched

    keep = old.is_file() and not is_untouched(old)
    new.write_bytes(old.read_bytes() if keep else text.encode("utf-8"))
    return keep


def _nothing_found(source: Source, left_out: Mapping[str, int]) -> UsageError:
    info = source.describe()
    if info.kind in ("tar", "parquet") and left_out.get(_NO_FILE):
        message = f"the images in the {info.kind} files of {info.uri} have no files of their own to be named by"
        return UsageError(message, "Leave out --no-embed: their bytes are copied then.")
    return UsageError(f"not one image of the table can be read below {info.uri}", "Say with --root where they are now.")


FORMAT = Format("hf", "a folder for Hugging Face datasets, images included", export, _is_ours)


def _records(examples: Examples, source: Source, embed: bool) -> Iterator[dict[str, Any]]:
    for example, image in _embedded(examples, source) if embed else _located(examples, source):
        if isinstance(image, ReadFailure):
            examples.drop(example, image.kind)
        else:
            yield {"image": image, "image_id": example.row.image_id, **_labels(example)}


def _located(examples: Examples, source: Source) -> Iterator[tuple[Example, dict[str, Any] | ReadFailure]]:
    for example in examples:
        path = source.locate(recall(source, example.row.image_id, example.row.uri))
        if path is None:
            yield example, ReadFailure(_NO_FILE, "no file of its own, so it cannot be named by a path")
        else:
            yield example, {"bytes": None, "path": path}


def _embedded(examples: Examples, source: Source) -> Iterator[tuple[Example, dict[str, Any] | ReadFailure]]:
    ahead: deque[Example] = deque()  # a source may want to know what follows

    def images() -> Iterator[Image]:
        for example in examples:
            ahead.append(example)
            yield recall(source, example.row.image_id, example.row.uri)

    for image, data in read_all(source, images()):
        example = ahead.popleft()
        if isinstance(data, ReadFailure):
            yield example, data
        elif digest16(data) != example.row.fingerprint:
            yield example, ReadFailure("changed", "the labels are about other bytes")
        else:
            yield example, {"bytes": data, "path": image.id.rpartition("/")[2]}


def _labels(example: Example) -> dict[str, Sequence[float]]:
    return {"labels": example.labels, "scores": example.scores, "unknown": example.unknown}


def _groups(records: Iterator[dict[str, Any]]) -> Iterator[tuple[list[dict[str, Any]], int]]:
    """Yield row groups with their weight in bytes."""
    group: list[dict[str, Any]] = []
    weight = 0
    for record in records:
        group.append(record)
        weight += len(record["image"]["bytes"] or b"")
        if len(group) == GROUP_ROWS or weight >= GROUP_BYTES:
            yield group, weight
            group, weight = [], 0
    if group:
        yield group, weight


def _write_shards(folder: Path, schema: pa.Schema, records: Iterator[dict[str, Any]]) -> list[Path]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    shards: list[Path] = []
    groups = _groups(records)
    group = next(groups, None)
    while group or not shards:  # without any image, one shard without row groups
        shards.append(folder / f"{len(shards)}.parquet")
        written = 0
        with pq.ParquetWriter(shards[-1], schema, **_AS_THEY_ARE) as writer:
            while group and written < SHARD_BYTES:
                writer.write_table(pa.Table.from_pylist(group[0], schema=schema))
                written += group[1]
                group = next(groups, None)
    return shards


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
