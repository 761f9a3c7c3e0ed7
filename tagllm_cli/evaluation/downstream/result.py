"""What a downstream comparison found, as text and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tagllm_cli.evaluation.downstream.gap import Gap
from tagllm_cli.evaluation.downstream.options import DownstreamOptions
from tagllm_cli.evaluation.sections import Cells, Figure, rounded
from tagllm_cli.text import shortened


@dataclass(frozen=True, slots=True)
class SetResult:
    """The classifiers of one label set.

    `maps` is mAP by seed, `map` their mean with its interval; `curves` [seeds][epochs] is mAP after each epoch, `kept`
    the epoch that counts, from 0. `label_ap` is each label's AP, the mean over the seeds, None without a positive.
    `labels_per_image` counts what it was trained on.
    """

    name: str
    labels_per_image: float
    map: Figure
    maps: tuple[float, ...]
    kept: tuple[int, ...]
    curves: tuple[tuple[float, ...], ...]
    label_ap: tuple[float | None, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, epochs counted from 1."""
        return {
            "name": self.name,
            "labels_per_image": round(self.labels_per_image, 4),
            "map": self.map.to_json(),
            "maps": [round(each, 6) for each in self.maps],
            "epochs_kept": [each + 1 for each in self.kept],
            "curves": [[round(each, 6) for each in curve] for curve in self.curves],
        }


@dataclass(frozen=True, slots=True)
class Downstream:
    """What classifiers reached on held-out truth, `sets` in the order of `LabelSets`: ours first, the truth last.

    `left_out` counts images by reason; labels that not all sides know are `labels_left_out`.
    """

    backbone: str
    options: DownstreamOptions
    device: str
    training_images: int
    validation_images: int
    test_images: int
    labels: tuple[str, ...]
    tested_labels: int
    sets: tuple[SetResult, ...]
    gaps: tuple[Gap, ...]
    left_out: Mapping[str, int]
    labels_left_out: tuple[str, ...]

    @property
    def title(self) -> str:
        """What was done, in a line."""
        how = "fine-tuned" if self.options.trains_backbone else "frozen, linear head"
        extra = ", soft labels" * self.options.soft_labels + ", early stopping" * self.options.early_stopping
        return (
            f"downstream: {self.backbone} ({how}{extra}), {len(self.sets[0].maps)} seeds, trained on "
            f"{self.training_images:,} images, tested on the truth of {self.test_images:,} others"
        )

    @property
    def warnings(self) -> list[str]:
        """What is left out, a sentence each."""
        lines = [f"downstream leaves out images: {count:,} {reason}" for reason, count in self.left_out.items()]
        if self.labels_left_out:
            lines.append(f"downstream leaves out labels that not all sides know: {shortened(self.labels_left_out, 8)}")
        if missing := len(self.labels) - self.tested_labels:
            lines.append(f"labels that no test image has, which count in no downstream mAP: {missing:,}")
        return lines

    def tables(self) -> Sequence[tuple[str, Cells]]:
        """Return the figures as titles with (column names, rows)."""
        rows = [
            (each.name, f"{each.labels_per_image:.2f}", str(each.map), " ".join(f"{one:.4f}" for one in each.maps))
            for each in self.sets
        ]
        found: list[tuple[str, Cells]] = [
            (self.title, (("trained on", "labels per image", "mAP [95% interval]", "by seed"), rows))
        ]
        if self.gaps:
            columns = ("plain labels", "truth - plain", f"{self.sets[0].name} - plain", "share of the gap closed")
            lines = [(each.plain, _signed(each.gap), _signed(each.gain), _closed(each)) for each in self.gaps]
            found.append(("differences of mAP, paired over seeds and test images", (columns, lines)))
        return found

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain JSON values."""
        return {
            "backbone": self.backbone,
            "fine_tuned": self.options.trains_backbone,
            "soft_labels": self.options.soft_labels,
            "early_stopping": self.options.early_stopping,
            "epochs": self.options.passes,
            "seeds": len(self.sets[0].maps),
            "device": self.device,
            "training_images": self.training_images,
            "validation_images": self.validation_images,
            "test_images": self.test_images,
            "tested_labels": self.tested_labels,
            "left_out": dict(self.left_out),
            "labels_left_out": list(self.labels_left_out),
            "sets": [each.to_json() for each in self.sets],
            "gaps": [each.to_json() for each in self.gaps],
            "labels": [
                {"name": name, "ap": {each.name: rounded(each.label_ap[number]) for each in self.sets}}
                for number, name in enumerate(self.labels)
            ],
        }


def _signed(found: Figure) -> str:
    return f"{found.value:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"


def _closed(gap: Gap) -> str:
    if gap.closed is None:
        return "not measurable: the gap is not beyond noise"
    return f"{gap.closed.value:.0%} [{gap.closed.low:.0%}, {gap.closed.high:.0%}]"
