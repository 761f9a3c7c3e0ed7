"""WebDataset: tar shards with each image and a JSON file beside it, as `webdataset` streams them.

    train-000000.tar    000000000.jpg  000000000.json  000000001.png  000000001.json  ...

Without splits the shards are `data-000000.tar`. The key of an image is its number in its split, which has no dots
whatever the image is called; its JSON has `image_id`, `width`, `height`, `labels`, `scores` (of `labels`), `unknown`
and `human` (labels that a person decided). A shard ends at MOST_IMAGES images or MOST_BYTES, unless told otherwise.
"""

from __future__ import annotations

import json
import tarfile
from contextlib import ExitStack
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from tagllm_cli.export.base import Example, Examples, ExportSettings, ExportSummary, Format, export_card
from tagllm_cli.export.folders import CARD, is_marked, mark_folder, put_folder_card
from tagllm_cli.export.images import check_some_read, ending_of, read
from tagllm_cli.sources.registry import reopen
from tagllm_cli.store.atomic import replacing

if TYPE_CHECKING:
    from tagllm_cli.store.table import Table

MOST_IMAGES, MOST_BYTES = 10_000, 1 << 30
_NAME = "webdataset"
_ONLY = "data"
_is_ours = is_marked(_NAME, keeps_card=True)


def export(table: Table, out: Path, settings: ExportSettings) -> ExportSummary:
    """Write the folder of shards. Images that cannot be read, or that changed, are left out and counted.

    Raises SourceError where the source is not there, and UsageError where not one image of it could be read.
    """
    examples = Examples(table, settings)
    source = reopen(table.info.source, settings.root)
    names = [label.name for label in examples.vocabulary]
    splits = [name for name, _ in settings.split] or [_ONLY]
    with replacing(out, is_ours=_is_ours) as new:
        new.mkdir()
        with ExitStack() as stack:
            shards = {split: stack.enter_context(_Shards(new, split, settings)) for split in splits}
            for example, data in read(examples, source):
                ending = ending_of(example.row.image_id, data) or ending_of(example.row.uri, data) or ".img"
                shards[example.split or _ONLY].add(ending, data, _sidecar(example, names))
        if not examples.summary([]).images:
            check_some_read(examples, source)
        files = [out / name for each in shards.values() for name in each.names]
        summary = examples.summary(files)
        card = export_card(table, summary, settings, {split: f"{split}-*.tar" for split, _ in settings.split})
        kept = put_folder_card(out / CARD, new / CARD, card)
        mark_folder(new, _NAME, keeps_card=True)
    return replace(summary, card=out / CARD, card_kept=kept)


FORMAT = Format(
    _NAME,
    "tar shards with a JSON file beside each image, for webdataset",
    export,
    _is_ours,
    lays_out_splits=True,
    holds_unknown=True,
    images=("copy",),
    has_shards=True,
)


def _sidecar(example: Example, names: list[str]) -> bytes:
    row = example.row
    value = {
        "image_id": row.image_id,
        "width": row.width,
        "height": row.height,
        "labels": [names[label] for label in example.labels],
        "scores": example.scores,
        "unknown": [names[label] for label in example.unknown],
        "human": [names[label] for label in sorted(example.human)],
    }
    return json.dumps(value, ensure_ascii=False).encode()


class _Shards:
    """The shards of one split, of which one is open."""

    def __init__(self, folder: Path, split: str, settings: ExportSettings) -> None:
        is_chosen = settings.shard_images or settings.shard_bytes
        self._most_images = settings.shard_images if is_chosen else MOST_IMAGES
        self._most_bytes = settings.shard_bytes if is_chosen else MOST_BYTES
        self._folder = folder
        self._split = split
        self._number = self._images = self._bytes = 0
        self._tar: tarfile.TarFile | None = None
        self.names: list[str] = []

    def __enter__(self) -> _Shards:
        return self

    def __exit__(self, *_: object) -> None:
        if not self.names:  # without any image, one empty shard
            self._open()
        self._close()

    def add(self, ending: str, data: bytes, sidecar: bytes) -> None:
        """Add an image."""
        key = f"{self._number:09}"
        tar = self._tar or self._open()
        for name, content in ((f"{key}{ending}", data), (f"{key}.json", sidecar)):
            entry = tarfile.TarInfo(name)  # its time, owner and mode are always the same
            entry.size = len(content)
            tar.addfile(entry, BytesIO(content))
        self._number += 1
        self._images += 1
        self._bytes += len(data) + len(sidecar)
        if 0 < self._most_images <= self._images or 0 < self._most_bytes <= self._bytes:
            self._close()

    def _open(self) -> tarfile.TarFile:
        self.names.append(f"{self._split}-{len(self.names):06}.tar")
        path = self._folder / self.names[-1]
        self._tar = tarfile.open(path, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115 (closed when it is full)
        return self._tar

    def _close(self) -> None:
        if self._tar is not None:
            self._tar.close()
        self._tar, self._images, self._bytes = None, 0, 0
