"""tagllm labels image datasets with a multimodal LLM served by vLLM."""

from typing import Any


def __getattr__(name: str) -> Any:
    """Look the version up when it is asked for: reading package metadata takes a tenth of what `--help` may."""
    if name == "__version__":
        from importlib.metadata import version

        return version("tagllm")
    raise AttributeError(name)
