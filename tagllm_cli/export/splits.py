"""Splits of an export: `train=.8,val=.1,test=.1`. An image's split depends on its group, the seed and the shares alone.

A group is all images with one fingerprint (so that copies never lie on both sides), one folder, or one value of a
column of the source. The group's key is hashed to a number in [0, 1), and the shares divide that interval in their
order: images that are added later move no other, and a share differs from the wanted one as chance has it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from tagllm_cli.errors import UsageError

Shares = tuple[tuple[str, float], ...]

FOLDER = "folder"  # the value of --group-by that is no column
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}")
_EXAMPLE = "For example --split train=.8,val=.1,test=.1."
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class Splits:
    """The splits by their shares of the groups.

    >>> Splits.of((("train", 0.75), ("test", 0.25))).split_of(b"a group")
    'train'
    """

    names: tuple[str, ...]
    _ends: tuple[float, ...]
    _seed: bytes

    @classmethod
    def of(cls, shares: Shares, seed: int = 0) -> Splits:
        """Return the splits with these shares, which `check_shares` accepts."""
        ends = tuple(accumulate(share for _, share in shares))
        return cls(tuple(name for name, _ in shares), (*ends[:-1], 1.0), f"tagllm split {seed}\n".encode())

    def split_of(self, group: bytes) -> str:
        """Return the split of a group of images."""
        number = int.from_bytes(hashlib.blake2b(self._seed + group, digest_size=8).digest(), "big") >> 11
        place = number / (1 << 53)
        return next(name for name, end in zip(self.names, self._ends, strict=True) if place < end)


def parse_shares(text: str) -> Shares:
    """Return the shares that `train=.8,val=.1,test=.1` names, in this order. Raises UsageError.

    >>> parse_shares("train=.9, test=.1")
    (('train', 0.9), ('test', 0.1))
    """
    shares = []
    for part in text.split(","):
        name, _, share = part.partition("=")
        try:
            shares.append((name.strip(), float(share)))
        except ValueError:
            raise UsageError(f"--split takes NAME=SHARE with commas, not {part.strip()!r}", _EXAMPLE) from None
    return check_shares(tuple(shares))


def check_shares(shares: Sequence[tuple[str, float]]) -> Shares:
    """Return the shares. Raises UsageError for names that are no file names and shares that do not sum to 1."""
    names = [name for name, _ in shares]
    if bad := [name for name in names if not _NAME.fullmatch(name)]:
        hint = "Use letters, digits, - and _: splits are names of files."
        raise UsageError(f"{bad[0]!r} cannot be the name of a split", hint)
    if len({name.lower() for name in names}) < len(names):
        raise UsageError(f"--split names one split twice: {', '.join(names)}", _EXAMPLE)
    if bad := [name for name, share in shares if not 0 < share <= 1]:
        raise UsageError(f"the share of {bad[0]} is not above 0 and at most 1", _EXAMPLE)
    total = sum(share for _, share in shares)
    if abs(total - 1) > _ROUNDING:
        raise UsageError(f"the shares of --split sum to {total:g}, not to 1", _EXAMPLE)
    return tuple((name, float(share)) for name, share in shares)
