"""The OpenAI chat-completions protocol as bytes: request bodies out, lists of models in. No network here.

Answers are read in `completion.py`, errors in `bodies.py`.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

from tagllm_cli.engines.base import template_kwargs
from tagllm_cli.engines.http.bodies import BadResponseError, parse_json
from tagllm_cli.engines.http.dialect import PLAIN, Dialect
from tagllm_cli.records import DecodedImage, Request

_RETRYABLE = (408, 409, 425, 429)  # of the refusals (4xx), those about the moment and not about the request


class Models(NamedTuple):
    """The models of a server: their served names, and whether the server is vLLM."""

    names: frozenset[str]
    is_vllm: bool


def is_retryable(status: int) -> bool:
    """Return whether another attempt may succeed after this HTTP status."""
    return status >= 500 or status in _RETRYABLE


def encode_image(decoded_image: DecodedImage) -> bytes:
    """Return the JSON of an image's message part: the file's own bytes where they show these pixels, else a PNG."""
    data, mime = decoded_image.encoded, decoded_image.mime
    if data is None:
        buffer = io.BytesIO()
        decoded_image.pixels.save(buffer, "PNG", compress_level=1)
        data, mime = buffer.getvalue(), "image/png"
    return b'{"type":"image_url","image_url":{"url":"data:%s;base64,%s"}}' % (mime.encode(), base64.b64encode(data))


def parameters(request: Request, *, is_vllm: bool, dialect: Dialect = PLAIN) -> dict[str, Any]:
    """Return the parameters of a request beside its model and messages.

    Args:
        request: what is asked.
        is_vllm: add those that only vLLM knows, so that responses equal those of in-process vLLM: a model's default
            repetition penalty, say, would count against the names that a request lists.
        dialect: of the server.
    """
    options: dict[str, Any] = {
        dialect.max_tokens: request.max_tokens,
        "temperature": dialect.temperature,
        "stream": False,
    }
    if request.top_logprobs:
        options |= {"logprobs": True, "top_logprobs": min(request.top_logprobs, dialect.most_logprobs)}
    if is_vllm:
        options["repetition_penalty"] = 1.0
    if is_vllm or dialect.template_kwargs:
        options["chat_template_kwargs"] = template_kwargs(dialect.template_kwargs)
    return {name: value for name, value in options.items() if name not in dialect.without}


def request_body(
    model: str, request: Request, image: bytes | None, *, is_vllm: bool, dialect: Dialect = PLAIN
) -> bytes:
    """Return the JSON body of one request.

    Args:
        model: served name.
        request: what is asked.
        image: the part of `encode_image`, None for a request without one.
        is_vllm: see `parameters`.
        dialect: of the server.
    """
    system, said = request.system, request.text
    if system and not dialect.has_system:
        system, said = "", f"{system}\n\n{said}"
    text = json.dumps({"type": "text", "text": said}).encode()
    content = json.dumps(said).encode() if image is None else b"[" + image + b"," + text + b"]"
    first = json.dumps({"role": "system", "content": system}).encode() + b"," if system else b""
    head = json.dumps({"model": model, **parameters(request, is_vllm=is_vllm, dialect=dialect)}).encode()[:-1]
    # Concatenated: the image is megabytes of JSON already, the same in all of its requests.
    return head + b',"messages":[' + first + b'{"role":"user","content":' + content + b"}]}"


def read_models(body: bytes) -> Models | None:
    """Return what `GET /models` lists, None where the body is something else; raises BadResponseError if truncated."""
    try:
        content = parse_json(body)
    except ValueError:
        if body.lstrip().startswith(b"{"):
            raise BadResponseError("not a list of models") from None
        return None
    try:
        entries = content["data"]
        names = frozenset(str(entry["id"]) for entry in entries)
        return Models(names, any(entry.get("owned_by") == "vllm" for entry in entries))
    except (TypeError, KeyError, AttributeError):
        return None


def read_version(body: bytes) -> str | None:
    """Return what vLLM's `GET /version` tells, None where the body is something else."""
    try:
        version = parse_json(body)["version"]
    except (ValueError, TypeError, KeyError):
        return None
    return version if isinstance(version, str) else None


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Return the seconds of a Retry-After header, which may be a number or a date; None where there is none.

    Args:
        headers: of the response, keys in lower case or case-insensitive.
        now: Unix time in seconds.

    >>> retry_after({"retry-after": "Wed, 21 Oct 2015 07:28:30 GMT"}, 1445412480.0)
    30.0
    """
    value = headers.get("retry-after", "").strip()
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, OverflowError):
        return None
