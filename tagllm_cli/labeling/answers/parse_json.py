"""The JSON in a language model's answer."""

from __future__ import annotations

import json
import re

from tagllm_cli.labeling.answers.words import is_thought, without_thought
from tagllm_cli.records import Response

_SHOWN = 80  # characters of an answer in an error
_TRIES = 50  # brackets at which JSON may start; prose and formulas have some, too
_OPENING = re.compile(r"[\[{]")
_JSON = json.JSONDecoder(strict=False)


class UnusableAnswerError(Exception):
    """An answer that says nothing usable: a failure, a refusal, nonsense."""


def spoken(response: Response) -> str:
    """Return an answer's text without the thinking before it.

    Raises UnusableAnswerError for a failure, and for a thought that never ended: what it weighs is not what it says.
    """
    if response.failure is not None:
        raise UnusableAnswerError(str(response.failure))
    text = without_thought(response.text)
    if is_thought(text):
        raise UnusableAnswerError("the answer is a thought that never ended")
    return text


def read_json(response: Response) -> object:
    r"""Return the longest JSON list or object of an answer, a `<think>` part, fences and prose left aside.

    Several objects, one after the other, are a list of them. Raises UnusableAnswerError, with the reason, where there
    is nothing that can be read.

    >>> read_json(Response('Here it is:\n```json\n[{"scene": "kitchen"}]\n```'))
    [{'scene': 'kitchen'}]
    """
    text = spoken(response)
    found, is_whole = json_values(text)
    if response.finish == "length" and not is_whole:  # what is whole inside of it is only a part
        raise UnusableAnswerError("the answer was cut off")
    if not found:
        line = " ".join(text.split())
        said = repr(line if len(line) <= _SHOWN else f"{line[:_SHOWN]}...") if line else "nothing"
        raise UnusableAnswerError(f"the answer is no JSON: {said}")
    objects = [value for _, value in found if isinstance(value, dict)]
    longest = max(found, key=lambda each: each[0])[1]
    return objects if len(objects) > 1 and isinstance(longest, dict) else longest


def decoded(text: str) -> object:
    """Return the value of a JSON text, None where it is none."""
    try:
        return _JSON.decode(text)
    except (ValueError, RecursionError):
        return None


def json_values(text: str) -> tuple[list[tuple[int, object]], bool]:
    """Return the JSON lists and objects in a text with their lengths; and whether every bracket belongs to one."""
    found: list[tuple[int, object]] = []
    start, failed = _OPENING.search(text), 0
    while start and failed < _TRIES:
        end = start.end()
        try:
            value, end = _JSON.raw_decode(text, start.start())
            found.append((end - start.start(), value))
        except (ValueError, RecursionError):
            failed += 1
        start = _OPENING.search(text, end)
    return found, not failed and bool(found)
