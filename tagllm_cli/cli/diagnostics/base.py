"""One check of `tagllm doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

GIB = 1 << 30

State = Literal["ok", "warning", "missing"]


@dataclass(frozen=True, slots=True)
class Check:
    """What was found, and what to do where the state is not `ok`.

    `warning`: works, with a limit; `missing`: what needs it cannot run.
    """

    name: str
    state: State
    detail: str
    hint: str = ""


def size(count: int) -> str:
    """Return a number of bytes in MiB or GiB.

    >>> size(3 << 20), size(80 << 30)
    ('3 MiB', '80.0 GiB')
    """
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / (1 << 20):.0f} MiB"
