"""Truth files written by a test and read for a small table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tagllm_cli.evaluation.truth import TableContext, Truth, TruthOptions, load_truth
from tagllm_cli.vocabulary.model import Label, Vocabulary

IMAGES = ("a/one.jpg", "a/two.jpg", "b/three.png")
NAMES = ("cat", "dog", "person", "bicycle", "hot dog")
EXPECTED = {"a/one.jpg": {"cat", "dog"}, "a/two.jpg": {"hot dog"}, "b/three.png": set[str]()}


def table(names: Sequence[str] = NAMES, images: Sequence[str] = IMAGES) -> TableContext:
    return TableContext(images, Vocabulary("test", tuple(map(Label, names))))


def read(
    folder: Path,
    content: str | bytes | Any,
    name: str = "truth.csv",
    *,
    known: TableContext | None = None,
    **options: Any,
) -> Truth:
    """Read text, bytes, or a value that is written as JSON; `known` is None where the table is the small one."""
    path = folder / name
    data = (
        content
        if isinstance(content, bytes)
        else (content if isinstance(content, str) else json.dumps(content)).encode()
    )
    path.write_bytes(data)
    return load_truth(path, TruthOptions(**options), known or table())
