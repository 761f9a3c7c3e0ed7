"""Every kind of source from the command line: the same tables, wherever the images lie and wherever they move."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tagllm_cli.records import Row
from tagllm_cli.sources.base import list_images, read_all
from tagllm_cli.sources.registry import open_source
from tagllm_cli.sources.storage.storage import Storage
from tagllm_cli.store.table import open_table
from tests.support.command_line import check_error, one_object, tagllm
from tests.support.concept_workspace import GOOD, WORDS, ConceptWorkspace, see
from tests.support.faulty_proxy import FaultyProxy
from tests.support.object_store import object_store
from tests.support.packing import PER_SHARD, PLACES, files_below, packed, parquet_of, tar_of
from tests.support.scripted_llm import ScriptedLLM
from tests.support.stub_server import stub_server

IMAGES = 12  # so many of the demo's pictures; 5 go into a shard
DEMO = Path(__file__).parents[1] / "demo" / "images"
VOCABULARY = ("--vocab", "voc")


@pytest.fixture(scope="module")
def server() -> Iterator[FaultyProxy]:
    with stub_server() as running:
        yield running


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few of the demo's pictures, in two albums."""
    folder = tmp_path_factory.mktemp("photos")
    for album in ("album-a", "album-b"):
        (folder / album).mkdir()
        for path in sorted((DEMO / album).iterdir())[: IMAGES // 2]:
            shutil.copy(path, folder / album)
    return folder


class Desk:
    """The folder that commands are typed in, with a source and the tables that both stages make of it."""

    def __init__(self, folder: Path, photos: Path, place: str, server: FaultyProxy) -> None:
        self.folder, self.server = folder, server
        self.kind, _, self.where = place.partition(" on ")
        self.source = packed(photos, place, folder / "packed")
        self.types("candidates", self.source, *VOCABULARY, "--out", str(folder / "c.parquet"))
        self.types("disambiguate", str(folder / "c.parquet"), "--out", str(folder / "l.parquet"))

    def types(self, *words: str, exit_code: int = 0) -> Any:
        """Type a command and return its result."""
        result = tagllm(words, self.server.url)
        assert result.exit_code == exit_code, result.output
        return result

    def rows(self, table: str = "l.parquet") -> list[Row]:
        return list(open_table(self.folder / table).rows())

    def said(self, table: str) -> list[Any]:
        """Return what does not depend on where the images lie, in the order of the table."""
        return [(row.fingerprint, row.width, row.height, row.status, row.error, row.labels) for row in self.rows(table)]


@pytest.fixture(scope="module", params=PLACES)
def shared(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, photos: Path, server: FaultyProxy
) -> Desk:
    return Desk(tmp_path_factory.mktemp("desk"), photos, str(request.param), server)


@pytest.fixture
def desk(shared: Desk, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """The commands are typed in the folder of the tables."""
    monkeypatch.chdir(shared.folder)
    return shared


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, photos: Path, server: FaultyProxy) -> Desk:
    """The tables of the plain folder."""
    return Desk(tmp_path_factory.mktemp("expected"), photos, "folder", server)


def copied(source: str, folder: Path) -> str:
    """Return a local folder with the files of a source."""
    if "://" not in source:
        shutil.copytree(source, folder)
        return str(folder)
    storage = Storage(source)
    for file in storage.find(("",)):
        path = folder / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(storage.read_whole(file.name))
    return str(folder)


def uploaded(folder: str) -> str:
    """Return a folder in a new bucket with the files of a local one."""
    return f"{object_store().bucket({f'new/{name}': data for name, data in files_below(Path(folder)).items()})}/new"


def remove(source: str) -> None:
    if "://" not in source:
        shutil.rmtree(source)
        return
    for file in Storage(source).find(("",)):
        object_store().delete(f"{source}/{file.name}")


def images_of(source: str) -> list[bytes]:
    """Return the bytes of a source's images, in order."""
    opened = open_source(source)
    return [data for _, data in read_all(opened, list_images(opened)) if isinstance(data, bytes)]


def test_tables_and_exports_are_the_same_on_every_kind(desk: Desk, expected: Desk, photos: Path) -> None:
    assert (desk.said("c.parquet"), desk.said("l.parquet")) == (expected.said("c.parquet"), expected.said("l.parquet"))
    files = files_below(photos)
    names = list(files)
    for format_ in ("coco", "csv", "jsonl", "hf"):
        told = one_object(desk.types("export", "l.parquet", "--format", format_, "--out", format_, "--json").stdout)
        assert (told["images"], told["left_out"]) == (IMAGES, {})
    assert images_of("hf") == list(files.values())
    if desk.kind == "manifest":
        names = [f"{photos}/{name}" for name in names]
    elif desk.kind != "folder":
        names = [f"{number // PER_SHARD:05}.{desk.kind}/{name}" for number, name in enumerate(names)]
    assert [each["file_name"] for each in json.loads(Path("coco").read_text())["images"]] == names
    assert [row.image_id for row in desk.rows()] == names


def test_a_truth_names_images_by_file_name_or_path(desk: Desk, photos: Path) -> None:
    for form in ("{name}", "{path}", "/elsewhere/{path}"):
        lines = [form.format(path=path, name=Path(path).name) for path in files_below(photos)]
        Path("truth.csv").write_text("image,label\n" + "".join(f"{line},person\n" for line in lines))
        report = one_object(desk.types("evaluate", "l.parquet", "--truth", "truth.csv", "--json").stdout)
        assert report["images"] == IMAGES


@pytest.mark.parametrize("place", [place for place in PLACES if place != "manifest"])
def test_tables_outlive_a_move_of_their_images(
    place: str, tmp_path: Path, photos: Path, server: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    desk = Desk(tmp_path, photos, place, server)
    moved = copied(desk.source, tmp_path / "moved")
    remove(desk.source)
    for command in ("disambiguate c.parquet --out n.parquet", "export l.parquet --format hf --out hf"):
        hint = desk.types(*command.split(), exit_code=2).stderr.splitlines()[-1]
        assert "--root" in hint
        wrong = desk.types(*command.split(), "--root", "nowhere", exit_code=2).stderr.splitlines()
        assert ("nowhere" in wrong[0], wrong[1]) == (
            True,
            f"Give the folder or URL that has taken the place of {desk.source}.",
        )
    for number, root in enumerate((moved, uploaded(moved))):
        desk.types("disambiguate", "c.parquet", "--out", f"l-{number}.parquet", "--root", root)
        assert desk.rows(f"l-{number}.parquet") == desk.rows()
        desk.types("export", "l.parquet", "--format", "hf", "--out", f"hf-{number}", "--root", root)
        assert images_of(f"hf-{number}") == list(files_below(photos).values())


@pytest.mark.parametrize("name", ["images.tar", "images.parquet", "images.csv"])
def test_a_source_of_one_file_may_be_named_by_the_file_after_a_move(
    name: str, tmp_path: Path, photos: Path, server: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(photos, "photos")
    files = files_below(photos)
    lines = "path\n" + "".join(f"../photos/{name}\n" for name in files)
    Path("before").mkdir()
    Path("before", name).write_bytes(
        {".tar": tar_of, ".parquet": parquet_of}.get(Path(name).suffix, lambda files: lines.encode())(files)
    )
    assert tagllm(["candidates", f"before/{name}", *VOCABULARY, "--out", "c.parquet"], server.url).exit_code == 0
    Path("before").rename("after")
    for root in ("after", f"after/{name}"):
        words = ["disambiguate", "c.parquet", "--out", "l.parquet", "--root", root, "--dry-run", "--json"]
        assert one_object(tagllm(words, server.url).stdout)["images"] == IMAGES


NOT_FOR = {
    "--split train": ("folder", "tar", "manifest"),
    "--image-column image": ("folder", "tar"),
    "--id-column id": ("folder", "tar"),
}
UNKNOWN = {
    "--split nope": ("parquet",),
    "--image-column nope": ("parquet", "manifest"),
    "--id-column nope": ("parquet", "manifest"),
}


def test_options_that_a_source_has_no_use_for_are_refused(desk: Desk) -> None:
    line = f"candidates {desk.source} --vocab voc --out new.parquet"
    for options, kinds in NOT_FOR.items():
        if desk.kind in kinds:
            check_error(f"{line} {options}", f"{options.split()[0]} is not for sources of kind {desk.kind!r}", None)
    for options, kinds in UNKNOWN.items():
        if desk.kind in kinds:
            check_error(f"{line} {options}", "'nope'", desk.server.url)


def test_parts_that_do_not_exist_are_refused(expected: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for shard in ("2/2", "-1/2", "1-2", "0/0", "a/b", "1/", "0.5/2"):
        check_error(f"candidates {expected.source} --vocab voc --out new.parquet --shard={shard}", "--shard", None)


def test_what_is_excluded_is_left_out_and_the_kind_can_be_said(desk: Desk) -> None:
    words = ["candidates", desk.source, *VOCABULARY, "--out", "some.parquet", "--source-format", desk.kind]
    pattern = "00001.parquet" if desk.kind == "parquet" else "**/album-a/**"  # of Parquet, files are left out
    desk.types(*words, "--exclude", pattern)
    before, left = ([row.image_id for row in desk.rows(table)] for table in ("l.parquet", "some.parquet"))
    part = "00001.parquet" if desk.kind == "parquet" else "album-a"
    assert left == [name for name in before if part not in name]
    assert len(left) < len(before)


@pytest.mark.parametrize("option", ["--limit", "--sample"])
def test_a_few_images_are_shown_before_they_are_asked_about(option: str, desk: Desk) -> None:
    out = f"few{option}.parquet"
    words = ["candidates", desk.source, *VOCABULARY, "--out", out, option, "3"]
    shown = one_object(desk.types(*words, "--dry-run", "--json").stdout)
    assert (shown["images"], shown["source"]["total"]) == (3, 3)
    assert not Path(out).exists()
    told = one_object(desk.types(*words, "--json").stdout)
    assert told["rows"]["ok"] == 3
    chosen = desk.rows(out)
    assert (len(chosen), {row.image_id for row in chosen} - {row.image_id for row in desk.rows()}) == (3, set())
    asked = len(desk.server.questions)
    desk.types(*words)
    assert len(desk.server.questions) == asked


def test_a_dry_run_reads_no_remote_shard(desk: Desk) -> None:
    if desk.where and desk.kind != "folder":
        store = object_store()
        store.requests.clear()
        words = ["candidates", desk.source, *VOCABULARY, "--out", "new.parquet", "--dry-run", "--json"]
        shown = one_object(desk.types(*words).stdout)["source"]
        assert (shown["unread"], shown["total"], store.opened(desk.source)) == (3, 0, [])


@pytest.mark.parametrize("place", ["tar", "parquet", "manifest", "tar on S3"])
@pytest.mark.parametrize("way", ["--images", "--table"])
def test_cards_are_validated_on_images_of_every_kind(
    place: str, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TAGLLM_LLM_ENDPOINT", raising=False)
    monkeypatch.chdir(tmp_path)
    workspace = ConceptWorkspace(tmp_path / "workspace")
    source = packed(workspace.images, place, tmp_path / "packed")
    with stub_server("rules", see) as model, ScriptedLLM(GOOD, WORDS) as llm:
        if way == "--table":
            words = ["candidates", source, "--vocab", str(workspace.vocabulary), "--out", "c.parquet", "--strategy"]
            assert tagllm([*words, "binary"], model.url).exit_code == 0
        named = [way, source if way == "--images" else "c.parquet", "--truth", str(workspace.truth)]
        words = ["concepts", str(workspace.vocabulary), "--out", "cards.yaml", "--llm-endpoint", llm.url, *named]
        result = tagllm([*words, "--json"], model.url)
    assert result.exit_code == 0, result.output
    assert one_object(result.stdout)["cards"]
    assert "judged by its text" not in result.stderr


def test_images_of_a_table_that_moved_are_named_with_images(
    tmp_path: Path, photos: Path, server: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    desk = Desk(tmp_path, photos, "tar", server)
    remove(desk.source)
    with ScriptedLLM({}, {}) as llm:
        words = ["concepts", "voc", "--out", "cards.yaml", "--table", "l.parquet", "--llm-endpoint", llm.url]
        assert "--images" in desk.types(*words, exit_code=2).stderr.splitlines()[-1]
