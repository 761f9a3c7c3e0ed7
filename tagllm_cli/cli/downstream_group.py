"""Options of `evaluate --downstream`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tagllm_cli.cli.options.base import FLAG
from tagllm_cli.cli.options.shared import Root
from tagllm_cli.errors import UsageError

if TYPE_CHECKING:
    from tagllm_cli.evaluation.downstream.options import DownstreamOptions

_option = partial(typer.Option, rich_help_panel="Downstream: a classifier trained on the labels")

Downstream = Annotated[
    bool,
    _option(
        "--downstream",
        metavar=FLAG,
        help="Train the same classifier on this table, on --compare tables and on the truth; test it on other truth.",
    ),
]
BackboneName = Annotated[
    str | None,
    _option(
        "--backbone",
        metavar="NAME",
        help="Image model of transformers, or `scratch`, a small ResNet. (default: microsoft/resnet-50)",
    ),
]
FineTune = Annotated[
    bool, _option("--fine-tune", metavar=FLAG, help="Train the backbone, too, not only a linear head over it.")
]
SoftLabels = Annotated[
    bool, _option("--soft-labels", metavar=FLAG, help="Train on the tables' probabilities instead of yes and no.")
]
EarlyStopping = Annotated[
    bool,
    _option("--early-stopping", metavar=FLAG, help="Keep the best epoch by a tenth of the training labels."),
]
Epochs = Annotated[
    int | None,
    _option(
        "--epochs",
        metavar="N",
        min=1,
        help="Passes over the training images. (default: 30, with --fine-tune 10)",
    ),
]
Seeds = Annotated[int | None, _option("--seeds", metavar="N", min=1, help="Classifiers per label set. (default: 5)")]
TestShare = Annotated[
    float | None,
    _option("--test-share", metavar="P", help="Share of the images to test on, drawn by content. (default: 0.3)"),
]
Plot = Annotated[
    Path | None, _option("--plot", metavar="FILE", help="Write mAP by epoch as a PNG, SVG or PDF picture.")
]


@dataclass(frozen=True)
class DownstreamGroup:
    """Whether and how classifiers are trained on labels."""

    downstream: Downstream = False
    backbone: BackboneName = None
    fine_tune: FineTune = False
    soft_labels: SoftLabels = False
    early_stopping: EarlyStopping = False
    epochs: Epochs = None
    seeds: Seeds = None
    test_share: TestShare = None
    plot: Plot = None
    root: Root = None

    def options(self, against: Sequence[Path], *, include_human: bool) -> DownstreamOptions | None:
        """Return how classifiers are trained, None where nobody asked for them.

        Raises UsageError for an option that has no use without --downstream, and what `DownstreamOptions.check` raises.
        """
        if not self.downstream:
            unused = [each.name for each in fields(self) if getattr(self, each.name) != each.default]
            if unused:
                raise UsageError(f"--{unused[0].replace('_', '-')} is for --downstream only", "Add --downstream.")
            return None
        from tagllm_cli.evaluation.downstream.options import BACKBONE, SEEDS, TEST_SHARE, DownstreamOptions

        chosen = DownstreamOptions(
            against=tuple(against),
            backbone=BACKBONE if self.backbone is None else self.backbone,
            fine_tune=self.fine_tune,
            soft_labels=self.soft_labels,
            early_stopping=self.early_stopping,
            epochs=self.epochs,
            seeds=SEEDS if self.seeds is None else self.seeds,
            test_share=TEST_SHARE if self.test_share is None else self.test_share,
            root=self.root,
            include_human=include_human,
            plot=self.plot,
        )
        chosen.check()
        return chosen
