"""Fixtures that last for the whole session."""

from tests.support.live import live_engine, live_server

__all__ = ["live_engine", "live_server"]
