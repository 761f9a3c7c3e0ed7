"""The proxy of a server by the environment: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY, in either case."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import urlsplit

from tagllm_cli.errors import EndpointError


class Proxy(NamedTuple):
    """A proxy: its URL, which may hold a password; the same for messages; the variable that names it."""

    url: str
    shown: str
    variable: str


def find_proxy(url: str) -> Proxy | None:
    """Return the proxy through which `url` is asked; None: none.

    Raises:
        EndpointError: the environment names one that cannot be used, such as a SOCKS proxy.
    """
    target = urlsplit(url)
    host = target.hostname or ""
    port = target.port or (443 if target.scheme == "https" else 80)
    if any(_is_excepted(host, port, entry) for entry in _value("no_proxy")[1].split(",")):
        return None
    variable, value = next(_named(target.scheme), ("", ""))
    if not value:
        return None
    proxy_url = value if "://" in value else f"http://{value}"
    try:
        parts = urlsplit(proxy_url)
        shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        is_address = bool(parts.hostname) and (parts.port or 0) >= 0
    except ValueError:
        is_address = False
    if not is_address:
        raise EndpointError(f"{variable} is not the address of a proxy", "Give it as http://HOST:PORT, or unset it.")
    if parts.scheme not in ("http", "https"):
        raise EndpointError(
            f"{variable} names the proxy {shown}, and only HTTP proxies can be used",
            f"Name an HTTP proxy in {target.scheme.upper()}_PROXY, unset {variable}, or set NO_PROXY={host}.",
        )
    return Proxy(proxy_url, shown, variable)


def _named(scheme: str) -> Iterator[tuple[str, str]]:
    """Yield the variables that name a proxy for a scheme, with their values, the strongest first."""
    for name in (f"{scheme}_proxy", "all_proxy"):
        variable, value = _value(name)
        if value:
            yield variable, value


def _value(name: str) -> tuple[str, str]:
    """Return the variable that holds, and its value: the one in lower case, though it be empty, else the other."""
    variable = name if name in os.environ else name.upper()
    return variable, os.environ.get(variable, "").strip()


def _is_excepted(host: str, port: int, entry: str) -> bool:
    """Return whether an entry of NO_PROXY covers a server: a name with all below it, an address, a network, or `*`."""
    entry = entry.strip().lower().rpartition("://")[2]
    if not entry or entry == "*":
        return entry == "*"
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        pass
    name, colon, of_port = entry.rpartition(":")
    if colon and of_port.isdigit():
        if int(of_port) != port:
            return False
        entry = name
    entry = entry.strip("[]").removeprefix("*").removeprefix(".")
    return host == entry or host.endswith(f".{entry}")
