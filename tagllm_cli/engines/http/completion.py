"""Chat completions as bytes: what a server answered, or why that is no answer. No network here.

Servers differ in the form. What can be read is read: parts, events of a stream that nobody asked for, log-probabilities
of older protocols. What cannot is a failure with a reason, and never an empty answer.
"""

from __future__ import annotations

import codecs
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from tagllm_cli.engines.base import check_response, failure_kind, merge_logprobs
from tagllm_cli.engines.http.bodies import MOST_BYTES, BadResponseError, error_message, parse_json, storable
from tagllm_cli.engines.http.protocol import is_retryable
from tagllm_cli.records import Failure, Request, Response
from tagllm_cli.text import one_line

# An English word is one to three tokens. Longer than this, the server did not keep to `max_tokens`.
_CHARACTERS_PER_TOKEN = 12
_LEAST_CHARACTERS = 1_000
_SHOWN_BYTES = 500  # of a body that is no answer
_HIGHEST_LOGPROB = 0.01  # above 0 by no more than rounding

_LACKING = ("empty_answer", "no_logprobs")  # kinds of failures that say what there is not, and not why
# Finish reasons of other servers, in OpenAI's words.
_FINISH: Mapping[str, str] = {
    "eos": "stop",
    "eos_token": "stop",
    "stop_sequence": "stop",
    "end_turn": "stop",
    "max_tokens": "length",
    "max_new_tokens": "length",
    "model_length": "length",
    "limit": "length",
    "safety": "content_filter",
    "recitation": "content_filter",
    "prohibited_content": "content_filter",
    "sensitive": "content_filter",
    "content-filter": "content_filter",
    "tool_call": "tool_calls",
}


def read_response(body: bytes, request: Request) -> Response:
    """Return the response in the body of a status 200; a failed one where it holds no answer (`check_response`).

    Raises:
        BadResponseError: not a complete chat completion, or a server's error for the moment.
    """
    if len(body) > MOST_BYTES:
        return _too_long(f"{len(body):,} bytes", request)
    try:
        content = _events(body) or parse_json(body)
        if error := _error(content):
            return _error_response(error)
        choice = _choice(content["choices"])
        message, usage = choice["message"], content.get("usage")
        output_tokens = _count(usage, "completion_tokens")
        text = _text(message.get("content"))
        if len(text) > max(_LEAST_CHARACTERS, _CHARACTERS_PER_TOKEN * request.max_tokens):
            return _too_long(f"{len(text):,} characters", request)
        response = Response(
            text=text,
            finish=_finish(choice.get("finish_reason"), output_tokens, request),
            first_logprobs=_first_logprobs(content, choice) if request.top_logprobs else {},
            prompt_tokens=_count(usage, "prompt_tokens"),
            cached_tokens=_count(_field(usage, "prompt_tokens_details"), "cached_tokens"),
            output_tokens=output_tokens,
        )
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        begins = one_line(body[:_SHOWN_BYTES].decode("utf-8", "replace"), 80)
        raise BadResponseError(f"not a chat completion ({type(error).__name__}): {begins}") from None
    response = check_response(request, response)
    if response.failure is not None and response.failure.kind in _LACKING and not text.strip():
        return Response(failure=_why_empty(message) or response.failure)
    return response


def _too_long(length: str, request: Request) -> Response:
    tokens = f"{request.max_tokens:,} token{'s' * (request.max_tokens != 1)}"
    message = f"the answer has {length}, where {tokens} were asked for: the server does not keep to max_tokens"
    return Response(failure=Failure("too_long_answer", message))


def _events(body: bytes) -> dict[str, Any] | None:
    """Return the completion in a stream of server-sent events; None where the body is none. Raises ValueError."""
    lines = body.removeprefix(codecs.BOM_UTF8).split(b"\n")
    if not lines[0].startswith((b"data:", b"event:", b":")):
        return None
    data = [line[5:].strip() for line in lines if line.startswith(b"data:")]
    events = [json.loads(each) for each in data if each != b"[DONE]"]
    for event in events:
        if _error(event) or "message" in (event.get("choices") or [{}])[0]:
            return event  # type: ignore[no-any-return]
    deltas = [choice for event in events for choice in event.get("choices") or [] if not choice.get("index")]
    if not any(choice.get("finish_reason") for choice in deltas):
        raise ValueError("the stream ends before the answer does")
    message: dict[str, str] = {}
    for choice in deltas:
        for name, value in (choice.get("delta") or {}).items():
            if isinstance(value, str):
                message[name] = message.get(name, "") + value
    finish = next(choice["finish_reason"] for choice in reversed(deltas) if choice.get("finish_reason"))
    logprobs = next((choice["logprobs"] for choice in deltas if choice.get("logprobs")), None)
    usage = next((event["usage"] for event in reversed(events) if event.get("usage")), None)
    return {"choices": [{"message": message, "logprobs": logprobs, "finish_reason": finish}], "usage": usage}


