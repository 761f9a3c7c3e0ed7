"""Files of web servers, which list nothing: some know ranges, some break, refuse or move them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from tagllm_cli.errors import SourceError
from tagllm_cli.sources.base import ReadFailure
from tagllm_cli.sources.storage import remote_errors
from tagllm_cli.sources.storage.storage import Storage
from tagllm_cli.sources.storage.url_secrets import hide
from tests.support.web_server import Reply, WebServer, cut_file, redirect


def kind(operation: Callable[[], object]) -> str:
    with pytest.raises(ReadFailure) as caught:
        operation()
    assert caught.value.message
    assert "\n" not in caught.value.message
    return caught.value.kind


SHARD = os.urandom(1 << 20)


@pytest.fixture(params=[True, False], ids=["ranges", "no ranges"])
def web(request: pytest.FixtureRequest) -> Iterator[WebServer]:
    with WebServer({f"/some/{name}": SHARD for name in ("0.tar", "1.tar")}, ranges=request.param) as server:
        yield server


def test_files_of_a_web_server(web: WebServer) -> None:
    storage = Storage(f"{web.url}/some/")
    storage.check("{0..1}.tar")
    found = storage.find([".tar"], "{0..1}.tar")
    assert [(file.name, file.size) for file in found] == [("0.tar", len(SHARD)), ("1.tar", len(SHARD))]
    assert found[0] == storage.stat("0.tar")
    assert web.count("/some/0.tar") == 0
    assert storage.read("0.tar") == SHARD
    assert storage.read("0.tar", 1000, 10) == SHARD[1000:1010]
    with storage.open("0.tar") as file:
        assert file.seekable() == web.ranges
        assert b"".join(iter(lambda: file.read(10_000), b"")) == SHARD


def test_a_web_server_cannot_be_listed(web: WebServer) -> None:
    for pattern in ("", "*.tar", "{a,*}.tar"):
        with pytest.raises(SourceError, match="cannot be listed: web servers have no lists") as caught:
            Storage(f"{web.url}/some").find([".tar"], pattern)
        assert "{00000..00063}" in caught.value.hint
    with pytest.raises(SourceError, match=r"2 of 4 named files are missing.*: 2\.tar, 3\.tar"):
        Storage(f"{web.url}/some").find([".tar"], "{0..3}.tar")


def test_a_web_server_that_refuses(web: WebServer) -> None:
    web.on("/some/0.tar", Reply(403))
    storage = Storage(f"{web.url}/some")
    for operation in (storage.read, storage.open, storage.stat):
        assert kind(partial(operation, "0.tar")) == "forbidden"
        assert kind(partial(operation, "2.tar")) == "vanished"
    with pytest.raises(SourceError, match="HTTP 403") as caught:
        storage.find([".tar"], "0.tar")
    assert "user:password@" in caught.value.hint


def test_a_response_that_breaks(web: WebServer, impatient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    if web.ranges:
        monkeypatch.setattr(remote_errors, "PATIENCE_S", 60.0)
    with Storage(f"{web.url}/some").open("0.tar") as file:
        web.on("/some/0.tar", cut_file(100_000), None)
        if web.ranges:
            assert file.read() == SHARD
    if not web.ranges:
        web.on("/some/0.tar", None, None, cut_file(100_000))  # HEAD, the question about ranges
        with Storage(f"{web.url}/some").open("0.tar") as file:
            assert kind(file.read) == "unreachable"


def test_a_web_server_that_recovers_and_redirects(web: WebServer) -> None:
    web.on("/some/0.tar", Reply(503), Reply(503), None)
    web.on("/moved/0.tar", redirect("/some/0.tar"))
    assert Storage(f"{web.url}/moved").read("0.tar") == SHARD


def test_a_file_that_changes_while_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tagllm_cli.sources.storage.remote.BLOCK_BYTES", 1000)
    with WebServer({"/0.tar": SHARD}) as web, Storage(web.url).open("0.tar") as file:
        assert file.read(5) == SHARD[:5]
        web.files["/0.tar"] = b"x" * len(SHARD)
        assert kind(file.read) == "changed"


def test_secrets_of_urls_are_used_and_not_shown(web: WebServer) -> None:
    host = web.url.removeprefix("http://")
    storage = Storage(f"http://me:pa55word@{host}/some")
    assert storage.root == f"http://{host}/some"
    assert storage.read("0.tar") == SHARD
    assert all(request.headers["Authorization"].startswith("Basic ") for request in web.requests)
    name = hide(f"http://{host}/some/0.tar?X-Amz-Signature=s1gned&X-Amz-Date=2026").rpartition("/")[2]
    assert (name, storage.locate(name)) == ("0.tar", f"http://{host}/some/0.tar")
    web.on("/some/0.tar", Reply(403))
    with pytest.raises(SourceError) as caught:
        storage.find([".tar"], name)
    assert web.requests[-1].target == "/some/0.tar?X-Amz-Signature=s1gned&X-Amz-Date=2026"
    assert not any(secret in caught.value.message + caught.value.hint for secret in ("pa55word", "s1gned", "2026"))
