"""Which model answers: what a user named becomes an identity for the evidence, and an engine when it is needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tagllm_cli.engines.base import Engine
from tagllm_cli.errors import ModelError

if TYPE_CHECKING:
    from tagllm_cli.engines.http.engine import EndpointSettings


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """Which model answers: one that vLLM loads here, running servers, or a recording. All None: as the plan says.

    `timeout_s` (seconds), `retries` and `concurrency` (requests in flight per server): None: as EndpointSettings.
    """

    model: str | None = None
    endpoints: tuple[str, ...] = ()
    model_id: str | None = None
    api_key: str | None = field(default=None, repr=False)
    engine_args: Mapping[str, str] = field(default_factory=dict)
    prompts: Path | None = None
    max_pixels: int | None = None
    replay: Path | None = None
    record: Path | None = None
    verbose: bool = False
    timeout_s: float | None = None
    retries: int | None = None
    concurrency: int | None = None


@dataclass(frozen=True, slots=True)
class Identity:
    """The model's name for people and the 16-byte digest that requests are identified by; None: not named."""

    name: str | None
    digest: bytes | None


def identify(model: ModelOptions) -> Identity:
    """Return who would answer, without loading a model; an endpoint is asked what it serves unless the user says."""
    from tagllm_cli.engines.identity import model_identity, served_identity

    if model.replay is not None:
        found = served_identity(model.model_id or "recording")
    elif model.endpoints:
        found = served_identity(model.model_id or model.model or _served(model))
    elif model.model is not None:
        found = model_identity(model.model, model.engine_args, model_id=model.model_id)
    else:
        return Identity(None, None)
    return Identity(found.name, found.digest)


def make_engine(model: ModelOptions, log_file: Path, earlier: str = "") -> Engine:
    """Return the engine that the options name, not started.

    `earlier` is the model whose answers are on record. Raises ModelError where the options name none.
    """
    engine = _engine(model, log_file, earlier)
    if model.record is not None:
        from tagllm_cli.engines.replay import RecordingEngine

        return RecordingEngine(engine, model.record)
    return engine


def _engine(model: ModelOptions, log_file: Path, earlier: str) -> Engine:
    if model.replay is not None:
        from tagllm_cli.engines.replay import ReplayEngine, load_recording

        return ReplayEngine(load_recording(model.replay))
    if model.endpoints:
        from tagllm_cli.engines.http.engine import EndpointEngine

        return EndpointEngine(_endpoint_settings(model))
    from tagllm_cli.engines.local.engine import EngineSettings, InProcessEngine

    if model.model is None:
        made = f" (the table was made with {earlier})" if earlier else ""
        raise ModelError(
            f"answers are missing, and no model is named to give them{made}",
            "Give --model NAME_OR_FOLDER, or --endpoint URL of a running server.",
        )
    return InProcessEngine(EngineSettings(model.model, model.engine_args, log_file=log_file, verbose=model.verbose))


def _endpoint_settings(model: ModelOptions) -> EndpointSettings:
    from tagllm_cli.engines.http.engine import EndpointSettings

    patience: dict[str, Any] = {
        "timeout_s": model.timeout_s,
        "retries": model.retries,
        "concurrency": model.concurrency,
    }
    given = {name: value for name, value in patience.items() if value is not None}
    return EndpointSettings(urls=model.endpoints, model=model.model, api_key=model.api_key, **given)


def _served(model: ModelOptions) -> str:
    """Ask the endpoints what they serve. Raises EndpointError where none answers or several models are served."""
    import asyncio

    from tagllm_cli.engines.http.engine import EndpointEngine

    async def ask() -> str:
        engine = EndpointEngine(_endpoint_settings(model))
        try:
            await engine.start()
            return engine.model
        finally:
            await engine.close()

    return asyncio.run(ask())
