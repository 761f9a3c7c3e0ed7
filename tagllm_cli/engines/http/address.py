"""The address of a server as a user gives it: where to ask, what goes along, and what of it may be shown."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from tagllm_cli.errors import EndpointError

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_NO_HOST = re.compile(r"[\s/\\<>\"^`{|}%]")
_SECRET_PARAMETER = re.compile(r"key|token|secret|sig|pass|auth|code|cred", re.IGNORECASE)
_SHOWN_PARAMETERS = frozenset({"api-version"})  # a command that goes on needs them, and they are no secret
_LEAST_SECRET = 4  # shorter ones would be cut out of ordinary words


@dataclass(frozen=True, slots=True)
class Address:
    """The parts of an address.

    Args:
        url: scheme, host, port and path, without a trailing slash: what messages show.
        query: sent with every request, without its question mark; may hold a key.
        authorization: value of the Authorization header for a user name and password; None: there are none.
        secrets: texts of the address that no message may show.
    """

    url: str
    query: str = ""
    authorization: str | None = None
    secrets: tuple[str, ...] = ()

    @property
    def host(self) -> str:
        """Host name or IP address, without brackets."""
        return urlsplit(self.url).hostname or ""

    @property
    def shown(self) -> str:
        """The address for a command that the user may run next: without user name, password and key."""
        kept = [pair for pair in self.query.split("&") if pair.partition("=")[0] in _SHOWN_PARAMETERS]
        return f"{self.url}?{'&'.join(kept)}" if kept else self.url

    def with_query(self, url: str) -> str:
        """Return `url`, an address below this one, with this one's query."""
        return f"{url}?{self.query}" if self.query else url


def parse_address(text: str) -> Address:
    """Return the parts of an address; without a scheme it is http.

    Raises:
        EndpointError: it is no address of a server. What may be a password is not in the message.

    >>> parse_address("me:pa55word@localhost:8000/v1/?api-version=1&key=topsecret").shown
    'http://localhost:8000/v1?api-version=1'
    """
    url = text.strip() if _SCHEME.match(text.strip()) else f"http://{text.strip()}"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        host.encode("idna")  # a label that is empty or too long
    except (ValueError, UnicodeError):
        host, port, parts = "", None, None
    if parts is None or parts.scheme not in ("http", "https") or not host or _NO_HOST.search(host):
        shown = re.split(r"[?#]", text.rpartition("@")[2])[0]
        encode = " A password's own / ? # @ are written %2F %3F %23 %40." if "@" in text else ""
        raise EndpointError(f"{shown or 'an empty text'} is not an address", f"Give it as http://HOST:PORT/v1.{encode}")
    netloc = f"[{host}]" if ":" in host else host
    netloc += f":{port}" if port is not None else ""
    secrets: list[str] = []
    authorization = None
    if "@" in parts.netloc:
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
        encoded = base64.b64encode(f"{user}:{password}".encode()).decode()
        authorization = f"Basic {encoded}"
        # Without a password the user name is often the key.
        secrets += [parts.netloc.rpartition("@")[0], encoded, password or user]
    for name, value in parse_qsl(parts.query):
        if _SECRET_PARAMETER.search(name):
            secrets.append(value)
    forms = {form for secret in secrets for form in (secret, quote(secret, safe="")) if len(form) >= _LEAST_SECRET}
    return Address(
        f"{parts.scheme}://{netloc}{parts.path.rstrip('/')}",
        parts.query,
        authorization,
        tuple(sorted(forms, key=len, reverse=True)),
    )


def scrub(message: str, secrets: tuple[str, ...]) -> str:
    """Return a message without the secrets: some servers repeat them.

    >>> scrub("the key topsecret is wrong", ("topsecret",))
    'the key … is wrong'
    """
    for secret in secrets:
        message = message.replace(secret, "…")
    return message
