"""Option groups of the commands that label: how much of the table, where, and what it may take."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tagllm_cli.cli.options.labeling import (
    AllowGone,
    DryRun,
    EstimateImages,
    GpuPrice,
    Limit,
    MaxCost,
    MaxFailedRate,
    MaxRequests,
    MaxSeconds,
    MissingResponse,
    NoPreflight,
    Offline,
    OnMissing,
    PriceIn,
    PriceOut,
    Ray,
    RayWorkers,
    Replan,
    Sample,
    SampleSeed,
)
from tagllm_cli.cli.options.shared import ShardPart
from tagllm_cli.errors import UsageError

if TYPE_CHECKING:
    from tagllm_cli.engines.base import Usage
    from tagllm_cli.engines.factory import ModelOptions
    from tagllm_cli.evaluation.cost import Prices
    from tagllm_cli.pipeline.label.budget import Limits
    from tagllm_cli.pipeline.label.job import RunOptions


@dataclass(frozen=True)
class RunGroup:
    """How much of the table is done, and when a run ends."""

    limit: Limit = None
    sample: Sample = None
    seed: SampleSeed = 0
    dry_run: DryRun = False
    offline: Offline = False
    missing: OnMissing = MissingResponse.error
    replan: Replan = False
    allow_gone: AllowGone = False
    max_failed_rate: MaxFailedRate = 0.05
    no_preflight: NoPreflight = False
    shard: ShardPart = None

    def run_options(self, limits: Limits, *, by_hash: bool = False) -> RunOptions:
        """Return the run's options; `by_hash`: changed images are told by a hash of their bytes."""
        from tagllm_cli.pipeline.label.job import RunOptions
        from tagllm_cli.pipeline.label.listing import Part

        return RunOptions(
            limit=self.limit,
            sample=self.sample,
            seed=self.seed,
            part=None if self.shard is None else Part.of(self.shard),
            dry_run=self.dry_run,
            offline=self.offline,
            missing_unknown=self.missing is MissingResponse.unknown,
            replan=self.replan,
            by_hash=by_hash,
            allow_gone=self.allow_gone,
            max_failed_rate=self.max_failed_rate,
            preflight=not self.no_preflight,
            limits=limits,
        )


@dataclass(frozen=True)
class RayGroup:
    """Where the workers of a run are."""

    ray: Ray = None
    ray_workers: RayWorkers = None

    def place(self, options: RunOptions, model: ModelOptions) -> tuple[RunOptions, ModelOptions]:
        """Return the options of a run, and the model, with the workers where the user wants them.

        Raises UsageError for --ray-workers without --ray, and for --ray with --record or --gpus.
        """
        from tagllm_cli.pipeline.label.ray.options import RayOptions, gpus_per_worker, on_workers

        if self.ray is None:
            if self.ray_workers is not None:
                raise UsageError("--ray-workers is for --ray only", "Add --ray local, or the address of a cluster.")
            return options, model
        ray = RayOptions(self.ray, self.ray_workers, gpus_per_worker(model))
        return replace(options, ray=ray), on_workers(model)


@dataclass(frozen=True)
class PriceGroup:
    """What the model's work costs."""

    gpu_price: GpuPrice = None
    price_in: PriceIn = None
    price_out: PriceOut = None

    def prices(self) -> Prices:
        """Return the prices. Raises UsageError for one that is no number."""
        from tagllm_cli.evaluation.cost import Prices

        for option, price in (
            ("gpu-price", self.gpu_price),
            ("price-in", self.price_in),
            ("price-out", self.price_out),
        ):
            check_price(f"--{option}", price)
        return Prices(self.gpu_price, self.price_in, self.price_out)


@dataclass(frozen=True)
class BudgetGroup(PriceGroup):
    """What a run may take, and what it will take."""

    estimate: EstimateImages = None
    max_seconds: MaxSeconds = None
    max_requests: MaxRequests = None
    max_cost: MaxCost = None

    def limits(self) -> Limits:
        """Return the limits of a run. Raises UsageError for a limit of money without any price."""
        from tagllm_cli.evaluation.cost import Cost
        from tagllm_cli.pipeline.label.budget import Limits

        prices = self.prices()
        if self.max_cost is not None and not prices.are_known:
            raise UsageError("--max-cost needs a price", "Add --gpu-price, or --price-in and --price-out.")

        def cost_of(gpu_seconds: float, usage: Usage) -> float:
            tokens = {"prompt_tokens": usage.prompt_tokens, "output_tokens": usage.output_tokens}
            return prices.of(Cost(gpu_seconds=gpu_seconds, **tokens)) or 0.0

        return Limits(self.max_seconds, self.max_requests, self.max_cost, cost_of)


def check_price(option: str, price: float | None) -> None:
    """Raise UsageError for a price that is infinite or no number, which `float` reads."""
    if price is not None and not math.isfinite(price):
        raise UsageError(f"{option} {price:g} is no price", f"For example {option} 2.50.")
