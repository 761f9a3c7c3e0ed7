"""Hugging Face hub names: their commit, their local snapshot, and whether the hub can be reached."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tagllm_cli.errors import ModelError

_COMMIT = re.compile(r"[0-9a-f]{40}")
_TIMEOUT_S = 15.0


def is_offline() -> bool:
    """Return whether HF_HUB_OFFLINE forbids the hub's client to use the network; False without the client."""
    if importlib.util.find_spec("huggingface_hub") is None:
        return False
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def find_snapshot(model: str, parsed: Mapping[str, Any]) -> Path | None:
    """Return the local folder of a hub model at its revision, None where nothing of it is downloaded.

    Args:
        model: the hub name.
        parsed: engine arguments; `revision` and `download_dir` are obeyed.

    Raises:
        ModelError: the hub's client is not installed.
    """
    _check_client(model)
    from huggingface_hub import try_to_load_from_cache

    for name in ("config.json", "params.json"):
        found = try_to_load_from_cache(
            model, name, cache_dir=parsed.get("download_dir"), revision=parsed.get("revision")
        )
        if isinstance(found, str):
            return Path(found).parent
    return None


def commit_of(model: str, parsed: Mapping[str, Any]) -> str:
    """Return the commit that a hub name means: the given one, else the downloaded one, else the hub's newest.

    Downloaded comes before newest: a new commit on the hub must not make a dataset be asked again.
    """
    revision = str(parsed.get("revision") or "")
    if _COMMIT.fullmatch(revision):
        return revision
    snapshot = find_snapshot(model, parsed)
    return snapshot.name if snapshot is not None else reach(model, parsed)


def reach(model: str, parsed: Mapping[str, Any]) -> str:
    """Return a model's newest commit from the hub. Raises ModelError with the reason where there is none."""
    _check_client(model)
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    revision = parsed.get("revision")
    try:
        if is_offline():
            raise ConnectionError("HF_HUB_OFFLINE is set")
        found = HfApi().model_info(model, revision=revision, timeout=_TIMEOUT_S)
    except GatedRepoError:
        hint = "Accept its license there, then run `hf auth login`."
        raise ModelError(f"{model} is gated on the hub", hint) from None
    except RepositoryNotFoundError:
        hint = "Check the spelling; for a private model run `hf auth login`."
        raise ModelError(f"no folder and no hub model is named {model}", hint) from None
    except RevisionNotFoundError:
        raise ModelError(f"{model} has no revision {revision}", "Check --engine-arg revision=….") from None
    except Exception as error:  # the hub's client has changed its HTTP library twice, and the exceptions with it
        raise ModelError(
            f"{model} is not a folder here and not (completely) downloaded, and the hub cannot be reached "
            f"({type(error).__name__})",
            "Give the path of a local model, or download it where there is a network: hf download NAME.",
        ) from None
    return str(found.sha)


def _check_client(model: str) -> None:
    if importlib.util.find_spec("huggingface_hub") is None:
        raise ModelError(
            f"{model} is not a folder here, and hub names need vLLM, which is not installed",
            "Run pip install 'tagllm[vllm]', or use a running server with --endpoint URL.",
        )
