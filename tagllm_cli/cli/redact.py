"""Secrets are taken out of everything that is shown or logged."""

from __future__ import annotations

import os
import re

_KEYS = ("TAGLLM_API_KEY", "TAGLLM_LLM_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
_SHORTEST = 8  # a shorter value is a placeholder such as EMPTY, and may be an ordinary word
_USER = re.compile(r"(?<=://)[^/\s\"']+(?=@)")  # up to the last @: a password may hold one
_WITH_PASSWORD = re.compile(r"(?<![\w/@.:-])[^\s/@:=\"']+:[^\s/\"']+(?=@[\w\[])")  # of an address without http://
_QUERY = re.compile(r"(?i)([?&][\w.-]*(?:key|token|secret|password|signature|sig|credential)[\w.-]*=)[^&#\s\"']+")


def redact(text: str) -> str:
    """Return `text` without API keys of the environment, and without user names and keys in URLs.

    >>> redact("http://me:s3cret@host/v1?api_key=s3cret&api-version=2")
    'http://…@host/v1?api_key=…&api-version=2'
    >>> redact("--endpoint me:s3cret@host:8000 --out a.parquet")
    '--endpoint …@host:8000 --out a.parquet'
    """
    for name in _KEYS:
        key = os.environ.get(name, "").strip()
        if len(key) >= _SHORTEST:
            text = text.replace(key, "…")
    if "@" in text:
        text = _WITH_PASSWORD.sub("…", _USER.sub("…", text))
    return _QUERY.sub(r"\1…", text) if "=" in text else text
