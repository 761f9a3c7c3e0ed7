"""Where the workers of a run are."""

from __future__ import annotations

from dataclasses import dataclass

LOCAL = "local"


@dataclass(frozen=True, slots=True)
class RayOptions:
    """Where the workers run: `local`, or the address of a cluster (`host:port`, `auto`).

    `workers`: how many; None: one per GPU (of `gpus_per_worker`), on machines without one per machine.
    """

    address: str
    workers: int | None = None
    gpus_per_worker: int = 1
