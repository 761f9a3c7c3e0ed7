"""The model that is to be loaded here, and the servers that are to be asked."""

from __future__ import annotations

import asyncio
import os

from tagllm_cli.cli.diagnostics.base import Check, size
from tagllm_cli.engines.http.address import parse_address
from tagllm_cli.engines.http.engine import EndpointEngine, EndpointSettings
from tagllm_cli.engines.hub import find_snapshot
from tagllm_cli.engines.local.model_files import check_folder, check_model, is_remote, local_model, weight_bytes
from tagllm_cli.errors import TagllmError

ENDPOINT_TIMEOUT_S = 10.0


def model(name: str, free_bytes: int) -> Check:
    """Check a model's files, and the size of its weights against the free memory in bytes. Nothing is downloaded."""
    try:
        if is_remote(name):
            return Check("model", "warning", f"{name} is remote", "vLLM reads it when a run starts")
        path = local_model(name) or find_snapshot(name, {})
        if path is None:
            return Check("model", "warning", f"{name} is not downloaded", f"A run downloads it; or: hf download {name}")
        if path.is_dir():
            check_folder(path, {})
        else:
            check_model(name, {})
        weights = weight_bytes(name, {})
    except TagllmError as error:
        return Check("model", "missing", error.message, error.hint)
    except OSError as error:
        return Check("model", "missing", f"{name} cannot be read: {error.strerror}", "Check its permissions")
    except ValueError:  # the hub's client is stricter about names than we are
        return Check("model", "missing", f"no model can be named {name}", "Give a folder, or a name on the hub")
    detail = f"{path}: {size(weights)} of weights"
    if 0 < free_bytes < weights:
        hint = "Use a smaller or quantized model, or several GPUs: --engine-arg tensor_parallel_size=N"
        return Check("model", "warning", f"{detail}, more than the {size(free_bytes)} of memory", hint)
    return Check("model", "ok", detail)


def endpoint(url: str, name: str | None) -> Check:
    """Check whether a server answers and serves the model `name`, or one model where no name is given."""
    try:
        shown = f"endpoint {parse_address(url).url}"
    except TagllmError as error:
        return Check("endpoint", "missing", error.message, error.hint)
    key = os.environ.get("TAGLLM_API_KEY")
    try:
        served = asyncio.run(_served(EndpointSettings((url,), name, key, timeout_s=ENDPOINT_TIMEOUT_S)))
    except TagllmError as error:
        return Check(shown, "missing", error.message, error.hint)
    return Check(shown, "ok", f"serves {served}")


async def _served(settings: EndpointSettings) -> str:
    engine = EndpointEngine(settings)
    try:
        await engine.start()
        return engine.model
    finally:
        await engine.close()