def _error(content: Any) -> Any:
    """Return the error that stands in the place of an answer; None where there is none."""
    choices = content.get("choices")
    if error := content.get("error") or (choices or [{}])[0].get("error"):
        return error
    texts = (content.get(name) for name in ("message", "detail", "msg"))
    return content if not choices and any(isinstance(text, str | list) and text for text in texts) else None


def _error_response(error: Any) -> Response:
    """Return the failure for an error in the body of a status 200; its code, where there is one, is an HTTP status."""
    code = (error.get("code") or error.get("status")) if isinstance(error, dict) else None
    message, code = error_message(error), str(code)
    if not (code.isdigit() and 400 <= int(code) < 600) or is_retryable(int(code)):
        raise BadResponseError(message)
    return Response(failure=Failure(failure_kind(message), f"error {code}: {message}"))


def _choice(choices: Any) -> Any:
    """Return the first choice with content: some gateways put a call of a tool into one of its own."""
    return next((choice for choice in choices if choice["message"].get("content")), choices[0])


def _text(content: Any) -> str:
    """Return a message's content, a string or a list of parts, as one text."""
    if isinstance(content, list):
        content = "".join(part["text"] for part in content if part["type"] in ("text", "output_text"))
    if content is not None and not isinstance(content, str):
        raise TypeError
    return storable(content or "")


def _finish(reason: Any, output_tokens: int, request: Request) -> str:
    """Return a finish reason in OpenAI's words; where none is told, the tokens tell whether the answer was cut off."""
    if not reason:
        return "length" if output_tokens >= request.max_tokens else "stop"
    return _FINISH.get(str(reason).lower(), str(reason).lower())


def _field(record: Any, name: str) -> Any:
    return record.get(name) if isinstance(record, dict) else None


def _count(usage: Any, name: str) -> int:
    """Return a number of tokens, 0 where there is none: an answer with odd counts is an answer."""
    value = _field(usage, name)
    return int(value) if isinstance(value, int | float) and 0 < value < 1e12 else 0


def _first_logprobs(content: Any, choice: Any) -> dict[str, float]:
    """Return the log-probabilities of the first token, NaN for what is none; empty where there are none."""
    return merge_logprobs(_entries(_first_token(content, choice)))


def _first_token(content: Any, choice: Any) -> Any:
    """Return what is told about the first token: a mapping of texts, or a record or list of alternatives."""
    told = choice.get("logprobs")
    if isinstance(told, dict):
        told = told.get("content") or told.get("top_logprobs")
    # llama.cpp's own form
    told = told or choice.get("completion_probabilities") or content.get("completion_probabilities")
    return told[0] if isinstance(told, list) and told else None


def _entries(first: Any) -> Iterator[tuple[str, float]]:
    """Yield the text and log-probability of each alternative."""
    if not isinstance(first, dict):
        return
    entries = next((first[name] for name in ("top_logprobs", "top_probs", "probs") if first.get(name)), None)
    if entries is None and "token" not in first and "content" not in first:
        entries = first  # texts mapped to log-probabilities, as in the completions of older servers
    if isinstance(entries, dict):
        yield from ((storable(text), _logprob(value)) for text, value in entries.items())
        return
    for entry in entries or ():
        value = entry["prob"] if "logprob" not in entry else entry["logprob"]
        if "logprob" not in entry and isinstance(value, int | float):
            value = math.log(value) if value > 0 else -math.inf
        yield _token(entry), _logprob(value)


def _token(entry: Any) -> str:
    """Return an alternative's text, from its bytes where it is not told."""
    text = entry.get("token", entry.get("tok_str"))
    if text is None and entry.get("bytes"):
        text = bytes(entry["bytes"]).decode("utf-8", "replace")
    return storable(str(text))


def _logprob(value: Any) -> float:
    """Return a log-probability, NaN for what is none."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not value <= _HIGHEST_LOGPROB:
        return math.nan
    return min(float(value), 0.0)


def _why_empty(message: Any) -> Failure | None:
    """Return why a message has no content, where other fields of it tell."""
    if message.get("refusal"):
        return Failure("refused", error_message(message["refusal"]))
    if any(message.get(name) for name in ("reasoning", "reasoning_content", "reasoning_details", "thinking")):
        return Failure(
            "reasoning_only", "the answer is reasoning only; switch thinking off, or use an instruction-tuned model"
        )
    if message.get("tool_calls") or message.get("function_call"):
        return Failure("tool_call", "the model called a tool instead of answering; serve it without tools")
    return None
