"""One image from a web server that is slow, broken, endless, or sends a page instead."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate

import pytest

from tagllm_cli.sources import read
from tagllm_cli.sources.base import ReadFailure
from tagllm_cli.sources.storage import web
from tagllm_cli.sources.storage.url_secrets import hide
from tagllm_cli.sources.storage.web import fetch
from tests.support.image_files import encode, photo
from tests.support.web_server import Reply, WebServer, cut_file, redirect

IMAGE = encode(photo(200, 200), "PNG")
PAGE = Reply(200, {"Content-Type": "text/html; charset=utf-8"}, b"<!DOCTYPE html><html>Not here any more</html>")


@pytest.fixture
def server() -> Iterator[WebServer]:
    with WebServer({"/a.png": IMAGE, "/with space \u732b.png": IMAGE}) as server:
        yield server


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "_WAITS_S", (0.01, 0.02))


def failure(url: str) -> ReadFailure:
    with pytest.raises(ReadFailure) as caught:
        fetch(url)
    assert "\n" not in caught.value.message
    return caught.value


def test_an_image_is_fetched(server: WebServer) -> None:
    assert fetch(f"{server.url}/a.png") == IMAGE
    assert fetch(f"{server.url}/a.png?size=full#top") == IMAGE
    assert fetch(f"{server.url}/with space \u732b.png") == fetch(f"{server.url}/with%20space%20%E7%8C%AB.png") == IMAGE
    server.on("/moved.png", redirect("/a.png"))
    assert fetch(f"{server.url}/moved.png") == IMAGE


def test_a_host_that_answers_nothing_is_asked_once_per_image_until_it_answers(server: WebServer) -> None:
    for number in range(5):
        server.on(f"/{number}.png", Reply(503))
        assert failure(f"{server.url}/{number}.png").kind == "unreachable"
    assert [server.count(f"/{number}.png") for number in range(5)] == [3, 3, 3, 1, 1]
    assert fetch(f"{server.url}/a.png") == IMAGE
    server.on("/5.png", Reply(503))
    assert failure(f"{server.url}/5.png").kind == "unreachable"
    assert server.count("/5.png") == 3


def test_a_host_that_no_resolver_knows_is_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def unknown(host: str, *args: object, **options: object) -> None:
        asked.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    found = failure("http://dead.example.org/a.png")
    assert (found.kind, found.message) == (
        "unreachable",
        "Name or service not known: http://dead.example.org/a.png",
    )
    assert asked == ["dead.example.org"]


PASSING = {
    "500": Reply(500),
    "503": Reply(503, {"Retry-After": "0"}),
    "408": Reply(408),
    "429 with a date": Reply(429, {"Retry-After": formatdate(usegmt=True)}),
    "429 with garbage": Reply(429, {"Retry-After": "soon"}),
    "cut in the body": cut_file(1000),
    "cut before the body": cut_file(0),
}


@pytest.mark.parametrize("reply", PASSING.values(), ids=PASSING.keys())
def test_what_is_transient_is_tried_again(server: WebServer, reply: Reply) -> None:
    server.on("/a.png", reply, reply, None)
    assert fetch(f"{server.url}/a.png") == IMAGE
    assert server.count("/a.png") == 3


def test_a_server_says_when_to_ask_again(server: WebServer) -> None:
    server.on("/a.png", Reply(429, {"Retry-After": "1"}), None)
    assert fetch(f"{server.url}/a.png") == IMAGE
    first, second = (request.time for request in server.requests)
    assert second - first >= 1.0


def test_a_server_that_asks_to_come_back_tomorrow(server: WebServer) -> None:
    server.on("/a.png", Reply(429, {"Retry-After": "86400"}))
    assert failure(f"{server.url}/a.png").kind == "unreachable"
    assert server.count("/a.png") == 1


PERMANENT = {
    "404": (Reply(404), "vanished", "HTTP 404", 1),
    "410": (Reply(410), "vanished", "HTTP 410", 1),
    "401": (Reply(401), "forbidden", "HTTP 401", 1),
    "403": (Reply(403), "forbidden", "HTTP 403", 1),
    "451": (Reply(451), "unreadable", "HTTP 451", 1),
    "503": (Reply(503), "unreachable", "HTTP 503", 3),
    "always cut": (cut_file(1000), "unreachable", "", 3),
    "redirect loop": (redirect("/a.png"), "unreadable", "redirected without end", 10),
    "redirect to a file": (redirect("file:///etc/passwd"), "unreadable", "no address", 1),
    "redirect to nonsense": (redirect("http://[::1"), "unreadable", "no address", 1),
    "web page": (PAGE, "not_an_image", "a web page instead of an image (HTTP 200)", 1),
    "JSON": (
        Reply(200, {"Content-Type": "application/json"}, b'{"error": "gone"}'),
        "not_an_image",
        "JSON instead of an image",
        1,
    ),
    "endless page": (Reply(200, {"Content-Type": "text/html"}, b"<html>" * 1000, endless=True), "not_an_image", "", 1),
}


@pytest.mark.parametrize(("reply", "kind", "message", "requests"), PERMANENT.values(), ids=PERMANENT.keys())
def test_what_is_permanent_is_a_read_failure(
    server: WebServer, reply: Reply, kind: str, message: str, requests: int
) -> None:
    server.on("/a.png", reply)
    found = failure(f"{server.url}/a.png?token=s3cret")
    assert found.kind == kind
    assert message in found.message
    assert f"{server.url}/a.png" in found.message
    assert "s3cret" not in found.message
    assert server.count("/a.png") == requests


def test_an_image_that_is_called_a_page_is_an_image(server: WebServer) -> None:
    server.on("/a.png", Reply(200, {"Content-Type": "text/html"}, IMAGE))
    assert fetch(f"{server.url}/a.png") == IMAGE


def test_bodies_without_end_are_cut_off(server: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read, "MAX_FILE_BYTES", 1 << 20)
    server.on("/a.png", Reply(200, {"Content-Type": "image/png"}, IMAGE, endless=True))
    assert failure(f"{server.url}/a.png").kind == "too_large"
    time.sleep(0.1)
    assert server.sent < 20 << 20
    monkeypatch.setattr(read, "MAX_FILE_BYTES", 1000)
    server.on("/a.png", None)
    assert failure(f"{server.url}/a.png").message.startswith(f"{len(IMAGE)} bytes, more than 1000")


def test_a_slow_server_ends_in_time(server: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "TOTAL_S", 0.3)
    server.on("/a.png", Reply(200, {}, IMAGE, wait_s=5))
    started = time.monotonic()
    assert failure(f"{server.url}/a.png").kind == "unreachable"
    assert time.monotonic() - started < 4


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/a.png", "http://no-such-host.invalid/a.png"])
def test_a_dead_host(url: str) -> None:
    found = failure(url)
    assert found.kind == "unreachable"
    assert url in found.message


@pytest.mark.parametrize(
    "url", ["http://", "https:///a.png", "ftp://host/a.png", "http://[::1/a.png", "http://a:b/c.png"]
)
def test_what_is_no_url(url: str) -> None:
    assert failure(url).kind == "bad_name"


def test_one_host_gets_so_many_requests_at_a_time(server: WebServer) -> None:
    server.on("/slow.png", Reply(200, {"Content-Type": "image/png"}, IMAGE, wait_s=0.05))
    with ThreadPoolExecutor(web.READERS) as pool:
        assert list(pool.map(fetch, [f"{server.url}/slow.png"] * 40)) == [IMAGE] * 40
    assert 2 <= server.most_at_once <= web.PER_HOST


def test_passwords_and_signatures_are_sent_as_they_were_given(server: WebServer) -> None:
    host = server.url.removeprefix("http://")
    signature = "X-Amz-Credential=k%2Fus-east-1&X-Amz-Signature=a%2Bb"
    assert fetch(hide(f"http://me:pa55word@{host}/a.png?{signature}")) == IMAGE
    assert server.requests[0].target == f"/a.png?{signature}"
    assert server.requests[0].headers["Authorization"].startswith("Basic ")


def test_nothing_is_left_open_at_the_end_of_the_process(server: WebServer) -> None:
    program = f"from tagllm_cli.sources.storage.web import fetch; print(len(fetch('{server.url}/a.png')))"
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == (f"{len(IMAGE)}\n", "")


def test_the_proxy_of_the_environment_is_asked(server: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.files["/elsewhere.png"] = IMAGE
    monkeypatch.setenv("http_proxy", server.url)
    assert fetch("http://behind.invalid/elsewhere.png") == IMAGE
    assert server.requests[0].target == "http://behind.invalid/elsewhere.png"
