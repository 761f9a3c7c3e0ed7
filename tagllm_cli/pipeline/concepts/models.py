"""The LLM that drafts concept cards and the VLM that validates them."""

from __future__ import annotations

from pathlib import Path

from tagllm_cli.engines.factory import ModelOptions, identify, identify_served, make_engine
from tagllm_cli.errors import UsageError
from tagllm_cli.pipeline.concepts.settings import Model
from tagllm_cli.store.atomic import check_writable_path


def concept_models(model: ModelOptions, llm: ModelOptions, out: Path) -> tuple[Model, Model | None]:
    """Return the LLM that drafts cards for `out`, and the VLM, None where none is named. One model may be both.

    Raises UsageError where no model is named at all, and for an `out` that can never be written.
    """
    check_writable_path(out)
    vlm = _named(model, out)
    drafting = _named(llm, out) or vlm
    if drafting is None:
        raise UsageError(
            "no model is named to write the cards",
            "Give --llm-endpoint URL of a language model, or --model or --endpoint of a multimodal one.",
        )
    return drafting, vlm


def _named(model: ModelOptions, out: Path) -> Model | None:
    found = identify(model) or identify_served(model)
    if found is None:
        return None
    return Model(found.name, found.digest, lambda: make_engine(model, out.with_suffix(".vllm.log")))
