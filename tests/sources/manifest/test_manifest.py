"""Manifests as people and programs write them: columns, encodings, Windows paths, URLs, repeated lines, broken ones."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tagllm_cli.errors import SourceError
from tagllm_cli.sources.base import ReadFailure, Source, SourceOptions, list_images, recall
from tagllm_cli.sources.registry import open_source, reopen
from tests.support.object_store import object_store
from tests.support.web_server import Reply, WebServer


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of images, a second one beside it."""
    root = tmp_path / "root"
    for name in ("a.jpg", "b.jpg", "sub/c d.jpg", "noending", "../beside/e.jpg"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return root


def listed(root: Path, name: str, content: str | bytes, **options: Any) -> list[str]:
    (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    source = open_source(str(root / name), SourceOptions(**options))
    images = list(list_images(source))
    again = reopen(source.describe())
    assert list(list_images(again)) == images
    return [image.id for image in images]


def error(root: Path, name: str, content: str | bytes, **options: Any) -> SourceError:
    (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SourceError) as caught:
        list(list_images(open_source(str(root / name), SourceOptions(**options))))
    assert "\n" not in caught.value.message
    assert caught.value.hint
    return caught.value


def failure(source: Source, image_id: str, uri: str | None = None) -> ReadFailure:
    with pytest.raises(ReadFailure) as caught:
        source.read(recall(source, image_id, uri or image_id))
    return caught.value


BOTH = ["a.jpg", "sub/c d.jpg"]
READ = {
    "text": ("m.txt", "a.jpg\nsub/c d.jpg\n"),
    "text without a last line end": ("m.txt", "a.jpg\n\nsub/c d.jpg"),
    "text of Windows": ("m.txt", "\ufeffa.jpg\r\n.\\sub\\c d.jpg\r\n"),
    "text of an old Mac": ("m.txt", "a.jpg\rsub/c d.jpg\r"),
    "text with spaces": ("m.txt", "  ./a.jpg \n\t sub/c d.jpg\n"),
    "UTF-16": ("m.txt", "a.jpg\r\nsub/c d.jpg\r\n".encode("utf-16")),
    "CSV": ("m.csv", "image,label\na.jpg,cat\nsub/c d.jpg,dog\n"),
    "CSV, quoted": ("m.csv", '"label","File_Name"\r\n"x, y","a.jpg"\r\n"z","sub/c d.jpg"\r\n'),
    "CSV without a header": ("m.csv", "cat,a.jpg\ndog,sub/c d.jpg\n"),
    "CSV of one column": ("m.csv", "a.jpg\nsub/c d.jpg\n"),
    "CSV of one column with a strange name": ("m.csv", "Bild\na.jpg\nsub/c d.jpg\n"),
    "CSV with semicolons": ("m.csv", "id;path\n1;a.jpg\n2;sub/c d.jpg\n"),
    "CSV with bars": ("m.csv", "id|path\n1|a.jpg\n2|sub/c d.jpg\n"),
    "CSV of Excel": ("m.csv", "\ufeffsep=;\r\nid;path\r\n1;a.jpg\r\n2;sub/c d.jpg\r\n"),
    "paths as Windows copies them": ("m.txt", '"a.jpg"\r\n".\\sub\\c d.jpg"\r\n'),
    "CSV of UTF-16": ("m.csv", "path\r\na.jpg\r\nsub/c d.jpg\r\n".encode("utf-16")),
    "TSV": ("m.tsv", "url\tcaption\na.jpg\t\nsub/c d.jpg\tx, y\n"),
    "JSON lines": ("m.jsonl", '{"id": 1, "image": "a.jpg"}\n\n{"image": "sub/c d.jpg", "more": []}\n'),
    "JSON strings": ("m.ndjson", '"a.jpg"\n"sub\\/c d.jpg"\n'),
    "JSON as Hugging Face has it": ("m.jsonl", '{"image": {"path": "a.jpg"}}\n{"image": {"path": "sub/c d.jpg"}}'),
}


@pytest.mark.parametrize(("name", "content"), READ.values(), ids=READ.keys())
def test_what_is_read(root: Path, name: str, content: str | bytes) -> None:
    assert listed(root, name, content) == BOTH
    source = open_source(str(root / name))
    assert [source.read(image).decode() for image in list_images(source)] == BOTH


def test_columns_that_the_user_names(root: Path) -> None:
    content = "key,image,thumbnail\nx,a.jpg,b.jpg\ny,b.jpg,a.jpg\n"
    assert listed(root, "m.csv", content, image_column="thumbnail") == ["b.jpg", "a.jpg"]
    assert listed(root, "m.csv", content, id_column="key") == ["x", "y"]
    lines = '{"key": 7, "image": "a.jpg"}\n{"key": "y", "image": "b.jpg"}\n'
    assert listed(root, "m.jsonl", lines, id_column="key") == ["7", "y"]
    source = open_source(str(root / "m.jsonl"), SourceOptions(id_column="key"))
    assert source.read(recall(source, "7", "a.jpg")) == b"a.jpg"


BROKEN = {
    "empty": ("m.txt", "", "is empty"),
    "blank": ("m.csv", " \n\n", "is empty"),
    "two columns of images": ("m.csv", "image,url\na.jpg,b.jpg\n", "'image' and 'url'"),
    "no column of images": ("m.csv", "x,y\n1,2\n", "no column of paths or URLs of images: x, y"),
    "text with tabs": ("m.txt", "a.jpg\tcat\nb.jpg\tdog\n", "line 1: columns, divided by tabs"),
    "text with labels": ("m.txt", "\na.jpg 65\nb.jpg 970\n", "line 2: text after the path: a.jpg 65"),
    "a list in JSON": ("m.jsonl", '{"image": ["a.jpg"]}\n', "line 1: 'image' is a list"),
    "a number in JSON": ("m.jsonl", '{"image": "a.jpg"}\n{"image": 7}\n', "line 2: 'image' is a number"),
    "an image in a line": ("m.jsonl", '{"image": "a.jpg"}\n"/9j/' + "AbC+" * 999 + '"\n', "line 2: base64 data"),
    "an image as a URL": ("m.txt", "data:image/png;base64,iVBORw0KGgo=\n", "line 1: base64 data"),
    "no column without a header": ("m.csv", "a.jpg,b.jpg\n", "columns 1 and 2 may be"),
    "keys of JSON": ("m.jsonl", '{"x": "a.jpg", "y": "b.jpg"}', "no column that is known"),
    "broken JSON": ("m.jsonl", '{"image": "a.jpg"}\n{"image": \n', "line 2: broken JSON"),
    "a JSON list": ("m.jsonl", '[\n  {"image": "a.jpg"}\n]', "line 1: broken JSON"),
    "a JSON number": ("m.jsonl", '"a.jpg"\n7\n', "line 2: not a JSON object"),
    "deep JSON": ("m.jsonl", "[" * 100_000, "line 1: broken JSON"),
    "broken CSV": ("m.csv", 'image\n"a.jpg"x\n', "line 2: broken CSV"),
    "an open quote": ("m.csv", 'image\na.jpg\n"b.jpg\n', "broken CSV"),
    "NUL at the start": ("m.txt", "a.jpg\n\0\n", "NUL bytes"),
    "NUL later": ("m.txt", "a.jpg\n" * 2000 + "b\0.jpg\n", "line 2001: it holds a NUL byte"),
    "UTF-16 without a mark": ("m.txt", "a.jpg\n".encode("utf-16-le"), "NUL bytes"),
    "Latin-1": ("m.txt", b"a.jpg\ncaf\xe9.jpg\n", "not UTF-8"),
    "Parquet": ("m.csv", b"PAR1\0\0\0\0PAR1", "is a Parquet file"),
    "gzip": ("m.csv", b"\x1f\x8b\x08\0\0\0", "gzip"),
    "Excel": ("m.csv", b"PK\x03\x04\0\0\0\0", "spreadsheet"),
    "a name that is not Unicode": ("m.jsonl", '{"image": "\\ud800.jpg"}', "line 1: it holds text that is not Unicode"),
}


@pytest.mark.parametrize(("name", "content", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_what_cannot_be_read_is_one_line_with_the_place(
    root: Path, name: str, content: str | bytes, message: str
) -> None:
    found = error(root, name, content)
    assert message in found.message
    assert str(root / name) in found.message


def test_columns_that_are_not_there(root: Path) -> None:
    assert (
        "no column 'x'; there are 'image', 'b'" in error(root, "m.csv", "image,b\na.jpg,1\n", image_column="x").message
    )
    assert "no column 'x'" in error(root, "m.jsonl", '{"image": "a.jpg"}', id_column="x").message
    assert "plain text" in error(root, "m.txt", "a.jpg\n", id_column="x").message
    assert (
        "line 3: its column 'id' is empty"
        in error(root, "m.csv", "image,id\na.jpg,1\nb.jpg,\n", id_column="id").message
    )


def test_a_repeated_line_is_one_image(root: Path) -> None:
    assert listed(root, "m.txt", "a.jpg\nb.jpg\na.jpg\n./a.jpg\n") == ["a.jpg", "b.jpg"]
    source = open_source(str(root / "m.txt"))
    list(list_images(source))
    assert dict(source.left_out) == {"repeated lines": 2}


def test_one_id_for_two_images_is_an_error_that_names_both_lines(root: Path) -> None:
    content = "image,id\na.jpg,x\nb.jpg,y\na.jpg,x\nsub/c d.jpg,y\n"
    found = error(root, "m.csv", content, id_column="id")
    assert found.message == f"{root}/m.csv, lines 3 and 5: two images with the id 'y'"


def test_lines_without_an_image_are_counted(root: Path) -> None:
    assert listed(root, "m.jsonl", '{"image": "a.jpg"}\n{"image": null}\n{}\n{"image": "b.jpg"}\n') == [
        "a.jpg",
        "b.jpg",
    ]
    source = open_source(str(root / "m.jsonl"))
    list(list_images(source))
    assert dict(source.left_out) == {"lines without an image": 2}


def test_a_missing_file_is_a_failed_row(root: Path) -> None:
    assert listed(root, "m.txt", "a.jpg\nnowhere.jpg\nsub\n") == ["a.jpg", "nowhere.jpg", "sub"]
    source = open_source(str(root / "m.txt"))
    missing = failure(source, "nowhere.jpg")
    assert (missing.kind, missing.message) == ("vanished", f"there is no file {root}/nowhere.jpg")
    assert failure(source, "sub").kind == "not_a_file"


def test_a_manifest_without_an_image_is_named(root: Path) -> None:
    assert error(root, "m[1].csv", "image,label\n").message == f"there are no images in {root}/m[1].csv"


def test_the_line_after_that_of_excel_counts_as_the_second(root: Path) -> None:
    found = error(root, "m.csv", "sep=;\nid;image\n1;a.jpg\n1;b.jpg\n", id_column="id")
    assert found.message == f"{root}/m.csv, lines 3 and 4: two images with the id '1'"


def test_a_manifest_whose_files_are_elsewhere_is_refused_at_once(root: Path) -> None:
    missing = [f"{number}.jpg" for number in range(30)]
    message = error(root, "truth.csv", "image,label\n" + "".join(f"{name},cat\n" for name in missing)).message
    assert message == f"the first files that {root}/truth.csv names are not there: 0.jpg and 19 more"
    for one_more in ("a.jpg", "http://127.0.0.1:9/a.jpg"):
        assert len(listed(root, "m.txt", "\n".join([*missing[:19], one_more, *missing[19:]]))) == 31


def test_versions_of_local_files_change_with_them(root: Path) -> None:
    (root / "m.txt").write_text("a.jpg\nb.jpg\n")
    source = open_source(str(root / "m.txt"))
    before = list(list_images(source))
    (root / "a.jpg").write_text("another")
    after = list(list_images(source))
    assert [one.version == other.version for one, other in zip(before, after, strict=True)] == [False, True]


def test_a_manifest_names_any_file_and_a_row_only_what_the_manifest_names(root: Path) -> None:
    absolute = str(root.parent / "beside/e.jpg")
    (root / "m.txt").write_text(f"../beside/e.jpg\n{absolute}\nfile://{root}/sub/c%20d.jpg\n")
    source = open_source(str(root / "m.txt"))
    images = list(list_images(source))
    assert [image.id for image in images] == ["../beside/e.jpg", absolute, f"{root}/sub/c d.jpg"]
    fresh = open_source(str(root / "m.txt"))  # as another process that has a table's row
    assert [fresh.read(recall(fresh, image.id, image.uri)) for image in images] == [
        source.read(each) for each in images
    ]
    assert fresh.read(recall(fresh, "b.jpg", "b.jpg")) == b"b.jpg"  # below the folder of the manifest
    for uri in ("/etc/passwd", "../beside/other.jpg", "file:///etc/passwd", "https://127.0.0.1:9/x", "s3://bucket/x"):
        assert failure(fresh, uri).kind == "bad_name"


@pytest.fixture
def web() -> Iterator[WebServer]:
    with WebServer({f"/{name}.jpg": name.encode() for name in "abc"}) as server:
        yield server


def test_urls_are_fetched(root: Path, web: WebServer) -> None:
    web.on("/gone.jpg", Reply(404))
    web.on("/page.jpg", Reply(200, {"Content-Type": "text/html"}, b"<html>no"))
    urls = [f"{web.url}/{name}.jpg" for name in ("a", "gone", "page", "c")]
    assert listed(root, "m.csv", "url\n" + "\n".join(urls)) == urls
    source = open_source(str(root / "m.csv"))
    images = list(list_images(source))
    assert [image.version for image in images] == [""] * 4
    assert source.locate(images[0]) == urls[0]
    assert [source.read(images[0]), source.read(images[3])] == [b"a", b"c"]
    assert [failure(source, url).kind for url in urls[1:3]] == ["vanished", "not_an_image"]


def test_a_signature_is_in_no_id_and_found_again(root: Path, web: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = "".join(f"{web.url}/{name}.jpg?X-Amz-Signature=s1gn{name}&X-Amz-Date=1\n" for name in "ab")
    (root / "m.txt").write_text(lines)
    source = open_source(str(root / "m.txt"))
    images = list(list_images(source))
    assert [image.id for image in images] == [image.uri for image in images] == [f"{web.url}/a.jpg", f"{web.url}/b.jpg"]
    assert "s1gn" not in json.dumps([str(images), str(source.describe())])
    monkeypatch.setattr("tagllm_cli.sources.storage.url_secrets._queries", {})  # another process
    fresh = reopen(source.describe())
    assert fresh.read(recall(fresh, images[1].id, images[1].uri)) == b"b"
    assert web.requests[-1].target == "/b.jpg?X-Amz-Signature=s1gnb&X-Amz-Date=1"


def test_urls_that_differ_in_a_key_alone_are_not_taken_for_one(root: Path) -> None:
    content = "https://host/get?key=1\nhttps://host/get?key=1\nhttps://host/get?key=2\n"
    found = error(root, "m.txt", content)
    assert "lines 1 and 3: two URLs that differ in nothing but keys" in found.message
    rows = "id,url\na,https://host/get?key=1\nb,https://host/get?key=2\n"
    assert "lines 2 and 3" in error(root, "m.csv", rows, id_column="id").message


def test_a_manifest_in_a_bucket(root: Path) -> None:
    store = object_store()
    other = store.bucket({"x y.jpg": b"other"})
    lines = f"a.jpg\n.\\deep\\b.jpg\n{other}/x y.jpg\nnowhere.jpg\n"
    bucket = store.bucket({"lists/m.txt": lines.encode(), "lists/a.jpg": b"a", "lists/deep/b.jpg": b"b"})
    source = open_source(f"{bucket}/lists/m.txt")
    images = list(list_images(source))
    assert [image.id for image in images] == ["a.jpg", "deep/b.jpg", f"{other}/x y.jpg", "nowhere.jpg"]
    assert list(map(source.read, images[:3])) == [b"a", b"b", b"other"]
    assert failure(source, "nowhere.jpg").message == f"there is no file {bucket}/lists/nowhere.jpg"
    assert source.locate(images[0]) == f"{bucket}/lists/a.jpg"
    assert failure(source, "../secret.jpg").kind == "bad_name"


def test_a_manifest_that_may_not_be_read_says_which_credentials_are_needed() -> None:
    store = object_store()
    bucket = store.bucket({"m.txt": b"a.jpg\n"})
    with store.failing(lambda method, path: (403, "AccessDenied")), pytest.raises(SourceError) as caught:
        open_source(f"{bucket}/m.txt")
    assert "AWS_PROFILE" in caught.value.hint


def test_a_manifest_on_a_web_server(web: WebServer) -> None:
    web.files["/lists/m.csv"] = b"image\na.jpg\n../b.jpg\n"
    web.files["/lists/a.jpg"] = b"a"
    source = open_source(f"{web.url}/lists/m.csv")
    images = list(list_images(source))
    assert source.read(images[0]) == b"a"
    assert (web.count("/lists/a.jpg"), web.count("/lists/a.jpg", "HEAD")) == (1, 0)
    assert failure(source, "../b.jpg").kind == "bad_name"
    signed = open_source(f"{web.url}/lists/m.csv?part=1&sig=secret")
    assert list(list_images(signed)) == images


def test_a_storage_whose_package_is_missing_is_a_failed_row(root: Path) -> None:
    (root / "m.txt").write_text("gs://bucket/a.jpg\nftp://host/a.jpg\n")
    source = open_source(str(root / "m.txt"))
    [image, other] = list_images(source)
    assert "tagllm[gs]" in failure(source, image.id).message
    assert "ftp:// is not read" in failure(source, other.id).message


def test_what_is_excluded_is_counted(root: Path) -> None:
    (root / "m.txt").write_text("a.jpg\nsub/c d.jpg\nhttps://host/x.gif\n")
    source = open_source(str(root / "m.txt"), SourceOptions(exclude=("*.gif", "sub/**")))
    assert [image.id for image in list_images(source)] == ["a.jpg"]
    assert dict(source.left_out) == {"by --exclude '*.gif'": 1, "by --exclude 'sub/**'": 1}


def test_manifests_that_are_not_one_file(root: Path) -> None:
    for name in ("1.csv", "2.csv"):
        (root / name).write_text("image\na.jpg\n")
    for spec in (root / "*.csv", root / "{1,2}.csv"):
        with pytest.raises(SourceError, match="a manifest is one file") as caught:
            open_source(str(spec))
        assert "cat" in caught.value.hint
    with pytest.raises(SourceError, match="cannot be read"):
        open_source(str(root / "nowhere.csv"))


def test_memory_does_not_grow_with_the_lines(root: Path) -> None:
    def peak(lines: int) -> int:
        named = "".join(f"images/{number:020}/{number:020}.jpg\n" for number in range(lines))
        (root / "m.txt").write_text(f"a.jpg\n{named}")
        source = open_source(str(root / "m.txt"))
        tracemalloc.start()
        assert sum(1 for _ in list_images(source)) == lines + 1
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    assert (peak(11_000) - peak(1_000)) / 10_000 < 200  # bytes per line, its hash included
