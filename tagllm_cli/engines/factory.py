"""The registry of engines: how what the user named is identified, and how its engine is made.

Adding an engine: a file with a function that identifies and one that makes, and a line in ENGINES.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from tagllm_cli.engines.base import Engine
from tagllm_cli.engines.http.engine import identify_endpoints, identify_served, make_endpoint_engine
from tagllm_cli.engines.identity import ModelIdentity
from tagllm_cli.engines.local.engine import identify_local, make_local_engine
from tagllm_cli.engines.local.image_tokens import TokenCounter, local_counter
from tagllm_cli.engines.options import ModelOptions
from tagllm_cli.engines.replay import RecordingEngine, identify_recording, make_replay_engine
from tagllm_cli.errors import ModelError

__all__ = [
    "ENGINES",
    "ModelIdentity",
    "ModelOptions",
    "identify",
    "identify_served",
    "make_engine",
    "resolve",
    "token_counter",
]

Origin = Literal["flag", "environment", "config", "default"]
_PRECEDENCE: Sequence[Origin] = ("flag", "environment", "config", "default")


class EngineKind(NamedTuple):
    """One kind of engine.

    Args:
        is_named: whether the options name an engine of this kind.
        identify: the model's identity, without loading a model or reaching a server; None: only the server knows it.
        make: the engine, not started, from the options, the log file, and the model that the table is pinned to.
    """

    is_named: Callable[[ModelOptions], bool]
    identify: Callable[[ModelOptions], ModelIdentity | None]
    make: Callable[[ModelOptions, Path, ModelIdentity | None], Engine]


# The first kind that the options name is used.
ENGINES: Mapping[str, EngineKind] = {
    "replay": EngineKind(lambda options: options.replay is not None, identify_recording, make_replay_engine),
    "http": EngineKind(lambda options: bool(options.endpoints), identify_endpoints, make_endpoint_engine),
    "local": EngineKind(lambda options: options.model is not None, identify_local, make_local_engine),
}


def resolve(
    model: str | None, endpoints: Sequence[str], model_from: Origin, endpoints_from: Origin
) -> tuple[str | None, tuple[str, ...]]:
    """Return the model and the endpoints to use, by the precedence of where each was given.

    A model from a stronger origin than the endpoints is one to load here. Otherwise it is the name of a served one.

    >>> resolve("./folder", ["http://host:8000"], "flag", "environment")
    ('./folder', ())
    >>> resolve("demo", ["http://host:8000"], "environment", "flag")
    ('demo', ('http://host:8000',))
    """
    if model and _PRECEDENCE.index(model_from) < _PRECEDENCE.index(endpoints_from):
        return model, ()
    return model, tuple(endpoints)


def identify(options: ModelOptions) -> ModelIdentity | None:
    """Return the identity of the model that the options name, without loading it or reaching a server.

    None: no model is named, or only the server knows which one it serves (`identify_served` asks it).
    """
    kind = _kind(options)
    return None if kind is None else kind.identify(options)


def make_engine(options: ModelOptions, log_file: Path, pinned: ModelIdentity | None = None) -> Engine:
    """Return the engine that the options name, not started.

    Args:
        options: what the user named.
        log_file: where the log of an engine in this process goes.
        pinned: the model whose responses are on record; a server that serves another one is refused at the start.

    Raises:
        ModelError: the options name no model.
        EndpointError: the API key cannot be sent.
    """
    kind = _kind(options)
    if kind is None:
        table = f" (the table was made with {pinned.name})" if pinned is not None else ""
        raise ModelError(
            f"answers are missing, and no model is named to give them{table}",
            "Give --model NAME_OR_FOLDER, or --endpoint URL of a running server.",
        )
    engine = kind.make(options, log_file, pinned)
    return engine if options.record is None else RecordingEngine(engine, options.record)


def token_counter(options: ModelOptions) -> TokenCounter:
    """Return what counts the tokens of prompts for the model that the options name, without loading it.

    Raises:
        ModelError: they cannot be known here; the message says why.
    """
    if options.replay is not None:
        raise ModelError("the answers come from a recording")
    if options.endpoints:
        raise ModelError("only the server knows what an image costs its model")
    if options.model is None:
        raise ModelError("no model is named: give --model")
    return local_counter(options)


def _kind(options: ModelOptions) -> EngineKind | None:
    return next((kind for kind in ENGINES.values() if kind.is_named(options)), None)
