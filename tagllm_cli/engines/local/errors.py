"""Map vLLM's exceptions to `ModelError` with a hint."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from tagllm_cli.errors import ModelError
from tagllm_cli.text import one_line

_TAIL_BYTES = 200_000
_WORKER = re.compile(r"Worker failed with error '(.*)', please check")
_RAISED = re.compile(r"(?:^|\] |\s)((?:\w+\.)*\w+(?:Error|Exception)): (.+)$")
_ADDRESS = re.compile(r" at 0x[0-9A-Fa-f]+")
# pydantic's frame around a message; its second line names the field, if there is one
_FRAME = re.compile(
    r"^\d+ validation errors? for \w+\n(?:(\w+)\S*\n)?\s*(?:Value error, )?(.*?)(?:\[type=.*)?$", re.DOTALL
)


def message_of(error: BaseException) -> str:
    """Return the message of an exception's first cause as one line, without addresses in memory and pydantic's frame.

    >>> message_of(KeyError("shape"))
    "KeyError: 'shape'"
    """
    while error.__cause__ is not None:  # vLLM wraps what a processor says into a description of its arguments
        error = error.__cause__
    text = _ADDRESS.sub("", f"KeyError: {error}" if isinstance(error, KeyError) else str(error))
    if framed := _FRAME.match(text):
        text = ": ".join(part for part in framed.groups() if part)
    return one_line(text) or type(error).__name__


def explain(error: Exception, model: str, log_file: Path | None) -> Exception:
    """Return the ModelError for an exception raised while vLLM loads `model`; a ModelError is returned as it is.

    Args:
        error: what was raised.
        model: as the user gave it.
        log_file: vLLM's log; where the engine's process fails, only the log has the cause.
    """
    if isinstance(error, ModelError):
        return error
    cause = message_of(error)
    if "core initialization failed" in cause.lower():
        cause = _last_raised(log_file) or cause
    lower = cause.lower()
    hint = f"vLLM's log is {log_file}." if log_file else "vLLM's log is above."
    if "failed to be inspected" in lower and importlib.util.find_spec("torchvision") is None:
        cause = "this architecture needs torchvision, which is not installed"
        hint = "Install the torchvision that belongs to the installed torch, or use a model that does without."
    elif "torchvision::" in cause:
        cause = "the installed torchvision belongs to another build of torch"
        hint = "pip uninstall torchvision, or install the build of it that belongs to the installed torch."
    elif re.search(r"architectures?.* not supported|does not recognize this architecture", lower):
        hint = "Use another model, or a vLLM release that supports this one."
    elif "out of memory" in lower or "available memory" in lower:
        hint = "Use a smaller model or a shorter context (--engine-arg max_model_len=8192). " + hint
    return ModelError(f"vLLM cannot load {model}: {cause}", hint)


def _last_raised(log_file: Path | None) -> str | None:
    """Return the message of the last exception in the log that names a cause."""
    if log_file is None or not log_file.is_file():
        return None
    with log_file.open("rb") as file:
        file.seek(max(0, log_file.stat().st_size - _TAIL_BYTES))
        lines = file.read().decode("utf-8", "replace").splitlines()
    for line in reversed(lines):
        found = _RAISED.search(line)
        if found and "core initialization failed" not in line.lower():
            worker = _WORKER.search(found[2])
            return worker[1] if worker else f"{found[1].rsplit('.', 1)[-1]}: {found[2]}"
    return None
