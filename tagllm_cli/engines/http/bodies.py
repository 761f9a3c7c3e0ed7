"""Bodies of responses: JSON of any encoding, and the error message in a body of any form."""

from __future__ import annotations

import json
import zlib
from typing import Any

from tagllm_cli.text import one_line

# Of an answer. A thousand tokens take a few kilobytes; this much is read in about 20 ms.
MOST_BYTES = 1 << 20
_MOST_ERROR_BYTES = 1 << 16
_GZIP = b"\x1f\x8b"


class BadResponseError(Exception):
    """A body that is not what the protocol promises (truncated JSON, say); retryable."""


def parse_json(body: bytes) -> Any:
    """Return the JSON in a body: UTF-8, 16 or 32, with a mark or without, compressed or not. Raises ValueError."""
    try:
        if body.startswith(_GZIP):  # the Content-Encoding header is missing
            body = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS).decompress(body, MOST_BYTES)
        return json.loads(body)
    except (zlib.error, RecursionError) as error:
        raise ValueError(str(error)) from None


def storable(text: str) -> str:
    """Return a text that can be stored as UTF-8: halves of surrogate pairs, which JSON can hold, become `?`."""
    return text.encode("utf-8", "replace").decode("utf-8")


def read_error(body: bytes) -> str:
    """Return the error message in a server's body of any form as one line of at most 300 characters."""
    if len(body) <= _MOST_ERROR_BYTES:
        try:
            return error_message(error_of(parse_json(body)))
        except ValueError:
            pass
    return one_line(body[:_MOST_ERROR_BYTES].decode("utf-8", "replace"))


def error_of(content: Any) -> Any:
    """Return the part of a body's JSON that tells the error: the whole where no part does."""
    return (content.get("error") or content) if isinstance(content, dict) else content


def error_message(error: Any, limit: int = 300) -> str:
    """Return an error as one line of at most `limit` characters: its message, and what a gateway's provider said.

    >>> error_message({"message": "Provider returned error", "code": 400, "metadata": {"raw": "no images"}})
    'Provider returned error: no images'
    """
    if isinstance(error, dict):
        told = next((error[name] for name in ("message", "detail", "msg", "title") if error.get(name)), error)
        metadata = error.get("metadata")
        raw = metadata.get("raw") if isinstance(metadata, dict) else None
        if raw:
            return one_line(storable(f"{error_message(told, limit)}: {error_message(_nested(raw), limit)}"), limit)
        return error_message(told, limit) if told is not error else one_line(storable(str(error)), limit)
    if isinstance(error, list) and error and all(isinstance(each, dict) and "msg" in each for each in error):
        # A list of what does not fit, as FastAPI writes it: the place, and the problem.
        fields = (f"{'.'.join(map(str, each.get('loc') or ()))}: {each['msg']}" for each in error)
        return one_line(storable("; ".join(fields)), limit)
    return one_line(storable(str(error)), limit)


def _nested(raw: Any) -> Any:
    """Return the error within a text that may be JSON itself."""
    try:
        return error_of(json.loads(raw)) if isinstance(raw, str) else error_of(raw)
    except (ValueError, RecursionError):
        return raw
