"""What a user's words name: by the name alone, else by what lies there; braces against those of bash."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagllm_cli.errors import SourceError
from tagllm_cli.sources.contents import kind_of_contents
from tagllm_cli.sources.detect import Detected, detect
from tagllm_cli.sources.registry import open_source
from tagllm_cli.sources.storage.patterns import escape, expand_braces, literal
from tagllm_cli.sources.storage.storage import Storage
from tests.support.object_store import object_store


def put(root: Path, *paths: str) -> str:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        if path.endswith(".parquet"):
            pq.write_table(pa.table({"image": [b""]}), root / path)
        else:
            (root / path).touch()
    return str(root)


def label_table(path: Path) -> None:
    pq.write_table(pa.table({"image_id": ["a"]}).replace_schema_metadata({"tagllm.schema_version": "3"}), path)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


BY_NAME = [
    ("shards/{00000..00063}.tar", "tar", "shards", "{00000..00063}.tar"),
    ("shards/*.tar", "tar", "shards", "*.tar"),
    ("*/{a,b}/x.tar", "tar", "", "*/{a,b}/x.tar"),
    ("{a/b,c}/x.tar", "tar", "", "{a/b,c}/x.tar"),
    ("x/y.tar", "tar", "x", "y.tar"),
    ("x/y.TAR", "tar", "x", "y.TAR"),
    ("y.parquet", "parquet", "", "y.parquet"),
    ("./x/../y.csv", "manifest", "", "y.csv"),
    ("a.tsv", "manifest", "", "a.tsv"),
    ("a.txt", "manifest", "", "a.txt"),
    ("a.jsonl", "manifest", "", "a.jsonl"),
    ("a.ndjson", "manifest", "", "a.ndjson"),
    ("photos", "folder", "photos", ""),
    ("photos/", "folder", "photos", ""),
]


@pytest.mark.parametrize(("spec", "kind", "root", "pattern"), BY_NAME)
def test_kinds_by_name(spec: str, kind: str, root: str, pattern: str, here: Path) -> None:
    expected = Detected(kind, str(here / root), pattern)
    assert detect(spec, offline=True) == detect(str(here / spec), offline=True) == expected
    assert detect(f"file://{here}/{spec}", offline=True) == expected


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("s3://bucket/{0..3}.tar", Detected("tar", "s3://bucket", "{0..3}.tar")),
        ("s3://bucket/x/y.tar", Detected("tar", "s3://bucket/x", "y.tar")),
        ("hf://datasets/a/b@main/data/*.parquet", Detected("parquet", "hf://datasets/a/b@main/data", "*.parquet")),
        ("https://host/x/{00..10}.tar", Detected("tar", "https://host/x", "{00..10}.tar")),
        ("https://host/x.tar?download=true", Detected("tar", "https://host", "x.tar[?]download=true")),
        ("https://host/list.csv", Detected("manifest", "https://host", "list.csv")),
        ("gs://bucket/photos/", Detected("folder", "gs://bucket/photos")),
        ("s3://bucket", Detected("folder", "s3://bucket")),
    ],
)
def test_kinds_of_urls_by_name(spec: str, expected: Detected) -> None:
    assert detect(spec, offline=True) == expected


def test_the_same_files_have_the_same_root_however_they_are_named(here: Path) -> None:
    put(here, "shards/0.tar", "shards/1.tar")
    for spec in ("shards", "shards/", "shards/*.tar", "shards/{0..1}.tar", "shards/0.tar"):
        assert detect(spec).root == str(here / "shards")
        assert detect(spec).kind == "tar"


def test_a_path_that_exists_is_no_pattern(here: Path) -> None:
    put(here, "{a,b}.tar", "[x]*/1.jpg", "{c,d}/2.tar")
    assert detect("{a,b}.tar") == Detected("tar", str(here), escape("{a,b}.tar"))
    assert [file.name for file in Storage(str(here)).find([".tar"], escape("{a,b}.tar"))] == ["{a,b}.tar"]
    assert detect("[x]*") == Detected("folder", str(here / "[x]*"))
    assert detect("{c,d}") == Detected("tar", str(here / "{c,d}"))
    assert detect("{c,d}/{0..2}.tar") == Detected("tar", str(here / "{c,d}"), "{0..2}.tar")


FOLDERS = [
    (["a.jpg", "b.txt"], "folder"),
    (["x/y/a.jpg", "x/y/b.tar"], "folder"),
    ([], "folder"),
    (["notes.txt"], "folder"),
    (["0.tar", "1.tar", "index.json"], "tar"),
    (["x/0.tar", "y/1.tar"], "tar"),
    (["data/train-0.parquet", "README.md", "state.json"], "parquet"),
    (["train/data-0.arrow", "train/state.json", "dataset_dict.json"], "parquet"),
    (["0.parquet", ".thumbnails/a.jpg", "@eaDir/a.jpg"], "parquet"),
]


@pytest.mark.parametrize(("files", "kind"), FOLDERS, ids=lambda each: str(each)[:30])
def test_kinds_of_folders_by_what_lies_there(files: list[str], kind: str, tmp_path: Path) -> None:
    put(tmp_path, *files)
    assert detect(str(tmp_path)) == Detected(kind, str(tmp_path))
    url = object_store().bucket({f"x/{name}": (tmp_path / name).read_bytes() for name in files} or {"x/else.md": b""})
    assert detect(f"{url}/x") == Detected(kind, f"{url}/x")


@pytest.mark.parametrize(
    ("files", "both"),
    [
        (["a.jpg", "0.tar"], "image files and tar files"),
        (["deep/a.jpg", "0.tar"], "image files and tar files"),
        (["assets/a.jpg", "data/0.parquet"], "image files and Parquet or Arrow files"),
        (["0.parquet", "0.tar"], "Parquet or Arrow files and tar files"),
        (["x/0.parquet", "y/0.tar"], "Parquet or Arrow files and tar files"),
    ],
)
def test_a_folder_of_two_kinds_is_for_the_user_to_decide(files: list[str], both: str, tmp_path: Path) -> None:
    root = put(tmp_path, *files)
    url = object_store().bucket({name: (tmp_path / name).read_bytes() for name in files})
    for spec in (root, url):
        with pytest.raises(SourceError, match=f"holds {both}") as caught:
            detect(spec)
        assert "--source-format" in caught.value.hint
    assert detect(root, "tar") == Detected("tar", root)
    assert detect(url, "folder") == Detected("folder", url)


def test_label_tables_of_ours_do_not_count(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg")
    label_table(tmp_path / "labels.parquet")
    assert detect(str(tmp_path)).kind == "folder"
    url = object_store().bucket({each.name: each.read_bytes() for each in tmp_path.iterdir()})
    assert detect(url).kind == "folder"
    (tmp_path / "damaged.parquet").touch()
    with pytest.raises(SourceError, match="Parquet"):
        detect(str(tmp_path))


def test_the_first_image_ends_the_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "a/1.jpg", *(f"a/{number}.png" for number in range(300)))
    monkeypatch.setattr("tagllm_cli.sources.contents._is_label_table", None)
    looked_at: list[str] = []

    def note(name: str) -> str:
        looked_at.append(name)
        return "folder"

    monkeypatch.setattr("tagllm_cli.sources.contents._kind", note)
    assert (kind_of_contents(str(tmp_path)), len(looked_at)) == ("folder", 1)


def test_globs_without_an_ending_are_looked_at(here: Path) -> None:
    put(here, "x/0.tar", "x/1.tar", "y/1.jpg", "z/1.tar", "z/1.parquet")
    assert detect("x/*") == Detected("tar", str(here / "x"), "*")
    for spec, message in [("y/*", "one by one"), ("z/*", "holds Parquet"), ("w/*", "no file matches")]:
        with pytest.raises(SourceError, match=message):
            detect(spec)


@pytest.mark.parametrize(
    ("spec", "message", "hint"),
    [
        ("my photos.tar.gz", "compressed", "`gzip -dk 'my photos.tar.gz'`"),
        ("x/{0..3}.tgz", "compressed", "`gzip -dc x/{0..3}.tgz > x/{0..3}.tar`"),
        ("x.tar.zst", "compressed", "`zstd -d x.tar.zst`"),
        ("x.ZIP", "compressed", "`unzip x.ZIP -d x`"),
        ("x.7z", "compressed", "`7z x x.7z -ox`"),
        ("s3://bucket/x.tar.gz", "compressed", "Copy it to a disk"),
        ("x/*.jpg", "one by one", "text file"),
        ("{a,b}.{tar,csv}", "several kinds: manifest and tar", "one kind"),
        ("s3://bucket-{a,b}/x.tar", "names no folder", "behind the host or bucket"),
        ("s3://a/x.tar::s3://b/y.tar", "joins places", "braces"),
        ("{1..9999999}.tar", "stand for 9,999,999 names", "1,000,000"),
    ],
)
def test_names_that_cannot_be_a_source(spec: str, message: str, hint: str, here: Path) -> None:
    with pytest.raises(SourceError, match=message) as caught:
        detect(spec)
    assert hint in caught.value.hint


def test_a_single_image_is_not_a_source(tmp_path: Path) -> None:
    put(tmp_path, "file.jpg")
    with pytest.raises(SourceError, match="is not a folder"):
        open_source(str(tmp_path / "file.jpg"))


def test_files_without_a_known_ending(here: Path) -> None:
    put(here, "x.data")
    with pytest.raises(SourceError, match=r"x\.data has no known ending") as caught:
        detect("x.data")
    assert "--source-format" in caught.value.hint
    assert detect("x.data", "tar") == Detected("tar", str(here), "x.data")
    assert detect("x.lst", "manifest") == Detected("manifest", str(here), "x.lst")
    with pytest.raises(SourceError, match="takes a folder"):
        detect("x.data", "folder")


@pytest.mark.parametrize(
    ("name", "what", "instead"), [("x.json", "is JSON", "jq -c '.images[]'"), ("X.XLSX", "is a spreadsheet", "CSV")]
)
def test_lists_in_another_form_say_how_to_save_them(name: str, what: str, instead: str, here: Path) -> None:
    put(here, name)
    with pytest.raises(SourceError, match=f"{name} {what}, which is not read") as caught:
        detect(name)
    assert instead in caught.value.hint


def test_an_unknown_kind(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no kind of source 'zip'") as caught:
        open_source(str(tmp_path), kind="zip")
    assert "folder" in caught.value.hint


def test_secrets_are_in_no_root_and_no_pattern() -> None:
    spec = "https://me:pa55@host/x/{0..1}.tar?sig=s1gn&part=2"
    found = detect(spec, offline=True)
    assert found == Detected("tar", "https://host/x", "{0..1}.tar[?]part=2")
    with pytest.raises(SourceError) as caught:
        detect("https://me:pa55@host/x.tar.gz?sig=s1gn")
    assert "pa55" not in str(caught.value) + caught.value.hint
    assert "s1gn" not in str(caught.value) + caught.value.hint


def in_bash(text: str) -> list[str]:
    done = subprocess.run(["bash", "-fc", f"printf '%s\\n' {text}"], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


RANGES = ["{1..3}", "{03..1}", "{-2..10..4}", "{c..e}", "{e..a..2}", "{08..10}", "{-05..5..5}"]
LISTS = st.recursive(
    st.sampled_from(["a", "b.tar", "{q}", "{}", *RANGES]),
    lambda inner: st.one_of(
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: "{" + ",".join(parts) + "}"),
        st.lists(inner, min_size=1, max_size=3).map("".join),
    ),
    max_leaves=6,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(LISTS)
def test_braces_are_those_of_bash(text: str) -> None:
    assert expand_braces(text) == in_bash(text)


@pytest.mark.parametrize("text", ["{a", "a}", "{a,b", "{1..}", "{1..2..}", "a{1..b}", "{,a}b", "{a,}", "{0001..2}"])
def test_odd_braces_are_those_of_bash(text: str) -> None:
    assert [name for name in expand_braces(text) if name] == in_bash(text)


@given(st.text(alphabet="ab{},.*?[]!1", max_size=12))
def test_an_escaped_name_is_itself(name: str) -> None:
    assert expand_braces(escape(name)) == [escape(name)]
    assert literal(escape(name)) == name
