"""Decisions and times as people and programs write them."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from tagllm_cli.evaluation.human_labels.base import NO, UNKNOWN, WITHDRAWN, YES
from tagllm_cli.evaluation.truth.base import TruthFile
from tagllm_cli.evaluation.truth.cells import NO_ABROAD, YES_ABROAD

_WORDS = {
    **dict.fromkeys(("yes", "y", "true", "t", "1", "x", "+", "present", "positive", "pos", "correct", "accept"), YES),
    **dict.fromkeys(("accepted", *YES_ABROAD), YES),
    **dict.fromkeys(("no", "n", "false", "f", "0", "-", "absent", "negative", "neg", "wrong", "reject"), NO),
    **dict.fromkeys(("rejected", *NO_ABROAD), NO),
    **dict.fromkeys(("unknown", "?", "-1", "unsure", "uncertain", "unclear", "maybe", "cannot tell"), UNKNOWN),
    **dict.fromkeys(("can't tell", "don't know", "weiß nicht", "unbekannt", "unklar"), UNKNOWN),
    **dict.fromkeys(("withdrawn", "withdraw", "undo", "undone", "retracted", "taken back"), WITHDRAWN),
}
_NOTHING = frozenset(["", "nan", "null", "none", "n/a", "skip", "skipped"])  # nobody has decided it yet
_INTEGER = re.compile(r"(-?\d+)\.0*$")
_NUMBER = re.compile(r"\d+(\.\d*)?$")
_LATEST = 7_258_118_400  # the year 2200, in seconds since the epoch
_SPELLINGS = "Write yes, no, unknown or withdrawn, and nothing where nobody has decided."


def decision_of(value: Any, file: TruthFile, line: int) -> str | None:
    """Return what was decided, None where nothing was. Raises UsageError for other words.

    >>> from pathlib import Path
    >>> [decision_of(each, TruthFile(Path("a.csv")), 2) for each in ("Ja", 0, True, " ", "1.0", "Unknown")]
    ['yes', 'no', 'yes', None, 'yes', 'unknown']
    """
    text = "" if value is None else str(value).strip().casefold()
    if text in _NOTHING:
        return None
    found = _WORDS.get(text)
    if found is None and (number := _INTEGER.match(text)):
        found = _WORDS.get(number[1])
    if found is None:
        raise file.error(f"{str(value)[:80]!r} is no decision", _SPELLINGS, line=line)
    return found


def time_of(value: Any, file: TruthFile, line: int) -> int | None:
    """Return a time as microseconds since the epoch (UTC), None where there is none. Raises UsageError.

    ISO 8601 without a zone is taken as UTC; a number is seconds, milliseconds or microseconds, by its size.

    >>> from pathlib import Path
    >>> here = TruthFile(Path("a.csv"))
    >>> time_of("2026-05-01T12:00:00+02:00", here, 2) == time_of("2026-05-01 10:00", here, 2) == 1777629600000000
    True
    >>> time_of(1777629600, here, 2) == time_of("1777629600000", here, 2) == 1777629600000000
    True
    """
    text = "" if value is None else str(value).strip()
    if text.casefold() in _NOTHING:
        return None
    if _NUMBER.match(text):
        number = float(text)
        if number > 1e14:
            seconds = number / 1e6
        else:
            seconds = number / 1e3 if number > 1e11 else number
        exact = int(text) if text.isdigit() and number > 1e14 else round(seconds * 1e6)
    else:
        try:
            parsed = datetime.fromisoformat(text)
        except ValueError:
            raise _no_time(text, file, line) from None
        parsed = parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
        exact = (parsed - datetime(1970, 1, 1, tzinfo=UTC)).days * 86_400_000_000
        exact += (parsed - datetime(1970, 1, 1, tzinfo=UTC)).seconds * 1_000_000 + parsed.microsecond
    if not 0 <= exact < _LATEST * 1_000_000:
        raise _no_time(text, file, line)
    return exact


def _no_time(text: str, file: TruthFile, line: int) -> Exception:
    return file.error(f"{text[:80]!r} is no time", "Write 2026-05-01T12:00:00Z, or leave it empty.", line=line)
