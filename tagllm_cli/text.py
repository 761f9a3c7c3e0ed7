"""Text formatting for messages."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import urlsplit, urlunsplit

_FORMULA = re.compile(r"'*[=+\-@\t\r]")

_URL = re.compile(r"\b[a-zA-Z][a-zA-Z0-9+.-]*://[^\s\"'<>]+")
_SECRET = re.compile(r"(?i)key|token|secret|passw|signature|^sig$|credential|^auth")
# Of a presigned URL the rest differs each time that it is signed: S3, Google, CloudFront, Azure.
_SIGNING = re.compile(r"(?i)x-(amz|goog)-.+|expires|policy|s[vertpis]|spr|srt|sk(oid|tid|t|e|s|v)|(ses|sdd|saoid)")


def shortened(names: Sequence[str], limit: int = 5) -> str:
    """Return the first `limit` names in one line, and how many more there are.

    >>> shortened(["cat", "dog", "cow"], 2)
    'cat, dog and 1 more'
    """
    more = f" and {len(names) - limit:,} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def one_line(text: object, limit: int = 300) -> str:
    """Return the text with every run of white space as one space, cut to `limit` characters.

    >>> one_line("two\\n  lines", 8)
    'two l...'
    """
    line = " ".join(str(text).split())
    return line if len(line) <= limit else f"{line[: limit - 3]}..."


def defused(cell: str) -> str:
    """Return a cell of CSV that no spreadsheet takes for a formula: with an apostrophe before it where one would.

    >>> defused("=1+1.jpg"), defused("a=b"), defused("'tis"), defused("'=1")
    ("'=1+1.jpg", 'a=b', "'tis", "''=1")
    """
    return f"'{cell}" if _FORMULA.match(cell) else cell


def undefused(cell: str) -> str:
    """Return the text that `defused` was given."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def public_url(url: str) -> str:
    """Return a URL without user name, password, keys and signatures; presigned again, it is the same.

    >>> public_url("https://me:pw@host/a%20b.tar?part=2&X-Amz-Date=2026&X-Amz-Signature=abc")
    'https://host/a%20b.tar?part=2'
    >>> public_url("abfs://container@account/a.tar"), public_url("s3://bucket/what?.jpg")
    ('abfs://container@account/a.tar', 's3://bucket/what?.jpg')
    """
    if "@" not in url and "?" not in url:
        return url
    try:
        parts = urlsplit(url)
    except ValueError:  # a host in brackets that is no address
        return url.partition("?")[0].rpartition("@")[2]
    user, _, host = parts.netloc.rpartition("@")
    is_web = parts.scheme in ("http", "https")
    netloc = host if is_web or ":" in user else parts.netloc
    query = _public_query(parts.query) if is_web else parts.query
    if (netloc, query) == (parts.netloc, parts.query):
        return url
    return urlunsplit(parts._replace(netloc=netloc, query=query))


def public_text(text: object) -> str:
    """Return a text in one line, its URLs without secrets."""
    return _URL.sub(lambda found: public_url(found[0]), one_line(text))


def _public_query(query: str) -> str:
    pairs = [(pair.partition("=")[0], pair) for pair in query.split("&")]
    if not any(_SECRET.search(name) for name, _ in pairs):
        return query
    is_signed = any(re.search("(?i)sig", name) for name, _ in pairs)
    return "&".join(
        pair for name, pair in pairs if not (_SECRET.search(name) or (is_signed and _SIGNING.fullmatch(name)))
    )
