"""A file is replaced whole or not at all, links stay, nothing is left beside it; impossible paths are refused first."""

from __future__ import annotations

import fcntl
import os
import re
import stat
from pathlib import Path

import pytest

from tagllm_cli.errors import TableError, UsageError
from tagllm_cli.store.atomic import check_writable_path, file_state, replacing, starts_with
from tests.support.workspace import snapshot


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file that holds `old`."""
    path = tmp_path / "cards.yaml"
    path.write_text("old")
    return path


def replaced(path: Path, text: str = "new") -> Path:
    """Replace a file's content and return where it was written first."""
    with replacing(path) as new:
        new.write_text(text)
    return new


def interrupted(path: Path, error: BaseException, kind: type[UsageError] = UsageError) -> None:
    """Write half of a file, then raise."""
    with replacing(path, kind) as new:
        new.write_text("half")
        raise error


def test_the_new_file_takes_the_place_of_the_old(path: Path) -> None:
    with replacing(path) as new:
        new.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("no"), OSError(28, "No space left on device")])
def test_an_exception_leaves_the_old_file(path: Path, error: BaseException) -> None:
    with pytest.raises(UsageError if isinstance(error, OSError) else type(error)):
        interrupted(path, error)
    assert snapshot(path.parent) == {"cards.yaml": b"old"}


def test_the_error_is_of_the_kind_that_was_named(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"cannot write .*labels\.parquet: No space left"):
        interrupted(tmp_path / "labels.parquet", OSError(28, "No space left on device"), TableError)


def test_a_link_stays_and_its_target_is_replaced(path: Path, tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    link, chain = tmp_path / "shared" / "link.yaml", tmp_path / "chain.yaml"
    link.symlink_to("../cards.yaml")
    chain.symlink_to("shared/link.yaml")
    replaced(chain)
    assert (os.readlink(link), os.readlink(chain)) == ("../cards.yaml", "shared/link.yaml")
    assert not path.is_symlink()
    assert path.read_text() == "new"


def test_a_link_to_nothing_gets_its_target(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("later/target")
    replaced(link)
    assert (link.is_symlink(), (tmp_path / "later" / "target").read_text()) == (True, "new")


def test_a_folder_is_replaced_and_a_new_one_made(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    for name in ("first", "second"):
        with replacing(out) as new:
            (new / "data").mkdir(parents=True)
            (new / "data" / name).touch()
    assert list(snapshot(tmp_path)) == ["deep", "deep/out", "deep/out/data", "deep/out/data/second"]


def test_the_temporary_name_cannot_be_guessed_and_its_folder_is_private(path: Path) -> None:
    with replacing(path) as first:
        assert stat.S_IMODE(first.parent.stat().st_mode) == 0o700
        assert first.parent.parent == path.parent
        first.write_text("new")
    assert replaced(path).parent.name != first.parent.name


def test_links_laid_under_former_names_are_not_followed(path: Path, tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    former = replaced(path).parent.name
    for name in (".cards.yaml.new", former, former[:-1] + "x"):
        (tmp_path / name).symlink_to("victim")
    replaced(path, "newer")
    assert (tmp_path / "victim").read_text() == "precious"
    assert path.read_text() == "newer"


def leftover(path: Path) -> Path:
    """Make the folder that a killed process leaves behind."""
    folder = path.with_name(re.sub(r"[^-]*$", "killed", replaced(path).parent.name))
    folder.mkdir()
    (folder / "new").write_text("half")
    return folder


def test_what_a_killed_process_left_is_removed_by_the_next_write_of_the_same_file(path: Path, tmp_path: Path) -> None:
    left = leftover(path)
    replaced(tmp_path / "other")
    assert left.exists()
    replaced(path)
    assert not left.exists()


def test_what_another_process_is_writing_stays(path: Path) -> None:
    left = leftover(path)
    descriptor = os.open(left, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    replaced(path)
    assert left.exists()
    os.close(descriptor)


def test_a_file_keeps_its_permissions(path: Path) -> None:
    path.chmod(0o640)
    replaced(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.parametrize("text", ["", "id,labels\n"])
def test_our_own_and_nothing_is_replaced(path: Path, text: str) -> None:
    path.write_text(text)
    with replacing(path, is_ours=starts_with(b"id,")) as new:
        new.write_text("id,new")
    assert path.read_text() == "id,new"


def test_what_is_not_ours_stays_where_that_is_asked(path: Path) -> None:
    with pytest.raises(UsageError, match="holds something else"), replacing(path, is_ours=starts_with(b"id,")):
        raise AssertionError("not reached")
    assert snapshot(path.parent) == {"cards.yaml": b"old"}


def test_the_state_of_a_file_changes_with_its_size_and_time(path: Path) -> None:
    os.utime(path, ns=(0, 5))
    assert file_state(path) == [3, 5]
    assert file_state(path.parent) is None
    assert file_state(path.with_name("none")) is None
    assert file_state(path / "below") is None


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("s3://my-bucket/c.parquet", r"^s3://my-bucket/c\.parquet is a URL"),
        ("gs://b/deep/c.parquet", r"^gs://b/deep/c\.parquet is a URL"),
        ("file:///tmp/c.parquet", "is a URL"),
        ("c.evidence", "is the name of an evidence file"),
        ("folder", "is a folder"),
        ("file/c.parquet", "cannot write below .*file: it is not a folder"),
        ("file/deep/er/c.parquet", "cannot write below .*file: it is not a folder"),
        ("x" * 300, "File name too long"),
        ("loop/c.parquet", "loop"),
    ],
)
def test_an_output_that_can_never_be_written_is_refused(elsewhere: Path, out: str, said: str) -> None:
    (elsewhere / "folder").mkdir()
    (elsewhere / "file").touch()
    (elsewhere / "loop").symlink_to("loop")
    before = snapshot(elsewhere)
    with pytest.raises(TableError, match=said) as raised:
        check_writable_path(Path(out), TableError)
    assert raised.value.hint
    assert snapshot(elsewhere) == before


@pytest.mark.parametrize("out", ["c.parquet", "new/deep/c.parquet", "a:b/c.parquet", "s3:/c.parquet", "dangling"])
def test_other_outputs_are_not(elsewhere: Path, out: str) -> None:
    (elsewhere / "s3:").mkdir()
    (elsewhere / "dangling").symlink_to("nothing")
    check_writable_path(Path(out))
    check_writable_path(elsewhere, may_be_folder=True)


def test_a_folder_that_takes_no_files_is_refused_before_anything_else(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (elsewhere / "there").touch()
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    with pytest.raises(UsageError, match="takes no new files"):
        check_writable_path(Path("new"))
    check_writable_path(Path("there"))
