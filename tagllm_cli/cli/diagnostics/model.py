"""What the user means to use: a model that vLLM is to load here, servers that run elsewhere."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path

from tagllm_cli.cli.diagnostics.check import Check, size
from tagllm_cli.cli.diagnostics.software import GET_TORCHVISION, installed_version
from tagllm_cli.engines.http import protocol as wire
from tagllm_cli.engines.hub import find_snapshot, is_offline
from tagllm_cli.engines.local.model_files import check_folder, check_model, is_remote, local_model, weight_bytes
from tagllm_cli.errors import EndpointError, ModelError, TagllmError

ENDPOINT_TIMEOUT_S = 3.0

# Architectures whose code in vLLM imports torchvision, and some that do without, as tried with vLLM 0.32.0.
_NEEDS_TORCHVISION = re.compile(
    r"Qwen(2|2_5_|3)VL|Qwen3_5|Qwen(2_5|3)Omni|Llava|Gemma(3For|4)|Llama4For|Pixtral|Mistral3|InternVL|Glm4v|MiniCPMV4_"
    r"|SmolVLM"
)
_DOES_WITHOUT = re.compile(r"Idefics3|PaliGemma|Blip2|Phi(3V|4MM)|KimiVL|Ovis|MiniCPMV$|GLM4V|Molmo|Gemma3n")

_ADDRESS = "Give the address of an OpenAI-compatible server that serves a model: http://HOST:PORT/v1"


def model(model: str, room: int) -> Check:
    """Whether vLLM can load a model (folder or hub name), as far as its files show; `room`: bytes for its weights."""
    try:
        if is_remote(model):
            return Check("model", "warning", f"{model}: only vLLM can look there", "It is read when a run starts")
        path = local_model(model) or _snapshot(model)
        if path is None:
            return _not_downloaded(model)
        if path.is_dir():
            check_folder(path, {})
        else:
            check_model(model, {})
        return _loadable(model, path, room)
    except TagllmError as error:
        return Check("model", "missing", error.message, error.hint)
    except OSError as error:
        return Check("model", "missing", f"{model} cannot be read: {error.strerror}", "Check its permissions")


def _snapshot(model: str) -> Path | None:
    try:
        return find_snapshot(model, {})
    except ImportError:
        raise ModelError(f"{model} is no folder, and names need vLLM", "Install vLLM, or give a folder") from None
    except ValueError:  # the hub's client is stricter about names than we are
        raise ModelError(f"no model can be named {model}", "Give a folder, or a name on the hub") from None


def _not_downloaded(model: str) -> Check:
    detail = f"{model} is no folder here, and not downloaded from the hub"
    if is_offline():
        hint = "Unset HF_HUB_OFFLINE, or fetch it where there is a network: hf download NAME"
        return Check("model", "missing", f"{detail}; HF_HUB_OFFLINE is set", hint)
    return Check("model", "warning", detail, f"vLLM downloads it when a run starts; or now: hf download {model}")


def _loadable(model: str, path: Path, room: int) -> Check:
    """Hold a complete model against the machine: the libraries that it needs, and its size."""
    config = json.loads(file.read_bytes()) if (file := path / "config.json").is_file() else {}
    names = [str(name) for name in config.get("architectures") or [config.get("model_type", "of unknown architecture")]]
    weights = weight_bytes(model, {})
    detail = f"{path}: {', '.join(names)}, {size(weights)} of weights"
    if installed_version("torchvision") is None and not _DOES_WITHOUT.match(names[0]):
        if _NEEDS_TORCHVISION.match(names[0]):
            return Check("model", "missing", f"{detail}; needs torchvision", GET_TORCHVISION)
        return Check("model", "warning", f"{detail}; may need torchvision, which is not installed", GET_TORCHVISION)
    if 0 < room < weights:
        hint = "Take a smaller or quantized model, or several GPUs: --engine-arg tensor_parallel_size=…"
        return Check("model", "warning", f"{detail}, more than the {size(room)} here", hint)
    return Check("model", "ok", detail)


def endpoint(url: str) -> Check:
    """Ask a server which models it serves, with TAGLLM_API_KEY."""
    started = time.perf_counter()
    try:
        name = f"endpoint {wire.without_secrets(url)}"
    except ValueError:
        return Check(f"endpoint {url}", "missing", "not an address", _ADDRESS)
    try:
        models = _served_models(url)
    except EndpointError as error:
        return Check(name, "missing", error.message, error.hint)
    spent = 1000 * (time.perf_counter() - started)
    return Check(name, "ok", f"serves {', '.join(models)}; answered in {spent:.0f} ms")


def _served_models(url: str) -> list[str]:
    """Return the names of the models that a server offers; raises EndpointError with what stood in the way."""
    import httpx

    key = os.environ.get("TAGLLM_API_KEY", "")
    if not (key.isascii() and key.isprintable()):  # httpx would say so too, and show the key
        raise EndpointError("not asked: TAGLLM_API_KEY cannot be sent", "Set it anew: it holds odd characters")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    status = 0
    for base in wire.base_urls(url):
        try:
            answer = httpx.get(f"{base}/models", headers=headers, timeout=ENDPOINT_TIMEOUT_S, follow_redirects=True)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError):
            raise EndpointError("not an address", _ADDRESS) from None
        except httpx.TimeoutException:
            hint = "A server that loads its model answers after a minute or two; else check host, port and firewall"
            raise EndpointError(f"no answer within {ENDPOINT_TIMEOUT_S:g} s", hint) from None
        except httpx.HTTPError as error:
            hint = "Start it (vllm serve MODEL), or check host, port and firewall"
            raise EndpointError(f"cannot be reached: {str(error) or type(error).__name__}", hint) from None
        status = answer.status_code
        if status in (401, 403):
            raise EndpointError(f"refuses us (HTTP {status})", "Set TAGLLM_API_KEY to the server's key")
        if status >= 500:
            raise EndpointError(f"in trouble (HTTP {status})", "Wait until it is up, or look at its log")
        models = wire.read_models(answer.content) if status == 200 else None
        if models is not None and models.names:
            return sorted(models.names)
    raise EndpointError(f"lists no models (HTTP {status})", _ADDRESS)
