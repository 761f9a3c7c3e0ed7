"""What stays together in one split: copies of an image, the images of a folder, or those with one value of a column."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, cast

from tagllm_cli.errors import UsageError
from tagllm_cli.export.settings import ExportSettings
from tagllm_cli.export.splits import FOLDER
from tagllm_cli.sources.base import HasColumns, recall
from tagllm_cli.sources.registry import KINDS, reopen

if TYPE_CHECKING:
    import pyarrow as pa

    from tagllm_cli.records import Image
    from tagllm_cli.store.table import Table


class Groups:
    """Gives the images of a table the keys of their groups, batch by batch in the table's order.

    An image without a value in the column is a group of its own, as are its copies. `notes` are sentences about what
    was found. Raises UsageError where the table's source has no columns, and SourceError where it cannot be read.
    """

    def __init__(self, table: Table, settings: ExportSettings) -> None:
        self._by = settings.group_by
        self._kind = table.info.source.kind
        self._recall: Callable[[str, str], Image] | None = None
        self._without_value = 0
        self._seen: set[bytes] = set()  # the first two
        if self._by in (None, FOLDER):
            return
        kind = KINDS.get(self._kind)
        if kind is not None and not kind.columns:
            message = f"--group-by {self._by} is a column, and the images of {table.info.source.uri} have none"
            raise UsageError(message, f"Columns are in manifests and Parquet files. Use --group-by {FOLDER}.")
        source = reopen(table.info.source, settings.root)
        self._value = cast(HasColumns, source).column(str(self._by))
        self._recall = lambda image_id, uri: recall(source, image_id, uri)

    @property
    def notes(self) -> Iterator[str]:
        """Yield what users should know about the groups."""
        if self._without_value:
            yield f"{self._without_value:,} images have no value of {self._by}: each was put into a split by itself"
        if len(self._seen) == 1 and self._by is not None:
            yield f"all images are in one group by {self._by}, and so in one split"

    def keys(self, batch: pa.RecordBatch) -> Sequence[bytes]:
        """Return the key of each image's group."""
        if self._by is None:
            return _fingerprints(batch)
        keys = self._folders(batch) if self._by == FOLDER else self._values(batch)
        if len(self._seen) < 2:
            self._seen.update(islice(set(keys), 2))
        return keys

    def _folders(self, batch: pa.RecordBatch) -> Sequence[bytes]:
        # The id of an image of a manifest may be anything; its path or URL has a folder.
        column = "uri" if self._kind == "manifest" else "image_id"
        return [b"folder:" + name.rpartition("/")[0].encode() for name in batch[column].to_pylist()]

    def _values(self, batch: pa.RecordBatch) -> Sequence[bytes]:
        assert self._recall is not None
        images = map(self._recall, batch["image_id"].to_pylist(), batch["uri"].to_pylist())
        values = [self._value(image) for image in images]
        self._without_value += values.count(None)
        both = zip(values, _fingerprints(batch), strict=True)
        return [own if value is None else b"value:" + value.encode() for value, own in both]


def _fingerprints(batch: pa.RecordBatch) -> Sequence[bytes]:
    both = zip(batch["fingerprint"].to_pylist(), batch["image_id"].to_pylist(), strict=True)
    return [fingerprint or b"id:" + image_id.encode() for fingerprint, image_id in both]
