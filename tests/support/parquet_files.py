"""Parquet files for tests, and what a source makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tagllm_cli.sources.base import Source, SourceOptions, list_images, read_or_failure
from tagllm_cli.sources.registry import open_source

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
