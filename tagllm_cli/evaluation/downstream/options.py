"""What the user chooses of a downstream comparison."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tagllm_cli.errors import UsageError

SCRATCH = "scratch"
BACKBONE = "microsoft/resnet-50"
SEEDS = 5
TEST_SHARE = 0.3

# Passes over the training images.
_EPOCHS, _EPOCHS_FINE_TUNED = 30, 10


@dataclass(frozen=True, slots=True)
class DownstreamOptions:
    """How classifiers are trained and compared.

    Args:
        against: other label or candidate tables of the same images ("plain labels").
        backbone: an image model that `transformers` loads, from the hub or a folder; SCRATCH: a small ResNet without
            pretrained weights.
        fine_tune: train the backbone, too; else it is frozen under a linear head. SCRATCH is always trained.
        soft_labels: train on probabilities where a table has them, instead of yes and no.
        early_stopping: keep the epoch with the least loss on a part of the training images, by their own labels.
        epochs: passes over the training images; None: what suits the backbone.
        seeds: classifiers per label set.
        test_share: share of the images, in (0, 1), on which classifiers are tested.
        root: where the images are now; None: where the table says.
        include_human: train on labels that people decided, too.
        plot: PNG, SVG or PDF file of the curves.
    """

    against: tuple[Path, ...] = ()
    backbone: str = BACKBONE
    fine_tune: bool = False
    soft_labels: bool = False
    early_stopping: bool = False
    epochs: int | None = None
    seeds: int = SEEDS
    test_share: float = TEST_SHARE
    root: str | None = None
    include_human: bool = False
    plot: Path | None = None

    @property
    def is_scratch(self) -> bool:
        """Whether the backbone starts without pretrained weights."""
        return self.backbone == SCRATCH

    @property
    def trains_backbone(self) -> bool:
        """Whether more than a linear head is trained."""
        return self.fine_tune or self.is_scratch

    @property
    def passes(self) -> int:
        """How many epochs a classifier is trained for, at most."""
        if self.epochs is not None:
            return self.epochs
        return _EPOCHS_FINE_TUNED if self.fine_tune and not self.is_scratch else _EPOCHS

    def check(self) -> None:
        """Raise UsageError for what cannot work, and where a package of the extra is missing; before any work."""
        if not 0 < self.test_share < 1:
            raise UsageError(f"--test-share {self.test_share:g} is no share", "Give a number between 0 and 1.")
        needed = ["torch", "transformers", "torchmetrics"]
        if self.plot is not None:
            from tagllm_cli.store.atomic import check_writable_path

            check_writable_path(self.plot)
            if self.plot.suffix.lower() not in (".png", ".svg", ".pdf"):
                raise UsageError(f"{self.plot} is no picture", "Give --plot a name that ends in .png, .svg or .pdf.")
            needed.append("matplotlib")
        if missing := [name for name in needed if not _is_installed(name)]:
            raise UsageError(f"--downstream needs {', '.join(missing)}", "pip install 'tagllm[downstream]'")


def _is_installed(name: str) -> bool:
    import importlib.util

    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):  # None in sys.modules, or a module that was never imported properly
        return False
