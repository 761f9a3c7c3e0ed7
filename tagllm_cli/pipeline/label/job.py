"""What one command labels, and how much of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tagllm_cli.engines.base import Engine
from tagllm_cli.engines.identity import ModelIdentity
from tagllm_cli.engines.local.image_tokens import TokenCounter
from tagllm_cli.labeling.plan import Plan, PlanOptions
from tagllm_cli.labeling.stage import Stage
from tagllm_cli.pipeline.label.budget import Limits
from tagllm_cli.pipeline.label.listing import Part, Selection
from tagllm_cli.pipeline.label.ray.options import RayOptions
from tagllm_cli.records import Item
from tagllm_cli.sources.base import Source


@dataclass(frozen=True, slots=True)
class Job:
    """What one command labels: the images, what to ask about them, and how a plan becomes a stage.

    `served` asks the endpoints for the model that they serve; it is called only where neither the user nor the pinned
    plan names the model. `counter` returns what counts tokens for --dry-run, and raises ModelError where nothing can.
    `items` is what an `earlier` table says about the images; None: the source itself is listed. `derivation` holds the
    settings that change the table without a new request (votes, thresholds). `notes` are said when it runs.
    """

    command: str
    out: Path
    plan_options: PlanOptions
    source: Source
    items: Callable[[], Iterator[Item]] | None
    stage: Callable[[Plan], Stage]
    engine: Callable[[Plan], Engine]
    served: Callable[[], ModelIdentity | None]
    counter: Callable[[], TokenCounter]
    next_command: str
    derivation: Mapping[str, Any]
    expects_same_bytes: bool = False
    earlier: Path | None = None
    notes: Sequence[str] = ()

    @property
    def evidence(self) -> Path:
        """The evidence file, beside the table."""
        return self.out.with_name(self.out.name.removesuffix(".parquet") + ".evidence")


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How much to do and when to stop: the options that every labelling command shares.

    `max_failed_rate` is the share of rows in [0, 1] that may be failed or partial before the run ends with exit code 3.
    `tables_only` lists the images and writes the table, and asks nothing. `ray`: where the workers are; None: in this
    process.
    """

    limit: int | None = None
    sample: int | None = None
    seed: int = 0
    part: Part | None = None
    dry_run: bool = False
    offline: bool = False
    missing_unknown: bool = False
    replan: bool = False
    by_hash: bool = False
    allow_gone: bool = False
    max_failed_rate: float = 0.05
    preflight: bool = True
    limits: Limits = Limits()  # noqa: RUF009 (frozen)
    tables_only: bool = False
    ray: RayOptions | None = None

    @property
    def asks(self) -> bool:
        """Whether anything may be asked."""
        return not (self.offline or self.tables_only)

    @property
    def complete(self) -> bool:
        """Whether a listing under these options shows every image of the table."""
        return self.selection.is_complete

    @property
    def selection(self) -> Selection:
        """Which images the run is about."""
        return Selection(self.part, self.sample, self.limit, self.seed)
