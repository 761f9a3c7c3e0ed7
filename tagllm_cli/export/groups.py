"""What stays together in one split: copies of an image, the images of a folder, or those with one value of a column."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tagllm_cli.errors import UsageError
from tagllm_cli.export.settings import ExportSettings
from tagllm_cli.export.splits import FOLDER

if TYPE_CHECKING:
    import pyarrow as pa

    from tagllm_cli.store.table import Table


def group_keys(table: Table, settings: ExportSettings) -> Callable[[pa.RecordBatch], Sequence[bytes]]:
    """Return what gives each image of a batch of the table the key of its group."""
    if settings.group_by is None:
        return _fingerprints
    if settings.group_by == FOLDER:
        return _folders(table.info.source.kind)
    raise UsageError(f"--group-by {settings.group_by} is not supported yet", f"Use --group-by {FOLDER}.")


def _fingerprints(batch: pa.RecordBatch) -> Sequence[bytes]:
    both = zip(batch["fingerprint"].to_pylist(), batch["image_id"].to_pylist(), strict=True)
    return [fingerprint or b"id:" + image_id.encode() for fingerprint, image_id in both]


def _folders(kind: str) -> Callable[[pa.RecordBatch], Sequence[bytes]]:
    # The id of an image of a manifest may be anything; its path or URL has a folder.
    column = "uri" if kind == "manifest" else "image_id"

    def folders(batch: pa.RecordBatch) -> Sequence[bytes]:
        return [name.rpartition("/")[0].encode() for name in batch[column].to_pylist()]

    return folders
