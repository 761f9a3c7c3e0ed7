"""HTTP to one server: proxies, certificates, redirects, bodies of any size, and what a failed connection means."""

from __future__ import annotations

import gzip
import socket
import ssl
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from tagllm_cli.engines.base import ask_all
from tagllm_cli.engines.http import client as client_module
from tagllm_cli.engines.http.proxies import find_proxy
from tagllm_cli.errors import EndpointError
from tagllm_cli.records import Response
from tests.support.asking import CAT, LIST, ask, echo, picture, run, settings
from tests.support.faulty_proxy import Fault, FaultyProxy, complete, redirect

KEY = "sk-very-secret"
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy and no certificates in the environment."""
    for name in (*PROXIES, *map(str.upper, PROXIES), "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


def only(fault: Fault) -> Any:
    return lambda number, path: fault if number else None


@pytest.mark.parametrize(
    ("environment", "url", "proxy"),
    [
        ({}, "http://host", None),
        ({"HTTP_PROXY": "http://p:1"}, "http://host", "http://p:1"),
        ({"HTTP_PROXY": "p:1"}, "http://host", "http://p:1"),
        ({"HTTP_PROXY": "http://p:1"}, "https://host", None),
        ({"https_proxy": "http://p:1"}, "https://host", "http://p:1"),
        ({"ALL_PROXY": "http://p:1"}, "https://host", "http://p:1"),
        ({"ALL_PROXY": "socks5://p:1", "HTTP_PROXY": "http://q:2"}, "http://host", "http://q:2"),
        ({"HTTP_PROXY": "http://p:1", "http_proxy": ""}, "http://host", None),
        ({"HTTP_PROXY": "http://p:1", "NO_PROXY": "*"}, "http://host", None),
        ({"HTTP_PROXY": "http://p:1", "NO_PROXY": "a, host"}, "http://host:8000", None),
        ({"HTTP_PROXY": "http://p:1", "NO_PROXY": ".lab"}, "http://gpu.lab", None),
        ({"HTTP_PROXY": "http://p:1", "NO_PROXY": "lab"}, "http://gpulab", "http://p:1"),
        ({"HTTP_PROXY": "http://p:1", "NO_PROXY": "host:80"}, "http://host:8000", "http://p:1"),
        ({"HTTP_PROXY": "http://p:1", "NO_PROXY": "host:8000"}, "http://host:8000", None),
        ({"HTTP_PROXY": "http://p:1", "NO_PROXY": "10.0.0.0/8"}, "http://10.1.2.3:8000", None),
        ({"HTTP_PROXY": "http://p:1", "NO_PROXY": "::1"}, "http://[::1]:8000", None),
    ],
)
def test_the_proxy_is_the_environments(
    environment: dict[str, str], url: str, proxy: str | None, monkeypatch: pytest.MonkeyPatch
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found = find_proxy(url)
    assert (found and found.url) == proxy


@pytest.mark.parametrize(
    "value", ["socks5://me:s3cret@127.0.0.1:1080", "socks://127.0.0.1:1080", "http://[", "ftp://p"]
)
def test_a_proxy_that_cannot_be_used_is_named_with_its_variable(value: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ALL_PROXY", value)
    with pytest.raises(EndpointError, match=r"^ALL_PROXY ") as caught:
        ask(settings("http://127.0.0.1:9"))
    assert caught.value.hint
    assert "s3cret" not in caught.value.message + caught.value.hint


def test_a_proxy_is_asked_for_everything_with_its_password(monkeypatch: pytest.MonkeyPatch):
    def answer(number: int, path: str) -> Fault | None:
        return None if number else Fault(200, (), b'{"data": [{"id": "demo"}]}')

    with FaultyProxy(answer) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url.replace("http://", "http://me:s3cret@"))
        # Its made-up server knows only paths: an absolute address is a question that it refuses.
        [response] = ask(settings("http://gpu-box.invalid:8000", model="demo"))
    assert response.failure is not None
    assert {each.path for each in proxy.received} >= {"http://gpu-box.invalid:8000/v1/models"}
    assert all(each.headers["proxy-authorization"].startswith("Basic ") for each in proxy.received)


def refuse_one(listening: socket.socket) -> None:
    """Answer one connection as a server does that speaks http only."""
    connection, _ = listening.accept()
    with connection:
        connection.recv(100)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")


def start_fails(url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr("tagllm_cli.engines.http.search.START_TRIES", 1)
    with pytest.raises(EndpointError, match="no endpoint answers") as caught:
        ask(settings(url))
    return caught.value.message


def test_a_name_that_is_not_known_a_dead_proxy_and_a_wrong_scheme_are_told_apart(monkeypatch: pytest.MonkeyPatch):
    assert "the name gpu-box.invalid cannot be resolved" in start_fails("http://gpu-box.invalid:1", monkeypatch)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=refuse_one, args=(listening,))
        thread.start()
        says = start_fails(f"https://127.0.0.1:{listening.getsockname()[1]}", monkeypatch)
        thread.join()
    assert "it does not speak https" in says
    with FaultyProxy() as server:
        dead = server.url
    assert "no connection: connection refused" in start_fails(dead, monkeypatch)
    monkeypatch.setenv("HTTP_PROXY", dead.replace("http://", "http://me:s3cret@"))
    says = start_fails("http://gpu-box.invalid:1", monkeypatch)
    assert f"the proxy {dead} (from HTTP_PROXY) cannot be reached: connection refused" in says


def test_https_needs_a_certificate_that_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    certificate, key = tmp_path / "ca.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with FaultyProxy(tls=context) as server:
        url = server.url.replace("http://127.0.0.1", "https://localhost")
        assert "certificate is not trusted (self-signed certificate)" in start_fails(url, monkeypatch)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        assert ask(settings(url))[0].text == "cat"
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
        with pytest.raises(EndpointError, match=r"^SSL_CERT_FILE names"):
            ask(settings(url))


@pytest.mark.parametrize("status", [307, 308])
def test_a_redirect_to_another_host_gets_no_credentials(status: int):
    with FaultyProxy() as target:
        elsewhere = target.url.replace("127.0.0.1", "localhost") + "/v1/chat/completions"
        with FaultyProxy(only(redirect(elsewhere, status))) as server:
            assert ask(settings(server, api_key=KEY))[0].text == "cat"
    assert [each.headers["authorization"] for each in server.questions] == [f"Bearer {KEY}"]
    assert [each.headers.get("authorization") for each in target.questions] == [None]


def test_a_redirect_in_a_circle_ends():
    with FaultyProxy(only(redirect("/v1/chat/completions", 307))) as server:
        [response] = ask(settings(server, retries=0))
    assert response.failure is not None
    assert "too many redirects" in response.failure.message


def compressed(data: bytes) -> Fault:
    return Fault(200, (("Content-Encoding", "gzip"),), data)


def test_a_compressed_answer_is_read_and_a_broken_one_asked_again():
    whole = gzip.compress(complete("dog").body)
    faults = {1: compressed(whole[: len(whole) // 2] + b"?" * 40), 2: compressed(whole)}
    with FaultyProxy(lambda number, path: faults.get(number)) as server:
        assert ask(settings(server))[0].text == "dog"
    assert len(server.questions) == 2


@pytest.mark.parametrize(
    "body",
    [b" " * 3000, gzip.compress(b" " * 3000, mtime=0)],
    ids=["plain", "compressed"],
)
def test_an_endless_answer_is_one_requests_failure(body: bytes, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(client_module, "MOST_BODY", 2000)
    encoding = (("Content-Encoding", "gzip"),) if len(body) < 2000 else ()
    with FaultyProxy(lambda number, path: Fault(200, encoding, body) if number == 1 else None, answer=echo) as server:
        responses: list[Response] = ask(settings(server, concurrency=1), [LIST, CAT])
    kinds = sorted(response.failure.kind if response.failure else "" for response in responses)
    assert kinds == ["", "too_long_answer"]


def test_a_large_body_is_sent_whole():
    with FaultyProxy() as server:
        image = picture(1, b"x" * (3 << 20))
        run(settings(server), lambda engine: ask_all(engine, image, [LIST]))
    assert len(server.questions[0].body) > 4 << 20
