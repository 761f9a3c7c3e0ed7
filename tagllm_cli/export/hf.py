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
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tagllm_cli.export.base import Example, Examples, ExportSettings, ExportSummary, Format, export_card
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
_SHARD = re.compile(r"train-\d{5}-of-\d{5}\.parquet")
_MARK = b"tagllm.export"
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
            data,
            _schema([label.name for label in examples.vocabulary]),
            _records(examples, source, embed=settings.embed and settings.images != "reference"),
        )
        summary = examples.summary([])
        if not summary.images:
            check_some_read(examples, source)
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


FORMAT = Format(
    "hf",
    "a folder for Hugging Face datasets, images included",
    export,
    _is_ours,
    holds_unknown=True,
    images=("copy", "reference"),
)


def _records(examples: Examples, source: Source, *, embed: bool) -> Iterator[dict[str, Any]]:
    images: Iterator[tuple[Example, dict[str, Any]]]
    if embed:
        images = ((each, {"bytes": data, "path": _last(each.row.image_id)}) for each, data in read(examples, source))
    else:
        images = ((each, {"bytes": None, "path": path}) for each, path in located(examples, source))
    for example, image in images:
        yield {"image": image, "image_id": example.row.image_id, **_labels(example)}


def _last(image_id: str) -> str:
    return image_id.rpartition("/")[2]


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
