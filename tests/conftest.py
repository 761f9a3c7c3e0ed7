"""Fixtures of the whole session, and the order of the tests that run vLLM."""

from __future__ import annotations

import pytest

from tests.support.live import live, live_engine, live_server, no_engine

__all__ = ["live", "live_engine", "live_server", "no_engine"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the tests so that each vLLM is started once: none, the engine, engine and server, the server, their own."""

    def rank(item: pytest.Item) -> int:
        needed = {"live_engine", "live_server"}.intersection(getattr(item, "fixturenames", ()))
        if item.get_closest_marker("live") is None:
            return 0
        return {"live_engine": 1, "live_server": 3}[needed.pop()] if len(needed) == 1 else 2 if needed else 4

    items.sort(key=rank)
