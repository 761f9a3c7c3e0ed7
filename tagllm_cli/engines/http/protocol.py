"""The OpenAI chat-completions protocol as bytes: request bodies out, responses in. No network here."""

from __future__ import annotations

import base64
import io
import json
import math
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from tagllm_cli.engines.base import CHAT_TEMPLATE_KWARGS, check_response, failure_kind, merge_logprobs
from tagllm_cli.errors import EndpointError
from tagllm_cli.records import DecodedImage, Failure, Request, Response
from tagllm_cli.text import one_line

_RETRYABLE = (408, 409, 425, 429)  # of the refusals (4xx), those about the moment and not about the request


class Models(NamedTuple):
    """The models of a server: their served names, and whether the server is vLLM."""

    names: frozenset[str]
    is_vllm: bool


class BadResponseError(Exception):
    """A body that is not what the protocol promises (truncated JSON, say); retryable."""


def base_urls(url: str) -> tuple[str, ...]:
    """Return the API addresses that `url` may mean, likeliest first, without a trailing slash.

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
    """Return `url` without user name, password and query, for messages.

    >>> without_secrets("https://me:secret@host:8000/v1?key=secret")
    'https://host:8000/v1'
    """
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=""))


def redirected_base(base: str, final: str) -> str | None:
    """Return the API address after `base`/models was redirected to `final`.

    None: another host or a fall back to http, where credentials must not go, or an address that is no list of models.

    >>> redirected_base("http://me:secret@host/v1", "https://host/api/v1/models")
    'https://me:secret@host/api/v1'
    """
    asked, found = urlsplit(base), urlsplit(final)
    is_safe = found.hostname == asked.hostname and found.scheme in (asked.scheme, "https")
    if not is_safe or not found.path.endswith("/models"):
        return None
    user, at, _ = asked.netloc.rpartition("@")
    netloc = user + at + found.netloc.rpartition("@")[2]
    return urlunsplit((found.scheme, netloc, found.path.removesuffix("/models"), "", ""))


def clean_api_key(key: str | None) -> str | None:
    """Return an API key without white space around it, None for an empty one.

    Raises:
        EndpointError: it cannot be sent in a header: control or non-ASCII characters, such as curly quotes.

    >>> clean_api_key("sk-example\\r\\n")
    'sk-example'
    """
    key = (key or "").strip()
    if not (key.isascii() and key.isprintable()):
        raise EndpointError(
            "the API key holds characters that cannot be sent, such as curly quotes or a line break",
            "Set TAGLLM_API_KEY (of an LLM's own server: TAGLLM_LLM_API_KEY) again, typed instead of pasted.",
        )
    return key or None


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


def request_body(model: str, request: Request, image: bytes | None, *, is_vllm: bool) -> bytes:
    """Return the JSON body of one request.

    Args:
        model: served name.
        request: what is asked.
        image: the part of `encode_image`, None for a request without one.
        is_vllm: add parameters that only vLLM knows, so that responses equal those of in-process vLLM: a model's
            default repetition penalty, say, would count against the names that a request lists.
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
    # Concatenated: the image is megabytes of JSON already, the same in all of its requests.
    return head + b',"messages":[' + system + b'{"role":"user","content":' + content + b"}]}"


def read_response(body: bytes, request: Request) -> Response:
    """Return the response in the body of a status 200; a failed one where it holds no answer (`check_response`).

    Raises:
        BadResponseError: not a complete chat completion, or a server's error for the moment.
    """
    try:
        content = json.loads(body)
        error = content.get("error") or (content.get("choices") or [{}])[0].get("error")
        if error:
            return _error_response(error)
        choice = content["choices"][0]
        message, usage = choice["message"], content.get("usage") or {}
        response = Response(
            text=_text(message.get("content")),
            finish=str(choice.get("finish_reason") or "stop"),
            first_logprobs=_first_logprobs(choice) if request.top_logprobs else {},
            prompt_tokens=int(usage.get("prompt_tokens") or 0),
            cached_tokens=int((usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0),
            output_tokens=int(usage.get("completion_tokens") or 0),
        )
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise BadResponseError(f"not a chat completion ({type(error).__name__})") from None
    response = check_response(request, response)
    if response.failure is not None and response.failure.kind == "empty_answer":
        return Response(failure=_why_empty(message) or response.failure)
    return response


def _error_response(error: Any) -> Response:
    """Return the failure for an error in the body of a status 200; its code, where there is one, is an HTTP status."""
    message, code = _error_message(error), str(error.get("code") if isinstance(error, dict) else "")
    if not code.isdigit() or is_retryable(int(code)):
        raise BadResponseError(message)
    return Response(failure=Failure(failure_kind(message), f"error {code}: {message}"))


def _text(content: Any) -> str:
    """Return a message's content, a string or a list of parts, as one text."""
    if isinstance(content, list):
        return "".join(part["text"] for part in content if part["type"] in ("text", "output_text"))
    if content is not None and not isinstance(content, str):
        raise TypeError
    return content or ""


def _first_logprobs(choice: Any) -> dict[str, float]:
    """Return the log-probabilities of the first token, NaN for null; empty where there are none."""
    tokens = (choice.get("logprobs") or {}).get("content") or [None]
    entries = (tokens[0] or {}).get("top_logprobs") or ()
    values = (math.nan if entry["logprob"] is None else float(entry["logprob"]) for entry in entries)
    return merge_logprobs(zip((str(entry["token"]) for entry in entries), values, strict=True))


def _why_empty(message: Any) -> Failure | None:
    """Return why a message has no content, where other fields of it tell."""
    if message.get("refusal"):
        return Failure("refused", one_line(message["refusal"]))
    if message.get("reasoning") or message.get("reasoning_content"):
        return Failure(
            "reasoning_only", "the answer is reasoning only; switch thinking off, or use an instruction-tuned model"
        )
    return None


def read_models(body: bytes) -> Models | None:
    """Return what `GET /models` lists, None where the body is something else; raises BadResponseError if truncated."""
    try:
        content = json.loads(body)
    except ValueError:
        if body.startswith(b"{"):
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
        version = json.loads(body)["version"]
    except (ValueError, TypeError, KeyError):
        return None
    return version if isinstance(version, str) else None


def read_error(body: bytes) -> str:
    """Return the error message in a server's body of any form as one line of at most 300 characters."""
    text = body.decode("utf-8", "replace")
    try:
        content = json.loads(text)
    except ValueError:
        return one_line(text)
    return _error_message(content.get("error", content) if isinstance(content, dict) else content)


def _error_message(error: Any) -> str:
    return one_line((error.get("message") or error.get("detail") or error) if isinstance(error, dict) else error)


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
    except ValueError:
        return None
