"""One check: what was looked at, how it is, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tagllm_cli.engines.local.memory import GIB

State = Literal["ok", "warning", "missing"]

OR_ENDPOINT = "or use a running server: --endpoint URL"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at: how it is, what was found in a line, and what to do where it is not `ok`.

    `warning`: works, with a limit; `missing`: what needs it cannot run.
    """

    name: str
    state: State
    detail: str
    hint: str = ""


def size(count: int) -> str:
    """Return a number of bytes as people read it.

    >>> size(3 << 20), size(80 << 30)
    ('3 MiB', '80.0 GiB')
    """
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / (1 << 20):.0f} MiB"
