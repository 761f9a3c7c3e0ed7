"""The OpenAI chat-completions protocol as text: requests out, replies in. No network here."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from tagllm_cli.engines.base import CHAT_TEMPLATE_KWARGS, merge_logprobs
from tagllm_cli.records import DecodedImage, Request, Response


class Models(NamedTuple):
    """The models of a server: their served names, and whether the server is vLLM."""

    names: frozenset[str]
    is_vllm: bool


class BadAnswerError(Exception):
    """A server's answer is not what the protocol promises (half a JSON, say); asking again may help."""


class NoLogprobsError(Exception):
    """A server answered without the log-probabilities that were asked for."""


def base_urls(url: str) -> tuple[str, ...]:
    """Return the API addresses that a user may have meant by `url`, best guess first, without a trailing slash.

    >>> base_urls("localhost:8000/")
    ('http://localhost:8000/v1', 'http://localhost:8000')
    >>> base_urls("https://host/v1/chat/completions")
    ('https://host/v1',)
    """
    if "://" not in url:
        url = f"http://{url}"
    url = url.split("?")[0].rstrip("/").removesuffix("/chat/completions").removesuffix("/models").rstrip("/")
    return (url,) if re.search(r"/v\d+\w*$", url) else (f"{url}/v1", url)


def without_secrets(url: str) -> str:
    """Return `url` without user name and password, for messages.

    >>> without_secrets("https://me:secret@host:8000/v1")
    'https://host:8000/v1'
    """
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def encode_image(decoded_image: DecodedImage) -> bytes:
    """Return the JSON of a picture's message part: the file's own bytes where they show these pixels, else a PNG."""
    data, mime = decoded_image.encoded, decoded_image.mime
    if data is None:
        buffer = io.BytesIO()
        decoded_image.pixels.save(buffer, "PNG", compress_level=1)
        data, mime = buffer.getvalue(), "image/png"
    return b'{"type":"image_url","image_url":{"url":"data:%s;base64,%s"}}' % (mime.encode(), base64.b64encode(data))


def request_body(model: str, request: Request, image: bytes | None, *, is_vllm: bool) -> bytes:
    """Return the JSON body of one question.

    Args:
        model: served name.
        request: what is asked.
        image: the part of `encode_image`, None for a question without one.
        is_vllm: add what only vLLM understands, so that the model's own defaults (a repetition penalty, say, which
            would count against the very names that a question lists) do not differ from in-process vLLM.
    """
    text = json.dumps({"type": "text", "text": request.text}).encode()
    content = json.dumps(request.text).encode() if image is None else b"[" + image + b"," + text + b"]"
    system = json.dumps({"role": "system", "content": request.system}).encode() + b"," if request.system else b""
    options: dict[str, Any] = {"max_tokens": request.max_tokens, "temperature": 0.0, "stream": False}
    if request.top_logprobs:
        options |= {"logprobs": True, "top_logprobs": request.top_logprobs}
    if is_vllm:
        options |= {"repetition_penalty": 1.0, "chat_template_kwargs": dict(CHAT_TEMPLATE_KWARGS)}
    head = json.dumps({"model": model, **options}).encode()[:-1]
    # Put together by hand: the image is megabytes of JSON already, and is the same in all of its requests.
    return head + b',"messages":[' + system + b'{"role":"user","content":' + content + b"}]}"


def read_response(body: bytes, *, wants_logprobs: bool) -> Response:
    """Return the reply in a server's answer.

    Raises:
        BadAnswerError: not a complete chat completion.
        NoLogprobsError: complete, and log-probabilities were wanted and are missing.
    """
    try:
        answer = json.loads(body)
        choice = answer["choices"][0]
        text, finish = choice["message"].get("content") or "", choice.get("finish_reason") or "stop"
        logprobs: dict[str, float] = {}
        if wants_logprobs:
            first = ((choice.get("logprobs") or {}).get("content") or [None])[0]
            if first is None:
                raise NoLogprobsError
            logprobs = merge_logprobs((entry["token"], float(entry["logprob"])) for entry in first["top_logprobs"])
        usage = answer.get("usage") or {}
        return Response(
            text=str(text),
            finish=str(finish),
            first_logprobs=logprobs,
            prompt_tokens=int(usage.get("prompt_tokens") or 0),
            cached_tokens=int((usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0),
            output_tokens=int(usage.get("completion_tokens") or 0),
        )
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise BadAnswerError(f"not a chat completion ({type(error).__name__})") from None


def read_models(body: bytes) -> Models | None:
    """Return what `GET /models` lists, None when this is something else; raises BadAnswerError for half a JSON."""
    try:
        content = json.loads(body)
    except ValueError:
        if body.startswith(b"{"):
            raise BadAnswerError("not a list of models") from None
        return None
    try:
        entries = content["data"]
        names = frozenset(str(entry["id"]) for entry in entries)
        return Models(names, any(entry.get("owned_by") == "vllm" for entry in entries))
    except (TypeError, KeyError, AttributeError):
        return None


def read_error(body: bytes) -> str:
    """Return a server's error message as one line of at most 300 characters, whatever its form."""
    text = body.decode("utf-8", "replace")
    try:
        content = json.loads(text)
        inner = content.get("error", content) if isinstance(content, dict) else content
        text = str(inner.get("message") or inner.get("detail") or inner) if isinstance(inner, dict) else str(inner)
    except ValueError:
        pass
    return " ".join(text.split())[:300]


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Return the seconds that a server asks to wait (Retry-After as seconds or as a date), None if it does not.

    Args:
        headers: of the answer, keys in lower case or case-insensitive.
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
    except ValueError:
        return None
