"""Where the workers of a run are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tagllm_cli.engines.options import ModelOptions
from tagllm_cli.errors import UsageError

LOCAL = "local"


@dataclass(frozen=True, slots=True)
class RayOptions:
    """Where the workers run: `local`, or the address of a cluster (`host:port`, `auto`).

    `workers`: how many; None: one per GPU (of `gpus_per_worker`), on machines without one per machine.
    """

    address: str
    workers: int | None = None
    gpus_per_worker: int = 1


def on_workers(model: ModelOptions) -> ModelOptions:
    """Return the model as workers elsewhere load it: paths are absolute, and vLLM's log goes to Ray's.

    Raises UsageError for --record, which is one file on one machine, and for --gpus, which is about one machine.
    """
    if model.record is not None:
        raise UsageError("--record writes one file, and --ray has many writers", "Leave one of them out.")
    if model.gpus is not None:
        raise UsageError("--gpus is for one machine, and --ray has a worker per GPU", "Leave one of them out.")
    arguments = dict(model.engine_args)
    if _product(arguments) > 1:
        # Inside an actor vLLM would ask Ray for further machines; the worker has its GPUs already.
        arguments.setdefault("distributed_executor_backend", "mp")
    name = model.model
    if name is not None and not model.endpoints and Path(name).exists():
        name = str(Path(name).absolute())
    replay = None if model.replay is None else model.replay.absolute()
    return replace(model, model=name, replay=replay, engine_args=arguments, verbose=True)


def gpus_per_worker(model: ModelOptions) -> int:
    """Return how many GPUs one worker needs; 0 where the model is a server or a recording."""
    return 0 if model.endpoints or model.replay is not None else _product(model.engine_args)


def _product(engine_args: Mapping[str, str]) -> int:
    try:
        return math.prod(int(engine_args.get(f"{kind}_parallel_size", 1)) for kind in ("tensor", "pipeline", "data"))
    except ValueError:  # the engine says what is wrong with it
        return 1
