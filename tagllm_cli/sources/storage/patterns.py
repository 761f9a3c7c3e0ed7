"""Names that a user wrote in short: braces as in bash, globs, and both escaped in square brackets."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

from tagllm_cli.errors import SourceError

MOST_NAMES = 1_000_000  # that braces may stand for

_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)(?:\.\.(-?\d+))?|([A-Za-z])\.\.([A-Za-z])(?:\.\.(-?\d+))?")
_SPECIAL = re.compile(r"[*?\[{]")
_ESCAPED = re.compile(r"\[([*?\[{])\]")  # one special character, as `escape` writes it


def expand_braces(pattern: str) -> list[str]:
    """Return the names that the braces of a pattern stand for, in the order of bash; globs stay.

    Lists, ranges of numbers (as wide as the wider end, if it begins with 0) and of letters, steps, nested braces. What
    bash does not expand stays as it is: `{}`, `{a}`. Raises SourceError at more than MOST_NAMES.

    >>> expand_braces("{00..02}.tar"), expand_braces("{a,b{1..3..2}}"), expand_braces("{a}[{]b,c}")
    (['00.tar', '01.tar', '02.tar'], ['a', 'b1', 'b3'], ['{a}[{]b,c}'])
    """
    pieces = _pieces(pattern)
    count = math.prod(len(piece) for piece in pieces)
    if count > MOST_NAMES:
        raise SourceError(f"the braces of {pattern!r} stand for {count:,} names", f"Name at most {MOST_NAMES:,}.")
    return ["".join(each) for each in itertools.product(*pieces)]


def escape(name: str) -> str:
    """Return the pattern that matches this name alone.

    >>> escape("{a,b}[c].jpg")
    '[{]a,b}[[]c].jpg'
    """
    return _SPECIAL.sub(lambda found: f"[{found[0]}]", name)


def literal(pattern: str) -> str | None:
    """Return the only name that a pattern without braces matches, None for a glob.

    >>> literal(escape("{a,b}[c].jpg")), literal("[ab].jpg")
    ('{a,b}[c].jpg', None)
    """
    rest = _ESCAPED.sub("", pattern)
    return None if any(character in rest for character in "*?[") else shown(pattern)


def shown(pattern: str) -> str:
    """Return a pattern as a user would write it, for messages.

    >>> shown(escape("a[1].csv")), shown("*.tar")
    ('a[1].csv', '*.tar')
    """
    return _ESCAPED.sub(r"\1", pattern)


def first_special(text: str) -> int | None:
    """Return where the first wildcard or brace stands that makes a text more than one name; escaped ones count too.

    >>> first_special("a.tar"), first_special("{a}/{b,c}.tar"), first_special("a/*.tar"), first_special("a[b")
    (None, 4, 2, None)
    """
    found = re.search(r"[*?]|\[.+\]", text)
    first, *others = _pieces(text)
    places = [found.start()] if found else []
    return min([*places, len(first[0])] if others else places, default=None)


def is_match(path: str, pattern: str) -> bool:
    """Tell whether a path below the root matches a glob: `*` and `?` within a segment, `**` for any number of segments.

    A glob without a slash matches a name at any depth, one with a slash the whole path, as in .gitignore.

    >>> is_match("2024/may/raw", "raw"), is_match("2024/may/a.gif", "*.gif"), is_match("2024/raw", "/raw")
    (True, True, False)
    >>> is_match("2024/may/raw", "2024/*/raw"), is_match("2024/may/raw", "**/raw/"), is_match("2024/raw", "2024/**")
    (True, True, True)
    """
    pattern = pattern.rstrip("/")
    if "/" not in pattern:
        return fnmatchcase(path.rpartition("/")[2], pattern)
    return match_segments(path.split("/"), pattern.lstrip("/").split("/"))


def match_segments(names: Sequence[str], globs: Sequence[str]) -> bool:
    """Tell whether the segments of a path match those of a glob, one to one but for `**`."""
    if not globs:
        return not names
    if globs[0] == "**":
        return any(match_segments(names[start:], globs[1:]) for start in range(len(names) + 1))
    return bool(names) and fnmatchcase(names[0], globs[0]) and match_segments(names[1:], globs[1:])


def split_folder(pattern: str) -> tuple[str, str]:
    """Divide a pattern without braces into the folder that it fixes ("": none) and the rest.

    >>> split_folder("a/[[]b]/c*/d.tar"), split_folder("*.tar"), split_folder("a.tar")
    (('a/[b]', 'c*/d.tar'), ('', '*.tar'), ('', 'a.tar'))
    """
    segments = pattern.split("/")
    fixed = list(itertools.takewhile(lambda segment: literal(segment) is not None, segments[:-1]))
    return "/".join(literal(segment) or "" for segment in fixed), "/".join(segments[len(fixed) :])


def _pieces(text: str) -> list[list[str]]:
    """Divide a text into pieces with their alternatives; a piece of plain text has one."""
    start = 0
    pieces: list[list[str]] = []
    position = 0
    while (position := text.find("{", position)) >= 0:
        if text[position - 1 : position + 2] == "[{]" and position:
            position += 1
            continue
        found = _alternatives(text, position)
        if found is None:
            position += 1
            continue
        alternatives, end = found
        pieces += [[text[start:position]], alternatives]
        start = position = end
    return [*pieces, [text[start:]]]


def _alternatives(text: str, start: int) -> tuple[list[str], int] | None:
    """Return what the brace at `start` stands for and where it ends, None where it stands for itself."""
    depth, cuts = 0, [start]
    for position, character in _unescaped(text, start):
        if character == "{":
            depth += 1
        elif character == "," and depth == 1:
            cuts.append(position)
        elif character == "}":
            depth -= 1
            if depth == 0:
                cuts.append(position)
                break
    else:
        return None
    if len(cuts) > 2:
        parts = [text[one + 1 : other] for one, other in itertools.pairwise(cuts)]
        return [name for part in parts for name in expand_braces(part)], cuts[-1] + 1
    found = _RANGE.fullmatch(text, start + 1, cuts[-1])
    return (_range(found), cuts[-1] + 1) if found else None


def _unescaped(text: str, start: int) -> Iterator[tuple[int, str]]:
    for position in range(start, len(text)):
        if text[position] in "{,}" and not (position and text[position - 1 : position + 2] == "[{]"):
            yield position, text[position]


def _range(found: re.Match[str]) -> list[str]:
    first, last, step, first_letter, last_letter, letter_step = found.groups()
    if first is None:
        return [chr(code) for code in _numbers(ord(first_letter), ord(last_letter), letter_step)]
    is_padded = any(re.match(r"-?0\d", end) for end in (first, last))
    width = max(len(first), len(last)) if is_padded else 0
    return [f"{number:0{width}d}" for number in _numbers(int(first), int(last), step)]


def _numbers(first: int, last: int, step: str | None) -> range:
    by = abs(int(step or 1)) or 1
    numbers = range(first, last + 1, by) if first <= last else range(first, last - 1, -by)
    if len(numbers) > MOST_NAMES:
        raise SourceError(f"braces stand for {len(numbers):,} names", f"Name at most {MOST_NAMES:,}.")
    return numbers
