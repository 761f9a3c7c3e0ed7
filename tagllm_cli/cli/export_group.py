"""The options of `tagllm export` that say what is exported of a table, as one group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tagllm_cli.cli.options.exporting import (
    Copy,
    ExportLabels,
    FormatOptions,
    GroupBy,
    IncludeUnknown,
    Link,
    MinProbability,
    NoEmbed,
    Reference,
    ScoreThreshold,
    ShardSize,
    Shares,
    SplitSeed,
    Unknown,
)
from tagllm_cli.cli.options.labeling import ThresholdFile
from tagllm_cli.cli.options.shared import Root

if TYPE_CHECKING:
    from tagllm_cli.export.settings import ExportSettings


@dataclass(frozen=True)
class ExportGroup:
    """What counts as a label, which images are taken, and what becomes of their files."""

    root: Root = None
    labels: ExportLabels = None
    threshold: ScoreThreshold = None
    thresholds: ThresholdFile = None
    min_probability: MinProbability = None
    unknown: Unknown = None
    include_unknown: IncludeUnknown = False
    split: Shares = None
    seed: SplitSeed = 0
    group_by: GroupBy = None
    copy: Copy = False
    link: Link = False
    reference: Reference = False
    no_embed: NoEmbed = False
    option: FormatOptions = None
    shard_size: ShardSize = None

    def settings(self) -> ExportSettings:
        """Return what an export takes of a table. Raises UsageError for options that cannot be read or go together."""
        from tagllm_cli.cli.option_groups import names
        from tagllm_cli.export.options import parse_options
        from tagllm_cli.export.settings import ExportSettings, chosen_images, chosen_unknown, label_names, shard_size
        from tagllm_cli.export.splits import parse_shares

        images, size = shard_size(self.shard_size)
        unknown = None if self.unknown is None else str(self.unknown.value)
        return ExportSettings(
            self.root,
            self.threshold,
            self.thresholds,
            labels=label_names(names(self.labels, "--labels", "dog,cat") or ()),
            min_probability=self.min_probability,
            unknown=chosen_unknown(unknown, include_unknown=self.include_unknown),
            split=() if self.split is None else parse_shares(self.split),
            seed=self.seed,
            group_by=self.group_by,
            images=chosen_images(copy=self.copy, link=self.link, reference=self.reference, no_embed=self.no_embed),
            format_options=parse_options(self.option or ()),
            shard_images=images,
            shard_bytes=size,
        )
