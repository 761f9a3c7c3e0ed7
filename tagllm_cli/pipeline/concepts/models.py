"""The models that write and validate concept cards."""

from __future__ import annotations

from pathlib import Path

from tagllm_cli.engines.factory import ModelOptions, identify, make_engine
from tagllm_cli.errors import UsageError
from tagllm_cli.pipeline.concepts.settings import Model
from tagllm_cli.store.atomic import check_writable_path


def concept_models(model: ModelOptions, llm: ModelOptions, out: Path) -> tuple[Model, Model | None]:
    """Return who writes concept cards into `out` and who looks at pictures; the same where no LLM is named.

    Raises UsageError where no model is named at all, and for an `out` that can never be written.
    """
    check_writable_path(out)
    seer = _named(model, out)
    writer = _named(llm, out) or seer
    if writer is None:
        raise UsageError(
            "no model is named to write the cards",
            "Give --llm-endpoint URL of a language model, or --model or --endpoint of a multimodal one.",
        )
    return writer, seer


def _named(model: ModelOptions, out: Path) -> Model | None:
    found = identify(model)
    if found.name is None or found.digest is None:
        return None
    return Model(found.name, found.digest, lambda: make_engine(model, out.with_suffix(".vllm.log")))
