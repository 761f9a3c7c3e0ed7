"""Whether SQLite would leave out commits at the end of a write-ahead log that a killed process left.

SQLite reads a log up to the first frame whose checksum is wrong and takes the rest for a commit that was never made. A
flipped bit, or a power cut that wrote frames out of order, thus hides commits without a word. A run that lists the
source finds out what is lacking; one that does not must know. Format: https://www.sqlite.org/walformat.html
"""

from __future__ import annotations

import struct
from pathlib import Path

_HEADER, _FRAME_HEADER = 32, 24
_MAGIC = {0x377F0682: "<", 0x377F0683: ">"}  # byte order of the words that are summed
_MASK = 0xFFFFFFFF


def loses_commits(database: Path) -> bool:
    """Return whether commits follow the place up to which SQLite would read the log of this database."""
    try:
        log = database.with_name(f"{database.name}-wal").open("rb")
    except FileNotFoundError:
        return False
    with log:
        header = log.read(_HEADER)
        if len(header) < _HEADER:
            return False
        magic, _, page_size, _, *salts, first, second = struct.unpack(">8I", header)
        order = _MAGIC.get(magic)
        if order is None or (sums := _summed(header[:24], order, (0, 0))) != (first, second):
            return bool(log.read(1))
        is_whole = True
        while len(frame := log.read(_FRAME_HEADER + page_size)) == _FRAME_HEADER + page_size:
            _, committed, *found, first, second = struct.unpack(">6I", frame[:_FRAME_HEADER])
            if not is_whole:
                if committed and found == salts:
                    return True
                continue
            sums = _summed(frame[:8] + frame[_FRAME_HEADER:], order, sums)
            is_whole = found == salts and sums == (first, second)
    return False


def _summed(data: bytes, order: str, sums: tuple[int, int]) -> tuple[int, int]:
    one, two = sums
    words = iter(struct.unpack(f"{order}{len(data) // 4}I", data))
    for even, odd in zip(words, words, strict=True):
        one = (one + even + two) & _MASK
        two = (two + odd + one) & _MASK
    return one, two
