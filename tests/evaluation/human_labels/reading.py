"""Files of human labels written by a test, and read for a small table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tagllm_cli.evaluation.human_labels.base import HumanLabels, Statement
from tagllm_cli.evaluation.human_labels.registry import read_human_labels
from tagllm_cli.evaluation.truth.base import TableContext, TruthOptions
from tagllm_cli.vocabulary.model import Label, Vocabulary

IMAGES = ("a/one.jpg", "a/two.jpg", "b/three.png")
NAMES = ("cat", "dog", "hot dog")
TABLE = TableContext(IMAGES, Vocabulary("test", tuple(map(Label, NAMES))))


def read(folder: Path, content: Any, name: str = "file", **options: Any) -> HumanLabels:
    """Read bytes, text, or a value that is written as JSON."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, (bytes, str)) else json.dumps(content)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_human_labels(path, TruthOptions(**options), TABLE)


def by_image(statements: Iterable[Statement]) -> Mapping[str, Mapping[str, str]]:
    """Decisions by image and label; each pair may be there once."""
    found: dict[str, dict[str, str]] = {}
    for each in statements:
        assert each.label not in found.setdefault(each.image, {})
        found[each.image][each.label] = each.decision
    return found
