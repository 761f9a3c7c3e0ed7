"""Tar shards in a bucket and on web servers, with ranges and without: requests, broken connections, changed shards."""

from __future__ import annotations

import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tagllm_cli.records import Image, Shard
from tagllm_cli.sources.base import ReadFailure, SourceOptions, list_images, read_all
from tagllm_cli.sources.storage import remote_errors
from tagllm_cli.sources.tar import files as tar_files
from tagllm_cli.sources.tar.source import Tar
from tests.support.object_store import ObjectStore, expired_after, object_store
from tests.support.tars import contents, failure, member, packed, told
from tests.support.web_server import Reply, WebServer, cut_file

FILES = {f"{number}.jpg": bytes([number]) * 1_200_000 for number in range(1, 9)}
DATA = packed(*[member(name, data) for name, data in FILES.items()], member("notes.txt"))
EXPECTED = {f"a.tar/{name}": data for name, data in FILES.items()}


@pytest.fixture
def store() -> ObjectStore:
    store = object_store()
    store.requests.clear()
    return store


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_errors, "PATIENCE_S", 2.0)
    monkeypatch.setattr(tar_files, "_RETRY_SECONDS", (0.0, 0.0))


def on_web(server: WebServer) -> Tar:
    return Tar.at(server.url, SourceOptions(pattern="a.tar"))


def streamed(source: Tar, images: list[Image] | None = None) -> dict[str, bytes | str]:
    return {image.id: told(data) for image, data in source.stream(Shard("a.tar"), images)}


def test_shards_are_listed_without_opening_one(store: ObjectStore) -> None:
    root = store.bucket({f"{number}.tar": DATA for number in range(3)})
    source = Tar.at(root)
    first = list(source.shards())
    assert (len(first), store.opened(root)) == (3, [])
    store.upload(f"{root}/1.tar", packed(member("other.jpg")))
    assert [one == other for one, other in zip(first, source.shards(), strict=True)] == [True, False, True]


def test_a_shard_is_streamed_front_to_back_once(store: ObjectStore) -> None:
    root = store.bucket({"a.tar": DATA})
    source = Tar.at(root)
    assert streamed(source) == EXPECTED
    assert dict(source.left_out) == {".txt": 1}
    path = f"{root.removeprefix('s3://')}/a.tar"
    assert store.requests["GET", path] <= 1 + len(DATA) // (8 << 20)
    images = list(source.images(Shard("a.tar")))
    store.requests.clear()
    assert list(streamed(source, images[2:5]).values()) == list(FILES.values())[2:5]
    assert store.requests["GET", path] == 1


def test_a_connection_that_is_cut_in_mid_shard_is_opened_again_where_it_broke(store: ObjectStore) -> None:
    root = store.bucket({"a.tar": DATA})
    cuts = iter([True, True])
    with store.cutting(lambda method, path: method == "GET" and next(cuts, False)):
        assert streamed(Tar.at(root)) == EXPECTED


def test_a_hard_link_is_read_after_its_target_has_passed(store: ObjectStore) -> None:
    link = member("link.jpg", type=tarfile.LNKTYPE, linkname="1.jpg")
    root = store.bucket({"a.tar": packed(*[member(*each) for each in FILES.items()], link, member("last.jpg", b"z"))})
    assert contents(Tar.at(root)) == {**EXPECTED, "a.tar/link.jpg": FILES["1.jpg"], "a.tar/last.jpg": b"z"}


def test_credentials_that_expire_in_mid_shard_are_the_reason(store: ObjectStore) -> None:
    root = store.bucket({"a.tar": DATA})
    source = Tar.at(root)
    images = list(list_images(source))
    with store.failing(expired_after(3)):
        got = streamed(source)
    *whole, last = got
    assert all(got[name] == EXPECTED[name] for name in whole)
    assert 0 < len(whole) < len(FILES)
    assert last == "a.tar"
    assert str(got["a.tar"]).startswith("forbidden: ExpiredToken")
    store.requests.clear()
    with store.failing(expired_after(3)):
        known = streamed(source, images)
    assert list(known)[: len(whole)] == whole
    assert {str(known[image.id])[:9] for image in images[len(whole) :]} == {"forbidden"}
    assert store.requests.total() == 4  # the one that was refused is the last
    with store.failing(expired_after(0)):
        assert [str(each)[:9] for each in streamed(source, images).values()] == ["forbidden"] * len(FILES)
        (only,) = source.images(Shard("a.tar"))
        assert failure(source, only)[0] == "forbidden"


def test_a_shard_that_changes_in_mid_stream(store: ObjectStore) -> None:
    root = store.bucket({"a.tar": DATA})
    source = Tar.at(root)
    images = list(list_images(source))
    streams = [source.stream(Shard("a.tar")), source.stream(Shard("a.tar"), images)]
    for stream in streams:
        assert next(stream) == (images[0], FILES["1.jpg"])
    store.upload(f"{root}/a.tar", packed(member("new.jpg", b"new"), *[member(*each) for each in FILES.items()]))
    for stream in streams:
        rest = [told(data) for _, data in stream]
        failed = [each for each in rest if isinstance(each, str)]
        assert failed
        assert all(each.startswith("changed") for each in failed)
        assert [each for each in rest if isinstance(each, bytes)] == list(FILES.values())[
            1 : len(rest) - len(failed) + 1
        ]
    assert failure(source, images[0])[0] == "changed"
    assert [told(data)[:7] for _, data in read_all(source, images[:2])] == ["changed", "changed"]


