"""A file is replaced whole or not at all, and nothing is left beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tagllm_cli.errors import TableError, UsageError
from tagllm_cli.store.atomic import replacing


def test_the_new_file_takes_the_place_of_the_old(tmp_path: Path) -> None:
    path = tmp_path / "cards.yaml"
    path.write_text("old")
    with replacing(path) as fresh:
        fresh.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def interrupted(path: Path, trouble: BaseException, kind: type[UsageError] = UsageError) -> None:
    """Write half of a file, and then this happens."""
    with replacing(path, kind) as fresh:
        fresh.write_text("half")
        raise trouble


@pytest.mark.parametrize("trouble", [KeyboardInterrupt(), ValueError("no"), OSError(28, "No space left on device")])
def test_trouble_leaves_the_old_file(tmp_path: Path, trouble: BaseException) -> None:
    path = tmp_path / "cards.yaml"
    path.write_text("old")
    with pytest.raises(UsageError if isinstance(trouble, OSError) else type(trouble)):
        interrupted(path, trouble)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_error_is_of_the_kind_that_was_named(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"cannot write .*labels\.parquet: No space left"):
        interrupted(tmp_path / "labels.parquet", OSError(28, "No space left on device"), TableError)
