"""Images on disk, and a label table about them."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tests.export.test_formats import ENTRIES, rows, written


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    for number, name in enumerate(ENTRIES):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8 + number, 6), (number * 40, 0, 0)).save(folder / name)
    return folder


@pytest.fixture
def table(tmp_path: Path, root: Path) -> Path:
    return written(tmp_path / "labels.parquet", root, rows(root))
