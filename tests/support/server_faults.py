"""The faults of servers, by name: what one answer may be instead of what it should be.

Most are of one answer, and the next answer to the same question is right.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from email.utils import formatdate
from typing import Any, Literal

from tests.support.faulty_proxy import (
    Fault,
    complete,
    cut_off,
    error_in_200,
    half_json,
    http_response,
    redirect,
    refuse,
    reset,
    slow,
)


def hang(seconds: float = 3600.0) -> Fault:
    """Silence for so long, then the connection is reset."""
    return Fault(wait_s=seconds)


def drip(seconds: float) -> Fault:
    """The real response, in small pieces over so many seconds."""
    return Fault(keep=1.0, drip_s=seconds)


def bytewise(edit: Callable[[bytes], bytes], then: Literal["go on", "close", "reset", "hang"] = "close") -> Fault:
    """The real response, its head and body changed."""
    return Fault(keep=1.0, edit=edit, then=then)


def edited(edit: Callable[[dict[str, Any]], Any]) -> Fault:
    """The real response, its JSON changed in place, or replaced by what `edit` returns."""

    def change(response: bytes) -> bytes:
        content = json.loads(response.partition(b"\r\n\r\n")[2])
        replaced = edit(content)
        return http_response(200, (), json.dumps(content if replaced is None else replaced).encode())

    return bytewise(change, "go on")


def in_choice(**fields: Any) -> Fault:
    """The real response with other fields in its choice; those of `message` are set within the message."""

    def change(content: dict[str, Any]) -> None:
        choice = content["choices"][0]
        choice["message"] |= fields.get("message", {})
        choice |= {name: value for name, value in fields.items() if name != "message"}

    return edited(change)


def _head(change: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """Change a response's head, and leave its body."""

    def edit(response: bytes) -> bytes:
        head, end, body = response.partition(b"\r\n\r\n")
        return change(head) + end + body

    return edit


def _longer(head: bytes) -> bytes:
    name, colon, length = head.partition(b"Content-Length: ")
    number, rest = length.split(b"\r\n", 1)
    return name + colon + b"%d" % (int(number) + 100) + b"\r\n" + rest


def _shorter(head: bytes) -> bytes:
    name, colon, length = head.partition(b"Content-Length: ")
    number, rest = length.split(b"\r\n", 1)
    return name + colon + b"%d" % (int(number) - 40) + b"\r\n" + rest


