"""Which paths lie on a network file system: SQLite's write-ahead log and locks do not work there."""

from __future__ import annotations

import os
import re
from pathlib import Path

from tagllm_cli.errors import TableError

MOUNTS = Path("/proc/self/mountinfo")

# Behind FUSE: only what another machine holds; mergerfs, overlay or encfs are as local as the disks below them.
_NETWORK = re.compile(
    r"nfs4?|lustre|gpfs|cifs|smb[23]|smbfs|ncpfs|afs|ceph|glusterfs|beegfs|fhgfs|pvfs2|orangefs|wekafs|panfs|cvfs"
    r"|fuse\.(sshfs|smbnetfs|curlftpfs|davfs2?|s3fs|goofys|geesefs|mountpoint-s3|gcsfuse|blobfuse2?|rclone|juicefs"
    r"|seaweedfs|alluxio|glusterfs|ceph(-fuse)?|lizardfs|moosefs|hdfs|cvmfs)"
)


def refuse_network_mount(path: Path) -> None:
    """Raise TableError if a file at `path` would lie on a network file system (Linux; elsewhere nothing is known)."""
    try:
        mounts = MOUNTS.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return
    found = find_mount(os.path.realpath(path), mounts)
    if found is not None and is_network(found[1]):
        raise TableError(
            f"{path} would lie on a network file system ({found[1]} at {found[0]}), where SQLite loses data",
            "Put --out on a local disk, and copy the table when the run is finished.",
        )


def find_mount(path: str, mountinfo: str) -> tuple[str, str] | None:
    """Return (mount point, file system type) of an absolute path, given the text of /proc/self/mountinfo.

    A line: `36 35 98:0 /root /mount/point rw,noatime master:1 - ext4 /dev/sda1 rw`; proc_pid_mountinfo(5).
    """
    best: tuple[str, str] | None = None
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, types = before.split(" "), after.split(" ")
        if len(fields) < 5 or not types[0]:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[4])
        covers = path == point or path.startswith(point.rstrip("/") + "/")
        if covers and (best is None or len(point) >= len(best[0])):  # of two at one point, the later one is on top
            best = (point, types[0])
    return best


def is_network(filesystem: str) -> bool:
    """Tell whether a file system type (`nfs4`, `fuse.sshfs`) is one that another machine holds."""
    return _NETWORK.fullmatch(filesystem) is not None