def test_a_shard_that_vanished(store: ObjectStore) -> None:
    root = store.bucket({"a.tar": DATA})
    source = Tar.at(root)
    (image, *_), (shard,) = list_images(source), source.shards()
    store.delete(f"{root}/a.tar")
    assert streamed(source) == {"a.tar": "vanished: the file is not there any more"}
    assert [each.uri for each in source.images(shard)] == ["a.tar"]
    assert streamed(source, [image]) == {image.id: "vanished: the file is not there any more"}
    assert failure(source, image)[0] == "vanished"


@pytest.mark.parametrize("ranges", [True, False])
def test_shards_on_a_web_server(ranges: bool) -> None:
    with WebServer({"/a.tar": DATA}, ranges=ranges) as server:
        source = on_web(server)
        source.check()
        assert contents(source) == EXPECTED
        images = list(list_images(source))
        server.requests.clear()
        assert list(streamed(source, images[::3]).values()) == list(FILES.values())[::3]
        assert server.count("/a.tar") <= 4
        assert failure(source, Image("x", "b.tar", shard="b.tar"))[0] == "vanished"


def test_of_images_that_lie_far_apart_nothing_between_is_read(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a run asks for them that has all others on record."""
    names = ("first.jpg", "second.jpg", "last.jpg")
    first, second, last = (member(name, name.encode()) for name in names)
    root = store.bucket({"a.tar": packed(first, second, member("long.bin", bytes(30 << 20)), last)})
    source = Tar.at(root)
    images = list(list_images(source))
    asked: list[tuple[str, int, int]] = []
    read = source.storage.read

    def record(name: str, start: int, length: int) -> bytes:
        asked.append((name, start, length))
        return read(name, start, length)

    monkeypatch.setattr(source.storage, "read", record)
    assert list(streamed(source, images).values()) == [name.encode() for name in names]
    assert asked == [("a.tar", 512, 9), ("a.tar", 1536, 10), ("a.tar", (30 << 20) + 3072, 8)]
    asked.clear()
    assert len(streamed(source, images[:2])) == 2
    assert asked == []


class _Cutting(WebServer):
    """A server without ranges that breaks one response after the other after so many bytes, then sends the file."""

    def __init__(self, *cuts: int) -> None:
        super().__init__({"/a.tar": DATA}, ranges=False)
        self.cuts = list(cuts)

    def next_reply(self, path: str) -> Reply | None:
        request = self.requests[-1]
        is_whole = request.method == "GET" and "Range" not in request.headers
        return cut_file(self.cuts.pop(0)) if is_whole and self.cuts else None


def test_a_server_without_ranges_that_hangs_up_is_read_again_from_where_it_broke() -> None:
    server = _Cutting(3_000_000, 1_000_000, 7_000_000, 0, 9_000_000)
    with server:
        assert streamed(on_web(server)) == EXPECTED
        assert server.cuts == []


def test_a_server_that_hangs_up_time_and_again_is_the_reason() -> None:
    with WebServer({"/a.tar": DATA}, ranges=False) as server:
        source = on_web(server)
        images = list(list_images(source))
        server.on("/a.tar", cut_file(3_000_000))
        got = streamed(source)
        assert str(got.pop("a.tar")).startswith("unreachable: ")
        assert got.items() <= EXPECTED.items()  # of what was received last, the client may drop some
        assert len(got) <= 2
        got = streamed(source, images)
        assert list(got) == [image.id for image in images]
        assert {str(each)[:13] for each in list(got.values())[2:]} == {"unreachable: "}


def test_a_server_whose_file_changes_before_it_is_read_again() -> None:
    with WebServer({"/a.tar": DATA}, ranges=False) as server:
        server.on("/a.tar", cut_file(3_000_000))
        source = on_web(server)
        stream = source.stream(Shard("a.tar"))
        next(stream)
        server.files["/a.tar"] = DATA[:512] + b"other" + DATA[517:]
        server.on("/a.tar", None)
        *_, (image, last) = stream
        assert (image.id, told(last)) == ("a.tar", "changed: the file changed while it was read; run again")


@pytest.mark.parametrize("status", [403, 404, 500])
def test_a_server_that_refuses(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_errors, "PATIENCE_S", 0.0)
    with WebServer({"/a.tar": DATA}) as server:
        server.on("/a.tar", Reply(status))
        kind = {403: "forbidden", 404: "vanished", 500: "unreachable"}[status]
        (told_reason,) = streamed(on_web(server)).values()
        assert str(told_reason).startswith(f"{kind}: ")


class _WithoutLength(BaseHTTPRequestHandler):
    """As scripts serve a file that they pack on the way: the end of the connection is the end of the file."""

    body = DATA

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(self.body)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def without_length() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _WithoutLength)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_server_that_says_no_length(without_length: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Tar.at(without_length, SourceOptions(pattern="a.tar"))
    assert contents(source) == EXPECTED
    for cut in (2_000_000, 1_200_000 + 512, 1_300_000, 600):
        monkeypatch.setattr(_WithoutLength, "body", DATA[:cut])
        got = contents(source)
        assert str(got.pop("a.tar")).startswith("truncated_file: the archive ends too early, at byte ")
        assert list(got.items()) == list(EXPECTED.items())[: (cut - 512) // 1_200_000]


def test_no_message_shows_a_secret() -> None:
    with WebServer({"/a.tar": DATA[:100_000]}) as server:
        url = server.url.replace("http://", "http://me:password@")
        source = Tar.at(url, SourceOptions(pattern="a.tar"))
        shown = [source.describe(), *source.shards(), *list_images(source), *streamed(source).values()]
        assert "password" not in repr(shown)
        assert isinstance(next(source.stream(Shard("a.tar")))[1], ReadFailure)