def _endless_head(response: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\n" + b"X-Wait: 1\r\n" * 50


def _chunk_cut(response: bytes) -> bytes:
    body = response.partition(b"\r\n\r\n")[2]
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % len(body) + body[: len(body) // 2]


def _events(response: bytes) -> bytes:
    return http_response(200, (), b"data: " + response.partition(b"\r\n\r\n")[2] + b"\n\ndata: [DONE]\n\n")


def _in_utf_16(response: bytes) -> bytes:
    return http_response(200, (), response.partition(b"\r\n\r\n")[2].decode().encode("utf-16"))


def _in_parts(content: dict[str, Any]) -> None:
    message = content["choices"][0]["message"]
    message["content"] = [{"type": "text", "text": message["content"]}]


HTML = Fault(200, (("Content-Type", "text/html"),), b"<html>Welcome to the gateway</html>")

# Another attempt at the same server gets the answer.
PASSING: Mapping[str, Fault] = {
    "401": refuse(401, "Incorrect API key"),
    "408": refuse(408),
    "429": refuse(429),
    "429 retry after seconds": refuse(429, retry_after="0.1"),
    "429 retry after a date": refuse(429, retry_after=formatdate(usegmt=True)),
    "429 retry after garbage": refuse(429, retry_after="soon"),
    "429 retry after -5": refuse(429, retry_after="-5"),
    "429 retry after nan": refuse(429, retry_after="nan"),
    "429 retry after inf": refuse(429, retry_after="inf"),
    "429 retry after hours": refuse(429, retry_after="7200"),
    "429 quota": refuse(429, "The budget of this key is used up."),
    "500": refuse(500, "CUDA error"),
    "502": Fault(502, (), b"<html>Bad Gateway</html>"),
    "503": refuse(503, "overloaded"),
    "504": refuse(504, "upstream timed out"),
    "reset": reset(),
    "reset in the body": cut_off(),
    "closed without a word": bytewise(lambda response: b""),
    "truncated JSON": half_json(),
    "HTML": HTML,
    "no choices": Fault(200, (), b'{"object": "chat.completion", "choices": []}'),
    "error under 200": error_in_200("The model is overloaded."),
    "error 503 under 200": error_in_200("The model is overloaded.", 503),
    "broken gzip": Fault(200, (("Content-Encoding", "gzip"),), b"\x1f\x8b\x08 no gzip"),
    "hang, then drop": hang(0.3),
    "longer than a timeout": slow(4.0),
    "head without end": bytewise(_endless_head, then="hang"),
    "content length too large": bytewise(_head(_longer)),
    "content length too small": bytewise(_head(_shorter)),
    "cut off at max_tokens": in_choice(finish_reason="length"),  # `CUT_OFF`
    "chunk cut off": bytewise(_chunk_cut, then="reset"),
}

# The answer is there, in an odd form or late.
HARMLESS: Mapping[str, Fault] = {
    "hang, then answer": slow(0.3),
    "drip": drip(0.3),
    "redirect": redirect("/v1/chat/completions", 307),
    "another model": edited(lambda content: content.__setitem__("model", "another")),
    "content in parts": edited(_in_parts),
    "events": bytewise(_events, "go on"),
    "UTF-16": bytewise(_in_utf_16, "go on"),
    "usage missing": edited(lambda content: content.pop("usage") and None),
    "usage odd": edited(lambda content: content.__setitem__("usage", {"prompt_tokens": math.nan})),
    "finish reason null": in_choice(finish_reason=None),
}

# The server means it: asked again, it would say the same. Text of the reason that a row must show.
REFUSALS: Mapping[str, tuple[Fault, str]] = {
    "400": (refuse(400, "At most 1 image(s) may be provided."), "At most 1 image"),
    "403": (refuse(403, "Forbidden by the filter"), "Forbidden by the filter"),
    "404": (refuse(404, "The model `stub` does not exist."), "does not exist"),
    "413": (refuse(413, "Payload Too Large"), "Payload Too Large"),
    "422": (refuse(422, "Unprocessable"), "Unprocessable"),
    "error 403 under 200": (error_in_200("This key may not send images.", 403), "may not send images"),
    "filtered": (complete(None, finish="content_filter"), "content filter"),
    "refused": (in_choice(message={"content": None, "refusal": "I cannot help."}, logprobs=None), "cannot"),
    "call of a tool": (complete(None, finish="tool_calls", tool_calls=[{}]), "tool"),
    "very long answer": (complete("cat, " * 100_000), "too_long_answer"),
}
OF_LISTS: Mapping[str, tuple[Fault, str]] = {
    "content null": (complete(None), "empty"),
    "content empty": (complete(""), "empty"),
    "reasoning only": (complete(None, reasoning="A cat?"), "thinking"),
}
OF_YES_AND_NO: Mapping[str, tuple[Fault, str]] = {
    "logprobs missing": (edited(lambda content: content["choices"][0].pop("logprobs") and None), "log-probabilities"),
    "logprobs null": (in_choice(logprobs=None), "log-probabilities"),
    "logprobs empty": (in_choice(logprobs={"content": [{"token": "yes", "top_logprobs": []}]}), "log-probabilities"),
    "logprobs NaN": (
        in_choice(logprobs={"content": [{"top_logprobs": [{"token": "yes", "logprob": math.nan}]}]}),
        "log-probabilities",
    ),
}

# Faults after which a question is asked again.
ASKED_AGAIN = frozenset({*PASSING, "redirect"})
# Few of these are enough: each lasts as long as a timeout, or is asked again at most twice.
CUT_OFF = "cut off at max_tokens"
TIMED_OUT = frozenset({"longer than a timeout", "head without end"})
FEW = TIMED_OUT | {"hang, then drop", CUT_OFF}

# What every answer may be from some moment on, and what a run says of it at its end.
PERMANENT: Mapping[str, tuple[Fault, str]] = {
    "400": (refuse(400, "At most 1 image(s) may be provided."), "At most 1 image"),
    "401": (refuse(401, "Incorrect API key"), "API key"),
    "403": (refuse(403, "Not allowed"), "HTTP 403"),
    "404": (refuse(404, "The model `stub` does not exist."), "does not exist"),
    "429": (refuse(429, "Too many requests"), "Too many requests"),
    "429 quota": (refuse(429, "The budget of this key is used up."), "used up"),
    "429 retry after inf": (refuse(429, "Slow down", retry_after="inf"), "Slow down"),
    "429 retry after hours": (refuse(429, "Slow down", retry_after="7200"), "Slow down"),
    "500": (refuse(500, "CUDA error"), "CUDA error"),
    "503": (refuse(503, "overloaded"), "overloaded"),
    "HTML": (HTML, "not a chat completion"),
    "truncated JSON": (half_json(), "not a chat completion"),
    "no choices": (PASSING["no choices"], "not a chat completion"),
    "reset": (reset(), "connection"),
    "broken gzip": (PASSING["broken gzip"], "127.0.0.1"),
    "hang": (hang(), "no answer"),
    "hang, then drop": (hang(0.3), "connection"),
    "filtered": (complete(None, finish="content_filter"), "content filter"),
    "very long answer": (complete("cat, " * 100_000), "too_long_answer"),
    "redirect that loses the question": (redirect("/other", 302), "redirects"),
    "redirect without end": (redirect("/v1/chat/completions", 307), "redirects"),
}
