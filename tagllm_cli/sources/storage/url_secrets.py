"""What a URL holds that only this process may know: a user's password, a signature, a token.

Sources, tables and messages have URLs without them; what opens a URL puts back what the user gave.
"""

from __future__ import annotations

import threading
from urllib.parse import urlsplit, urlunsplit

from tagllm_cli.text import public_url

_lock = threading.Lock()
_users: dict[str, str] = {}  # "scheme://host" -> "user:password"
_queries: dict[str, str] = {}  # URL without secrets -> the whole query


def hide(url: str) -> str:
    """Return a URL without secrets, which `reveal` puts back."""
    public = public_url(url)
    if public == url:
        return url
    try:
        parts = urlsplit(url)
    except ValueError:  # a host in brackets that is no address
        return public
    user, _, host = parts.netloc.rpartition("@")
    with _lock:
        if user:
            _users[f"{parts.scheme}://{host}"] = user
        if parts.query:
            _queries[public] = parts.query
    return public


def reveal(url: str) -> str:
    """Return the URL that `hide` was given; below a host whose password is known, with that."""
    if "://" not in url:
        return url
    try:
        parts = urlsplit(url)
    except ValueError:  # a host in brackets that is no address
        return url
    with _lock:
        user = _users.get(f"{parts.scheme}://{parts.netloc}")
        query = _queries.get(url)
    if user is None and query is None:
        return url
    netloc = parts.netloc if user is None else f"{user}@{parts.netloc}"
    return urlunsplit(parts._replace(netloc=netloc, query=parts.query if query is None else query))


def secret_query(url: str) -> str:
    """Return the whole query that `hide` took secrets out of, "" where there was none."""
    with _lock:
        return _queries.get(url, "")
