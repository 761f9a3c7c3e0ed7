"""What runs cost, and what people would cost for the same labels. Money is in the unit of the prices, whichever it is.

    cost of a run = GPU-hours x price per GPU-hour + prompt and output tokens x prices per million tokens

GPU-hours are the whole command's: the model's start and the end of the table are paid for like the rest.

People are counted in the *annotation units* of a published price list: one person looks at one image with up to 20
labels and marks those that apply. Google's AI Platform Data Labeling Service asked 35 US dollars for 1,000 units of
image classification, single-label or multi-label (the first 50,000 units of a month), and showed a person at most 20
labels at a time, so that 80 labels are four units per image; several people per image cost that many times as much:
https://cloud.google.com/ai-platform/data-labeling/pricing

The paper's claim (arXiv 2602.20972): a multimodal LLM labels at as little as a thousandth of the human cost.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from tagllm_cli.store.run_records import RunRecord

HUMAN_PRICE = 35.0  # for 1,000 annotation units
LABELS_PER_UNIT = 20
PAPERS_RATIO = 1 / 1000


@dataclass(frozen=True, slots=True)
class Prices:
    """Prices in any one unit of money; None: nothing is paid for that. Cached prompt tokens cost like any others."""

    gpu_hour: float | None = None
    million_in: float | None = None
    million_out: float | None = None

    @property
    def are_known(self) -> bool:
        """Whether there is any."""
        return any(price is not None for price in (self.gpu_hour, self.million_in, self.million_out))

    def of(self, cost: Cost) -> float | None:
        """Return what a run, or several, cost in money; None without any price.

        >>> Prices(gpu_hour=2.0, million_in=1.0).of(Cost(gpu_seconds=1800.0, prompt_tokens=500_000))
        1.5
        """
        if not self.are_known:
            return None
        tokens = cost.prompt_tokens * (self.million_in or 0) + cost.output_tokens * (self.million_out or 0)
        return cost.gpu_seconds / 3600 * (self.gpu_hour or 0) + tokens / 1e6

    def to_json(self) -> dict[str, float | None]:
        """Return the prices by name."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Cost:
    """What a run took, or several together.

    Args:
        seconds: of the whole command, by the clock; of a run that did not end, until its last answer.
        gpu_seconds: the same times the number of GPUs.
        requests: all that were answered or failed.
        cached_tokens: those of `prompt_tokens` that came from the prefix cache.
        without_end: runs that did not end (yet), whose `seconds` are a lower bound.
        without_seconds: runs whose seconds nobody knows, and which count as 0 s.
        without_gpus: runs whose record does not say how many GPUs they had, and which count with one.
    """

    seconds: float = 0.0
    gpu_seconds: float = 0.0
    requests: int = 0
    failed_requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    without_end: int = 0
    without_seconds: int = 0
    without_gpus: int = 0

    @classmethod
    def of(cls, run: RunRecord) -> Cost:
        """Return what a run on record took."""
        asked, tokens = _mapping(run.report.get("asked")), _mapping(run.report.get("tokens"))
        counts = (
            run.answers
            if run.answers is not None
            else (
                *(asked.get("requests", 0), tokens.get("prompt", 0)),
                *(tokens.get("cached", 0), tokens.get("output", 0), asked.get("failed_requests", 0)),
            )
        )
        requests, prompt, cached, output, failed = counts
        seconds, gpus = run.report.get("seconds"), run.report.get("gpus")
        return cls(
            seconds=seconds or 0.0,
            gpu_seconds=(seconds or 0.0) * (1 if gpus is None else gpus),
            requests=requests,
            failed_requests=failed,
            prompt_tokens=prompt,
            cached_tokens=cached,
            output_tokens=output,
            without_end=int(run.ended is None),
            without_seconds=int(seconds is None and requests > 0),
            without_gpus=int(gpus is None),
        )

    def plus(self, other: Cost) -> Cost:
        """Return what both took."""
        return Cost(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))

    @property
    def cached_share(self) -> float | None:
        """The share of the prompt tokens that came from the prefix cache; None without tokens."""
        return self.cached_tokens / self.prompt_tokens if self.prompt_tokens else None

    def to_json(self) -> dict[str, Any]:
        """Return everything by name, rounded."""
        share = self.cached_share
        rounded = {name: round(value, 3) if isinstance(value, float) else value for name, value in asdict(self).items()}
        return {**rounded, "cached_share": None if share is None else round(share, 4)}


@dataclass(frozen=True, slots=True)
class HumanCost:
    """What people would cost who answer the same question: which of `labels` labels apply to each image.

    `price` is for 1,000 annotation units, one person each.

    >>> HumanCost(80).per_1000_images
    140.0
    """

    labels: int
    price: float = HUMAN_PRICE

    @property
    def units_per_image(self) -> int:
        """How many times a person looks at an image."""
        return math.ceil(self.labels / LABELS_PER_UNIT)

    @property
    def per_1000_images(self) -> float:
        """The price of 1,000 images."""
        return self.units_per_image * self.price

    def ratio(self, per_1000_images: float | None) -> float | None:
        """Return a price of 1,000 images as a share of the human one; None where either is not known or 0."""
        return per_1000_images / self.per_1000_images if per_1000_images and self.per_1000_images else None

    def to_json(self) -> dict[str, Any]:
        """Return everything by name."""
        return {
            "price_per_1000_units": self.price,
            "labels_per_unit": LABELS_PER_UNIT,
            "units_per_image": self.units_per_image,
            "per_1000_images": self.per_1000_images,
        }


def per_1000(money: float | None, images: int) -> float | None:
    """Return the price of 1,000 images, None where there are none."""
    return None if money is None or not images else money / images * 1000


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
