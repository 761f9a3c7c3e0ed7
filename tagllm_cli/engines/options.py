"""What the user named as the model, before anything is loaded or reached."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """The model as the user named it. All None: as the plan says.

    Args:
        model: folder, hub name or URL that vLLM loads here; with `endpoints`, the served name.
        endpoints: addresses of OpenAI-compatible servers.
        model_id: the user's own name for the model's identity.
        api_key: of the endpoints; never logged or printed.
        engine_args: vLLM's engine arguments as typed, for a model that is loaded here.
        gpus: how many GPUs of this machine hold copies of a model that is loaded here; None: those of one copy.
        chat_template_kwargs: variables for the model's chat template.
        prompts: folder of templates that replace built-in ones.
        max_pixels: pixel budget (width x height) per image.
        replay: recording to take responses from.
        record: recording to append responses to.
        verbose: vLLM's log on stderr instead of in a file.
        timeout_s: timeout of one response of an endpoint in seconds; None: that of EndpointSettings.
        retries: attempts after the first one at an endpoint; None: that of EndpointSettings.
        concurrency: requests in flight per endpoint; None: by the kind of server.
    """

    model: str | None = None
    endpoints: tuple[str, ...] = ()
    model_id: str | None = None
    api_key: str | None = field(default=None, repr=False)
    engine_args: Mapping[str, str] = field(default_factory=dict)
    gpus: int | Literal["all"] | None = None
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    prompts: Path | None = None
    max_pixels: int | None = None
    replay: Path | None = None
    record: Path | None = None
    verbose: bool = False
    timeout_s: float | None = None
    retries: int | None = None
    concurrency: int | None = None
