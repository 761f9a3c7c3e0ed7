"""Files where they lie: a local disk, S3 (a server on loopback); those of web servers are in test_web_storage.py."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from s3fs import S3FileSystem  # type: ignore[import-untyped]

from tagllm_cli.errors import SourceError
from tagllm_cli.sources.base import ReadFailure, SourceOptions, list_images, read_all
from tagllm_cli.sources.registry import open_source
from tagllm_cli.sources.storage.storage import Storage
from tests.support.object_store import ObjectStore, expired_after, object_store

FILES = {
    "a.tar": b"a" * 1000,
    "b.TAR": b"b" * 10,
    "deep/er/c.tar": b"c",
    "deep/d.txt": b"d",
    "empty.tar": b"",
    "odd #%20?[1]{2,3}'\" \u00e9\u732b.tar": b"odd",
}
TARS = sorted(name for name in FILES if name.lower().endswith(".tar"))


@pytest.fixture
def store() -> ObjectStore:
    store = object_store()
    store.requests.clear()
    return store


def on_disk(tmp_path: Path) -> str:
    for name, data in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    return str(tmp_path)


def in_bucket(tmp_path: Path) -> str:
    return object_store().bucket(FILES)


def below_a_key(tmp_path: Path) -> str:
    root = object_store().bucket({f"some/where/{name}": data for name, data in FILES.items()})
    return f"{root}/some/where/"


@pytest.fixture(params=[on_disk, in_bucket, below_a_key], ids=lambda each: each.__name__)
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    return Storage(request.param(tmp_path))


def names(storage: Storage, pattern: str = "") -> list[str]:
    return [file.name for file in storage.find([".tar"], pattern)]


def kind(operation: Callable[[], object]) -> str:
    with pytest.raises(ReadFailure) as caught:
        operation()
    assert caught.value.message
    assert "\n" not in caught.value.message
    return caught.value.kind


def test_files_are_found_by_ending_in_the_order_of_their_names(storage: Storage) -> None:
    storage.check()
    assert names(storage) == TARS
    assert [file.name for file in storage.find([".txt"])] == ["deep/d.txt"]
    assert [file.size for file in storage.find([".tar"])] == [len(FILES[name]) for name in TARS]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.tar", [name for name in TARS if "/" not in name and name != "b.TAR"]),
        ("**/*.tar", [name for name in TARS if name != "b.TAR"]),
        ("deep/**", ["deep/er/c.tar"]),
        ("deep/*/c.tar", ["deep/er/c.tar"]),
        ("{a,deep/er/c}.tar", ["a.tar", "deep/er/c.tar"]),
        ("{a,*/er/c}.tar", ["a.tar", "deep/er/c.tar"]),
        ("deep/d.txt", ["deep/d.txt"]),
        ("[!a].tar", []),
        ("nowhere/*.tar", []),
    ],
)
def test_patterns(storage: Storage, pattern: str, expected: list[str]) -> None:
    assert names(storage, pattern) == expected


def test_named_files_that_are_missing_are_an_error(storage: Storage) -> None:
    with pytest.raises(SourceError, match=r"3 of 4 named files are missing.*: 1\.tar, 2\.tar, 3\.tar"):
        storage.find([".tar"], "{a,1,2,3}.tar")
    with pytest.raises(SourceError, match=r"there is no file .*/deep'"):
        storage.find([".tar"], "deep")


def test_a_file_is_read_whole_and_in_part(storage: Storage) -> None:
    for name, data in FILES.items():
        assert storage.read(name) == data
        with storage.open(name) as file:
            assert file.read() == data
    assert storage.read("a.tar", 990) == storage.read("a.tar", 990, 100) == b"a" * 10
    assert storage.read("a.tar", 0, 3) == b"aaa"
    assert storage.read("a.tar", 2000, 10) == storage.read("a.tar", 5, 0) == b""
    with storage.open("a.tar") as file:
        assert file.seekable()
        assert (file.seek(995), file.read(), file.tell()) == (995, b"aaaaa", 1000)


def test_versions_are_those_of_the_bytes(storage: Storage) -> None:
    found = {file.name: file for file in storage.find([".tar"])}
    assert storage.stat("a.tar") == found["a.tar"] == storage.find([".tar"], "a.tar")[0]
    assert len({file.version for file in found.values()} - {""}) == len(found)


@pytest.mark.parametrize("name", ["nowhere.tar", "deep", "../x", "/etc/passwd", "a/../../b", "", "x\0y"])
def test_what_is_no_file_is_a_read_failure(storage: Storage, name: str) -> None:
    for operation in (storage.read, storage.open, storage.stat):
        assert kind(partial(operation, name)) in ("vanished", "not_a_file", "bad_name")


def test_threads_read_at_once(storage: Storage) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(storage.read, list(FILES) * 5)) == list(FILES.values()) * 5


def test_hidden_files_and_folders_of_the_system_are_left_out(tmp_path: Path, store: ObjectStore) -> None:
    paths = ["x.tar", ".y.tar", ".git/z.tar", "@eaDir/x.tar", "deep/__MACOSX/x.tar", "deep/#recycle/x.tar"]
    for path in paths:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    root = store.bucket(dict.fromkeys(paths, b""))
    assert names(Storage(str(tmp_path))) == names(Storage(root)) == ["x.tar"]
    assert names(Storage(str(tmp_path)), ".y.tar") == names(Storage(root), ".y.tar") == [".y.tar"]


def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/1.tar").write_bytes(b"1")
    (tmp_path / "a/up").symlink_to("..")
    (tmp_path / "b").symlink_to("a")
    (tmp_path / "2.tar").symlink_to("nowhere")
    os.mkfifo(tmp_path / "3.tar")
    storage = Storage(str(tmp_path))
    assert [(file.name, file.size) for file in storage.find([".tar"])] == [
        ("2.tar", -1), ("3.tar", -1), ("a/1.tar", 1), ("b/1.tar", 1),
    ]  # fmt: skip
    assert kind(lambda: storage.open("2.tar")) == "not_a_file"
    assert kind(lambda: storage.open("3.tar")) == "not_a_file"


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x").mkdir()
    scan = os.scandir

    def refuse(path: str) -> object:
        if path.endswith("/x"):
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(SourceError, match="/x' cannot be listed"):
        Storage(str(tmp_path)).find([".tar"])


def test_a_remote_folder_of_images_is_listed_like_a_local_one(tmp_path: Path, store: ObjectStore) -> None:
    images = [
        "b.jpg",
        "a/2.jpg",
        "a/10.JPG",
        "a.jpg",
        "a b/1.jpg",
        "a-b.jpg",
        "raw/x.png",
        "thumbs/deep/y.jpg",
        "z.gif",
    ]
    others = [
        ".hidden.jpg",
        ".git/x.jpg",
        "@eaDir/x.jpg",
        "@eaDir/deep/y.jpg",
        "a/Thumbs.db",
        "v.mp4",
        "README",
        "w.MP4",
    ]
    for path in [*images, *others]:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(path)
    url = store.bucket({f"photos/{path}": path.encode() for path in [*images, *others]})
    for options in (SourceOptions(), SourceOptions(exclude=("*.gif", "thumbs", "raw/**"))):
        local, remote = open_source(str(tmp_path), options, "folder"), open_source(f"{url}/photos/", options)
        assert [image.id for image in list_images(remote)] == [image.id for image in list_images(local)]
        assert remote.left_out == local.left_out
        assert [data for _, data in read_all(remote, list_images(remote))] == [
            image.id.encode() for image in list_images(local)
        ]


def test_more_objects_than_one_page_of_a_listing(store: ObjectStore) -> None:
    root = store.bucket({f"x/{number:04}.tar": b"" for number in range(1001)})
    assert len(Storage(root).find([".tar"])) == 1001
    store.requests.clear()
    assert len(Storage(root).find([".tar"], "x/{0000..1000}.tar")) == 1001
    assert store.requests.total() <= 4  # lists, not one request per name


def test_a_listing_shows_the_bucket_as_it_is(store: ObjectStore) -> None:
    root = store.bucket({"a.tar": b"1"})
    storage = Storage(root)
    before = storage.find([".tar"])
    store.upload(f"{root}/a.tar", b"2")
    store.upload(f"{root}/b.tar", b"2")
    after = storage.find([".tar"])
    assert [file.name for file in after] == ["a.tar", "b.tar"]
    assert before[0].version != after[0].version == storage.stat("a.tar").version


def test_nothing_is_opened_to_list(store: ObjectStore) -> None:
    root = store.bucket(FILES)
    Storage(root).find([".tar"], "{a,empty}.tar")
    Storage(root).find([".tar"])
    assert store.opened(root) == []
    Storage(root).read("a.tar")
    assert store.opened(root) == ["a.tar"]


def test_a_large_object_is_read_in_blocks(store: ObjectStore) -> None:
    data = os.urandom(20 << 20)
    root = store.bucket({"large.tar": data})
    store.requests.clear()
    with Storage(root).open("large.tar") as file:
        assert b"".join(iter(lambda: file.read(10_000), b"")) == data
    assert store.requests["GET", f"{root[5:]}/large.tar"] == 3


def test_credentials_that_expire(store: ObjectStore) -> None:
    root = store.bucket(FILES)
    storage = Storage(root)
    storage.check()
    with store.failing(expired_after(1)):
        assert storage.read("a.tar") == FILES["a.tar"]
        assert kind(lambda: storage.read("a.tar")) == "forbidden"
        assert kind(lambda: storage.stat("a.tar")) == "forbidden"
        with pytest.raises(SourceError, match=r"cannot be listed: ExpiredToken") as caught:
            storage.find([".tar"])
        assert "AWS_PROFILE" in caught.value.hint


def test_a_bucket_without_permission(store: ObjectStore) -> None:
    root = store.bucket(FILES)
    with store.failing(lambda method, path: (403, "AccessDenied")):
        for operation in (Storage(root).check, lambda: Storage(root).find([".tar"])):
            with pytest.raises(SourceError, match=r"cannot be listed") as caught:
                operation()
            assert "AWS_PROFILE" in caught.value.hint
            assert "test-secret-key" not in caught.value.message


def test_a_bucket_that_may_be_read_but_not_listed(store: ObjectStore) -> None:
    root = store.bucket(FILES)
    with store.failing(lambda method, path: (403, "AccessDenied") if method == "LIST" or "/" not in path else None):
        Storage(root).check("{a,empty}.tar")
        assert names(Storage(root), "{a,empty}.tar") == ["a.tar", "empty.tar"]


@pytest.fixture
def other_environment() -> Iterator[None]:
    """File systems, which are kept for a process, see what a test puts into the environment."""
    S3FileSystem.clear_instance_cache()
    yield
    S3FileSystem.clear_instance_cache()


@pytest.mark.usefixtures("other_environment")
def test_no_credentials_at_all(store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = store.bucket(FILES)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(SourceError, match=r"(?i)credentials") as caught:
        Storage(root).check()
    assert "AWS_ACCESS_KEY_ID" in caught.value.hint


@pytest.mark.usefixtures("other_environment")
def test_nobody_listens(monkeypatch: pytest.MonkeyPatch, store: ObjectStore, impatient: None) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("tagllm_cli.sources.storage.remote._CHECK_S", 0.0)
    with pytest.raises(SourceError, match="cannot be listed") as caught:
        Storage("s3://bucket").check()
    assert "later" in caught.value.hint
    assert kind(lambda: Storage("s3://bucket").read("a.tar")) == "unreachable"


def test_a_server_that_recovers(store: ObjectStore) -> None:
    root = store.bucket(FILES)
    failures = iter([True] * 2)
    with store.failing(lambda method, path: (503, "InternalError") if next(failures, False) else None):
        assert Storage(root).read("a.tar") == FILES["a.tar"]


def test_a_connection_that_breaks_is_continued(store: ObjectStore) -> None:
    data = os.urandom(9 << 20)
    root = store.bucket({"a.tar": data})
    cuts = iter([True] * 2)
    with store.cutting(lambda method, path: method == "GET" and next(cuts, False)), Storage(root).open("a.tar") as file:
        assert file.read(5) + file.read() == data
    assert not list(cuts)


def test_an_object_that_changes_while_it_is_read(store: ObjectStore) -> None:
    root = store.bucket({"a.tar": os.urandom(20 << 20)})
    with Storage(root).open("a.tar") as file:
        file.read(5)
        store.upload(f"{root}/a.tar", os.urandom(20 << 20))
        assert kind(file.read) == "changed"


@pytest.mark.parametrize(
    ("root", "message", "hint"),
    [
        ("gs://bucket", "needs the package gcsfs", "pip install 'tagllm[gs]'"),
        ("tape://drive", "no storage that is known", "s3://"),
        ("s3://no-such-bucket", "there is nothing at s3://no-such-bucket", "exist"),
    ],
)
def test_roots_that_cannot_be_listed(root: str, message: str, hint: str, store: ObjectStore) -> None:
    with pytest.raises(SourceError, match=message) as caught:
        Storage(root).check()
    assert hint in caught.value.hint


def test_a_root_that_is_a_file(store: ObjectStore) -> None:
    with pytest.raises(SourceError, match="is a file"):
        Storage(f"{store.bucket(FILES)}/a.tar").check()


def test_any_file_system_of_fsspec(tmp_path: Path) -> None:
    on_disk(tmp_path)
    storage = Storage(f"file://{tmp_path}")
    storage.check()
    assert names(storage) == TARS
    assert storage.read("a.tar", 990) == b"a" * 10
    with storage.open("a.tar") as file:
        assert file.read() == FILES["a.tar"]
