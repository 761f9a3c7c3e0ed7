"""What a module of an export format needs: examples, settings, summary, and the record that the registry lists.

Imports nothing heavy, and neither does a format's module: the command line lists the formats in its help. Outputs are
put in place by `store.atomic.replacing`; those that place image files use `export.images`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tagllm_cli.export.chunks import Example
from tagllm_cli.export.examples import Examples, numbered_labels
from tagllm_cli.export.options import Option
from tagllm_cli.export.settings import IMAGES, ExportSettings
from tagllm_cli.export.summary import ExportSummary

if TYPE_CHECKING:
    from tagllm_cli.store.table import Table

__all__ = [
    "Example",
    "Examples",
    "ExportSettings",
    "ExportSummary",
    "Format",
    "Option",
    "export_card",
    "numbered_labels",
]


@dataclass(frozen=True, slots=True)
class Format:
    """An export format: its name, one phrase for the command line's help, and what writes it.

    `export(table, out, settings)` raises UsageError for what cannot be exported and for an occupied `out`: one that
    holds something, and not `is_ours(out)`, an earlier export in this format. A format that `lays_out_splits` writes
    them itself, by `Example.split`; the others are called once for each split, with a file of its own. `images` are
    those of IMAGES that a format can do, () for one that holds no images; `holds_images` stands for all of them.
    `holds_unknown` tells whether undecided labels are told from absent ones, `has_shards` whether files are cut
    by settings.shard_images and shard_bytes. `options` are those of `--option`; `export` gets a value for each in
    `ExportSettings.format_options`. Without `has_card` no dataset card is written.
    """

    name: str
    help: str
    export: Callable[[Table, Path, ExportSettings], ExportSummary]
    is_ours: Callable[[Path], bool]
    lays_out_splits: bool = False
    holds_images: bool = False
    holds_unknown: bool = False
    images: tuple[str, ...] = ()
    options: Mapping[str, Option] = field(default_factory=dict)
    has_card: bool = True
    has_shards: bool = False

    @property
    def image_modes(self) -> tuple[str, ...]:
        """Which of IMAGES the format can do."""
        return IMAGES if self.holds_images and not self.images else self.images


def export_card(
    table: Table, summary: ExportSummary, settings: ExportSettings, data_files: Mapping[str, str] | None = None
) -> str:
    """Return the dataset card of an export; `data_files` are patterns of what `datasets` loads beside it, by split."""
    import tagllm_cli
    from tagllm_cli.store.dataset_card import CardFacts, card_text

    facts = CardFacts(
        summary.images,
        summary.by_label,
        unknown=summary.unknown,
        human=summary.human,
        left_out=summary.left_out,
        exported=settings.labels,
        threshold=settings.threshold,
        data_files=data_files or {},
    )
    return card_text(table.info, facts, tagllm_cli.__version__)
