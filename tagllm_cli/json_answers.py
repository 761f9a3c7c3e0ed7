"""The JSON in a language model's answer."""

from __future__ import annotations

import json
import re

from tagllm_cli.schema import Reply

_SHOWN = 80  # characters of an answer in an error
_THOUGHT = re.compile(r"^.*?</think>", re.DOTALL)
_JSON = json.JSONDecoder(strict=False)


class UnusableAnswerError(Exception):
    """An answer that says nothing usable: a failure, a refusal, nonsense."""


def read_json(reply: Reply) -> object:
    r"""Return the first JSON list or object of an answer, a `<think>` part, fences and prose left aside.

    Raises UnusableAnswerError, with the reason, where there is none that can be read.

    >>> read_json(Reply('Here it is:\n```json\n[{"scene": "kitchen"}]\n```'))
    [{'scene': 'kitchen'}]
    """
    if reply.failure is not None:
        raise UnusableAnswerError(str(reply.failure))
    text = _THOUGHT.sub("", reply.text).strip()
    start = re.search(r"[\[{]", text)
    try:
        value: object = _JSON.raw_decode(text, start.start() if start else 0)[0]
    except (ValueError, RecursionError):
        if reply.finish == "length":
            raise UnusableAnswerError("the answer was cut off") from None
        line = " ".join(text.split())
        said = repr(line if len(line) <= _SHOWN else f"{line[:_SHOWN]}...") if line else "nothing"
        raise UnusableAnswerError(f"the answer is no JSON: {said}") from None
    if not isinstance(value, list | dict):
        raise UnusableAnswerError(f"the answer is neither a JSON list nor an object: {value!r:.80}")
    return value
