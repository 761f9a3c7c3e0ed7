"""Retries of remote storage without long waits."""

from __future__ import annotations

import pytest

from tagllm_cli.sources.storage import remote_errors


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_errors, "_FIRST_WAIT_S", 0.01)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_errors, "PATIENCE_S", 0.0)
