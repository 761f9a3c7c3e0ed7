"""SQLite is kept off network file systems, by the mount that a path lies on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tagllm_cli.errors import TableError
from tagllm_cli.store import mounts
from tagllm_cli.store.evidence import Evidence
from tests.support.workspace import snapshot

MOUNTINFO = r"""22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / /data rw - nfs4 server:/export rw,vers=4.2
31 30 8:2 / /data/local rw - xfs /dev/sdb1 rw
32 22 0:41 / /scratch rw master:2 propagate_from:1 - lustre mds@tcp:/scratch rw
33 22 0:42 / /mnt/my\040share rw - cifs //nas/share rw
34 22 0:43 / /mnt/home rw - fuse.sshfs me@host: rw
35 22 0:44 / /mnt/pool rw - fuse.mergerfs a:b rw
36 22 8:3 / /over rw - nfs server:/old rw
37 22 8:3 / /over rw - tmpfs tmpfs rw
nonsense
"""


@pytest.mark.parametrize(
    ("path", "point", "kind"),
    [
        ("/home/me/c.evidence", "/", "ext4"),
        ("/data/c.evidence", "/data", "nfs4"),
        ("/database/c.evidence", "/", "ext4"),
        ("/data/local/c.evidence", "/data/local", "xfs"),
        ("/data/localhost/c.evidence", "/data", "nfs4"),
        ("/scratch", "/scratch", "lustre"),
        ("/mnt/my share/deep/c.evidence", "/mnt/my share", "cifs"),
        ("/over/c.evidence", "/over", "tmpfs"),
    ],
)
def test_the_longest_mount_point_above_a_path_counts(path: str, point: str, kind: str) -> None:
    assert mounts.find_mount(path, MOUNTINFO) == (point, kind)


def test_without_a_mount_nothing_is_known() -> None:
    assert mounts.find_mount("/x", "") is None


@pytest.mark.parametrize(
    "kind", ["nfs", "nfs4", "lustre", "gpfs", "cifs", "smb3", "beegfs", "fuse.sshfs", "fuse.s3fs", "fuse.rclone"]
)
def test_file_systems_of_other_machines_are_known(kind: str) -> None:
    assert mounts.is_network(kind)


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "9p", "fuse", "fuseblk", "nfsd"])
def test_local_ones_are_not_taken_for_them(kind: str) -> None:
    assert not mounts.is_network(kind)
    assert not mounts.is_network("fuse.mergerfs")


@pytest.fixture
def mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that a faked mount table says is on NFS."""
    table, folder = tmp_path / "mountinfo", tmp_path / "nfs"
    folder.mkdir()
    table.write_text(f"{MOUNTINFO}40 22 0:50 / {folder} rw - nfs4 server:/photos rw\n")
    monkeypatch.setattr(mounts, "MOUNTS", table)
    return folder


def test_evidence_on_a_network_file_system_is_refused_in_words(mounted: Path) -> None:
    with pytest.raises(TableError, match=r"would lie on a network file system \(nfs4 at .*/nfs\)") as raised:
        Evidence(mounted / "deep" / "c.evidence")
    assert "local disk" in raised.value.hint
    assert snapshot(mounted) == {}
    with Evidence(mounted.parent / "c.evidence"):
        pass


def test_a_link_onto_a_network_file_system_is_seen_through(mounted: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(mounted)
    with pytest.raises(TableError, match="network file system"):
        Evidence(tmp_path / "link" / "c.evidence")


def test_where_there_is_no_mount_table_nothing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounts, "MOUNTS", tmp_path / "none")
    with Evidence(tmp_path / "c.evidence"):
        pass
