"""What a failed connection means, in words: which of name, connection, TLS, proxy and answer it was."""

from __future__ import annotations

import asyncio
import os
import ssl

import aiohttp

from tagllm_cli.engines.http.proxies import Proxy


def explain(error: BaseException, host: str, proxy: Proxy | None, timeout_s: float) -> str:
    """Return why a request got no answer.

    Args:
        error: what the HTTP client raised.
        host: the server's.
        proxy: through which it was asked.
        timeout_s: how long an answer may take, in seconds.
    """
    through = f"the proxy {proxy.shown} (from {proxy.variable})" if proxy else ""
    match error:
        case aiohttp.ClientProxyConnectionError():
            return f"{through} cannot be reached: {_reason(error.os_error)}"
        case aiohttp.ClientHttpProxyError():
            return f"{through} refuses the connection: HTTP {error.status}"
        case aiohttp.ClientConnectorDNSError():
            unknown = proxy.shown if proxy else host
            return f"the name {unknown} cannot be resolved: {_reason(error.os_error)}"
        case aiohttp.ClientConnectorCertificateError():
            why = getattr(error.certificate_error, "verify_message", "") or type(error.certificate_error).__name__
            return f"its certificate is not trusted ({why}); name its CA's file in SSL_CERT_FILE"
        case aiohttp.ClientConnectorSSLError():
            return f"it does not speak https ({_reason(error.os_error)}); is http:// meant?"
        case aiohttp.ConnectionTimeoutError():
            return "no connection within 10 s"
        case asyncio.TimeoutError():
            return f"no answer within {timeout_s:g} s"
        case aiohttp.ClientConnectorError():
            return f"no connection: {_reason(error.os_error)}"
        case aiohttp.ServerDisconnectedError():
            return "the connection was closed without an answer"
        case aiohttp.ClientPayloadError():
            return "the answer broke off or cannot be decompressed"
        case aiohttp.ClientResponseError():
            return "its answer is not HTTP; is https:// meant?"
        case ConnectionResetError():
            return "the connection was reset"
        case OSError():
            return f"the connection failed: {_reason(error)}"
    return f"the connection failed ({type(error).__name__})"


def _reason(error: OSError) -> str:
    """Return the system's words for an error, without addresses and codes."""
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.lower().replace("_", " ")
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno).lower()
    return (error.strerror or type(error).__name__).lower()
