"""When something was said, from the times that tools write."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

_LATEST = 7_258_118_400  # the year 2200, in seconds since the epoch
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def microseconds(value: Any) -> int | None:
    """Return microseconds since the epoch (UTC) of an ISO 8601 text or of seconds since the epoch, None for others.

    A time without a zone is UTC.

    >>> microseconds("2026-11-28T04:07:50.787Z"), microseconds("1970-01-01 01:00:00+01:00"), microseconds(1.5)
    (1795838870787000, 0, 1500000)
    >>> microseconds(None), microseconds("yesterday"), microseconds(1e300), microseconds(float("nan"))
    (None, None, None, None)
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        # Neither infinite, nor no number, nor more than a date can be.
        return round(value * 1_000_000) if abs(value) <= _LATEST else None
    if not isinstance(value, str):
        return None
    try:
        found = datetime.fromisoformat(value.strip())
    except ValueError:
        return None
    found = found if found.tzinfo else found.replace(tzinfo=UTC)
    try:
        passed = found - _EPOCH
    except OverflowError:  # year 1 in a zone east of Greenwich
        return None
    return (passed.days * 86_400 + passed.seconds) * 1_000_000 + passed.microseconds
