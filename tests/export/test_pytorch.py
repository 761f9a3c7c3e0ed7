"""The `Dataset` of the README, on images and labels as exported."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader

from tagllm_cli.export.base import ExportSettings
from tagllm_cli.export.registry import export_table
from tests.export.test_formats import LABELS, VOCABULARY

PAGE = Path(__file__).parents[2] / "README.md"


def test_the_dataset_of_the_docs_feeds_a_loss(table: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    export_table(table, "numpy", table.parent / "labels.npz", ExportSettings())
    root.rename(table.parent / "photos")
    monkeypatch.chdir(table.parent)
    scope: dict[str, Any] = {}
    exec(code, scope)
    dataset = scope["Labeled"](transform=lambda image: np.asarray(image.resize((4, 4)), np.float32))
    found = {
        str(name): [VOCABULARY.names[n] for n in np.flatnonzero(dataset[place][1])]
        for place, name in enumerate(dataset.ids)
    }
    assert found == LABELS
    assert [int((~dataset[place][2]).sum()) for place in range(len(dataset))] == [0, 0, 1, 0]
    images, labels, known = next(iter(DataLoader(dataset, batch_size=4)))
    assert (images.shape, labels.shape, known.shape) == ((4, 4, 4, 3), (4, 4), (4, 4))
    logits = images.mean((1, 2, 3))[:, None].expand(4, 4)
    assert (binary_cross_entropy_with_logits(logits, labels, reduction="none") * known).mean() > 0
