"""Which model said what an export holds, in the words of tools that show it beside each label."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tagllm_cli.records import digest16

if TYPE_CHECKING:
    from tagllm_cli.export.base import Example
    from tagllm_cli.store.table import TableInfo


def model_version(info: TableInfo) -> str:
    """Return the model of a table with the digest of its prompts (8 hex digits), "tagllm" where no plan says it."""
    model = str(info.plan.get("model") or "tagllm")
    prompts = info.plan.get("templates")
    if not prompts:
        return model
    return f"{model} {digest16(json.dumps(prompts, sort_keys=True).encode()).hex()[:8]}"


def human_decisions(example: Example, names: list[str]) -> dict[str, str]:
    """Return what people decided about an image, `yes`, `no` or `unknown` by label; `names` is the vocabulary."""
    present, undecided = set(example.labels), set(example.unknown)
    return {
        names[place]: "yes" if place in present else "unknown" if place in undecided else "no"
        for place in sorted(example.human)
    }
