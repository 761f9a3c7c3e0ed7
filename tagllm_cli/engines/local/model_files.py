"""Checks of a model's files before vLLM is imported: it exists, it is a model, the download is complete.

They take milliseconds and read no weights; vLLM needs half a minute for a less clear message.
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from tagllm_cli.engines.hub import find_snapshot, is_offline, reach
from tagllm_cli.engines.local.arguments import vllm_folder
from tagllm_cli.errors import ModelError

_HUB_NAME = re.compile(r"[A-Za-z0-9_][\w.-]*(/[A-Za-z0-9_][\w.-]*)?")
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf")
_TOKENIZERS = ("tokenizer*", "tekken.json", "vocab.json", "vocab.txt", "*.tiktoken", "*.model", "*.gguf")
# Packages that a processor needs and vLLM does not install, by the beginning of the architecture's name.
_NEEDED = {"SmolVLM": "num2words"}
_FINISH = "Finish the download: hf download NAME --local-dir FOLDER."


def is_remote(model: str) -> bool:
    """Return whether `model` is an address such as s3://bucket/model, which only vLLM can open."""
    return "://" in model


def local_model(model: str) -> Path | None:
    """Return the folder or file that `model` names, None for a hub name. Raises ModelError where it is neither."""
    path = Path(model).expanduser()
    if path.exists():
        return path
    if model.startswith((".", "/", "~")) or not _HUB_NAME.fullmatch(model):
        raise ModelError(f"no model at {model}", "Give the folder of a model, or its name on the Hugging Face hub.")
    return None


def check_model(model: str, parsed: Mapping[str, Any]) -> None:
    """Raise ModelError where the files of `model` show that it cannot be loaded.

    Args:
        model: a folder, a GGUF file, a hub name or a URL.
        parsed: engine arguments of `parse_engine_args`.
    """
    if is_remote(model):
        return
    path = local_model(model)
    if path is None:
        _check_hub_model(model, parsed)
    elif path.is_dir():
        check_folder(path, parsed)
    elif path.suffix != ".gguf":
        raise ModelError(f"{model} is a file, not a model", "Give the folder with config.json and the weights.")


def _check_hub_model(model: str, parsed: Mapping[str, Any]) -> None:
    snapshot = find_snapshot(model, parsed)
    if snapshot is None:
        reach(model, parsed)
        return
    try:
        check_folder(snapshot, parsed)
    except ModelError:
        if is_offline():
            raise
        reach(model, parsed)  # vLLM completes the download


def check_folder(folder: Path, parsed: Mapping[str, Any]) -> None:
    """Raise ModelError unless `folder` holds a configuration that vLLM knows, a tokenizer and complete weights."""
    names = {entry.name for entry in folder.iterdir()}
    if not names & {"config.json", "params.json"} and not any(name.endswith(".gguf") for name in names):
        raise ModelError(f"{folder} is not a model: it has no config.json", "Give the folder that holds the weights.")
    partial = next(_partial_files(folder), None)
    if partial is not None:
        raise ModelError(f"{folder} is an unfinished download ({partial.name})", _FINISH)
    if "config.json" in names:
        _check_architecture(folder)
    if "tokenizer" not in parsed and not any(any(folder.glob(pattern)) for pattern in _TOKENIZERS):
        raise ModelError(f"{folder} has no tokenizer", _FINISH)
    if parsed.get("load_format") != "dummy":
        _check_weights(folder, names)


def _partial_files(folder: Path) -> Iterator[Path]:
    yield from folder.glob("*.incomplete")
    yield from (folder / ".cache" / "huggingface").rglob("*.incomplete")


def _check_architecture(folder: Path) -> None:
    config = _read_json(folder / "config.json")
    architectures = config.get("architectures") or []
    plugins = [entry for entry in metadata.entry_points(group="vllm.general_plugins") if entry.module[:5] != "vllm."]
    if "auto_map" in config or not architectures or plugins:
        return  # the model or a plug-in has its own code, or vLLM decides by model_type
    if not any(_is_known(str(name)) for name in architectures):
        raise ModelError(
            f"{folder}: the installed vLLM does not support {', '.join(map(str, architectures))}",
            "Use another model, or a vLLM release that supports this one.",
        )
    for beginning, package in _NEEDED.items():
        is_needed = any(str(name).startswith(beginning) for name in architectures)
        if is_needed and importlib.util.find_spec(package) is None:
            missing = f"{folder} needs the package {package}, which is not installed"
            raise ModelError(missing, f"Run pip install {package}.")


def _is_known(architecture: str) -> bool:
    sources = [vllm_folder() / "model_executor" / "models" / "registry.py"]
    transformers = importlib.util.find_spec("transformers")
    if transformers is not None and transformers.origin:  # vLLM runs many of these through Transformers' code
        sources.append(Path(transformers.origin).parent / "models" / "auto" / "modeling_auto.py")
    quoted = f'"{architecture}"'
    return any(not source.is_file() or quoted in source.read_text(encoding="utf-8") for source in sources)


def _check_weights(folder: Path, names: set[str]) -> None:
    if not any(name.endswith(_WEIGHTS) for name in names):
        raise ModelError(f"{folder} has no weights", _FINISH)
    for index in sorted(name for name in names if name.endswith((".safetensors.index.json", ".bin.index.json"))):
        listed = {str(name) for name in _read_json(folder / index).get("weight_map", {}).values()}
        # A folder may hold the index of a format that was not downloaded: then none of its files is there.
        if listed & names and (missing := sorted(listed - names)):
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise ModelError(f"{folder} is an unfinished download: {missing[0]}{more} missing", _FINISH)
    for name in sorted(names):
        if name.endswith(".safetensors"):
            _check_safetensors(folder / name)


def _check_safetensors(path: Path) -> None:
    """Compare the file's size with its header (8 bytes of length, JSON, then the tensors end to end)."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        if start == b"version " and size < 1024:
            raise ModelError(f"{path} is a Git LFS pointer, not weights", "Run `git lfs pull` in the model's folder.")
        length = int.from_bytes(start, "little")
        header = file.read(length) if len(start) == 8 and length <= size else b""
    try:
        tensors = json.loads(header)
        end = max((entry["data_offsets"][1] for key, entry in tensors.items() if key != "__metadata__"), default=0)
    except (ValueError, TypeError, KeyError, AttributeError, IndexError):
        end = size
    if size < 8 + length + end:
        raise ModelError(f"{path} is truncated or damaged", _FINISH)


def weight_bytes(model: str, parsed: Mapping[str, Any]) -> int:
    """Return the size of a model's weights on disk in bytes, 0 where they are not here."""
    path = local_files(model, parsed)
    if path is None or not path.is_dir():
        return 0 if path is None else path.stat().st_size
    return sum(file.stat().st_size for file in path.iterdir() if file.name.endswith(_WEIGHTS) and file.is_file())


def is_quantized(model: str, parsed: Mapping[str, Any]) -> bool:
    """Return whether a model is quantized, by its files or the engine arguments; such models need a data type."""
    path = local_files(model, parsed)
    if parsed.get("quantization") or path is None or path.suffix == ".gguf":
        return True
    config = path / "config.json"
    return config.is_file() and "quantization_config" in config.read_text(encoding="utf-8", errors="replace")


def local_files(model: str, parsed: Mapping[str, Any]) -> Path | None:
    """Return the folder or file of a model where it is on this machine, None where it is not."""
    return None if is_remote(model) else local_model(model) or find_snapshot(model, parsed)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}", _FINISH) from None
    if not isinstance(content, dict):
        raise ModelError(f"{path} is not a JSON object", _FINISH)
    return content
