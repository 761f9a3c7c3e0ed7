"""Where the API of an address is, and how a key is sent there."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, urlsplit, urlunsplit

from tagllm_cli.errors import EndpointError

_REQUEST = re.compile(r"/(?:chat/completions|completions|responses|models)$")
_OLLAMA = re.compile(r"/api/(?:chat|generate|tags)$")  # its own protocol; the one spoken here is beside it, under /v1
_VERSION = re.compile(r"/v\d+\w*$")
_DEPLOYMENT = re.compile(r"/openai/deployments/([^/]+)$")
_AZURE_HOST = re.compile(r"\.(?:openai|cognitiveservices|services\.ai)\.azure\.(?:com|us|cn)$")
_TOKEN = "eyJ"  # begins a JSON Web Token, `{"` in base64


def base_urls(url: str) -> tuple[str, ...]:
    """Return where the API of an address (`Address.url`) may be, likeliest first, without a trailing slash.

    The address of a request (`/chat/completions`, `/models`) and of an Azure deployment tell it exactly.

    >>> base_urls("http://localhost:8000")
    ('http://localhost:8000/v1', 'http://localhost:8000')
    >>> base_urls("https://host/v1/chat/completions")
    ('https://host/v1',)
    """
    parts = urlsplit(url)
    path = _OLLAMA.sub("", parts.path.rstrip("/"))
    base = _REQUEST.sub("", path)
    paths: tuple[str, ...] = (f"{base}/v1", base)
    if _is_azure(parts) and path in ("", "/openai"):
        paths = ("/openai/v1",)
    elif _is_azure(parts) and path.startswith("/models"):
        paths = ("/models",)
    elif _VERSION.search(base) or _DEPLOYMENT.search(base):
        paths = (base,)
    elif base != path:
        paths = (base, f"{base}/v1")
    return tuple(urlunsplit(parts._replace(path=path)) for path in paths)


def deployed_model(base: str) -> str | None:
    """Return the model that an API address names: Azure's deployments have one each, and list none."""
    found = _DEPLOYMENT.search(urlsplit(base).path)
    return found[1] if found else None


def key_headers(base: str, key: str | None) -> dict[str, str]:
    """Return the headers that carry an API key to an address; none without a key.

    Azure OpenAI takes a key in a header of its own, and as a bearer token only what its identity service issues.
    Gateways in front of it take either.

    >>> key_headers("https://mine.openai.azure.com/openai/v1", "0123")
    {'api-key': '0123'}
    """
    if key is None:
        return {}
    bearer, own = {"Authorization": f"Bearer {key}"}, {"api-key": key}
    if key.startswith(_TOKEN):
        return bearer
    parts = urlsplit(base)
    if _is_azure(parts):
        return own
    return bearer | own if _DEPLOYMENT.search(parts.path) else bearer


def _is_azure(parts: SplitResult) -> bool:
    return _AZURE_HOST.search(parts.hostname or "") is not None


def without_secrets(url: str) -> str:
    """Return `url` without user name, password and query, for messages.

    >>> without_secrets("https://me:secret@host:8000/v1?key=secret")
    'https://host:8000/v1'
    """
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=""))


def redirected_base(base: str, final: str) -> str | None:
    """Return the API address after the list of models below `base` was redirected to `final`.

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
