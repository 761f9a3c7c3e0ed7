"""Fixtures of the whole session, and the order of the tests that run vLLM."""

from __future__ import annotations

import signal
from collections.abc import Generator

import pytest

from tests.support.live import live, live_engine, live_server, no_engine
from tests.support.ray_cluster import ray_cluster

# A script's background job ignores Ctrl-C, and so would all the processes that the tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A program that is run with FiftyOne's own packages.
collect_ignore = ["support/fiftyone_session.py"]

__all__ = ["live", "live_engine", "live_server", "no_engine", "ray_cluster"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the tests so that each vLLM is started once: none, the engine, engine and server, the server, their own."""

    def rank(item: pytest.Item) -> int:
        if item.get_closest_marker("live") is None:
            return 0
        needed = set(getattr(item, "fixturenames", ()))
        engine = bool(needed & {"live_engine", "in_process", "answers_in_process"}) or item.name.endswith("[local]")
        server = bool(needed & {"live_server", "served"})
        return {(True, False): 1, (True, True): 2, (False, True): 3, (False, False): 4}[engine, server]

    items.sort(key=rank)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escape what is no UTF-8 in captured logs, such as odd file names: pytest-xdist could not send it."""
    report = yield
    report.sections = [(title, text.encode(errors="backslashreplace").decode()) for title, text in report.sections]
    return report
