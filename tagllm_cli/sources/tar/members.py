"""The members of a tar archive, found by its headers from front to back; nothing is unpacked."""

from __future__ import annotations

import contextlib
import tarfile
from collections.abc import Iterator
from typing import Final, Protocol, Self

from tagllm_cli.records import Failure
from tagllm_cli.sources.base import ReadFailure
from tagllm_cli.sources.formats import recognize
from tagllm_cli.text import one_line

BLOCK: Final = 512
_REGULAR: Final = ord("0")
_GNU_MAGIC = b"ustar  \0"  # incremental archives have times where others have the first part of a long name

# A member's long name and PAX records are held in memory; no file system has paths of this length.
_MOST_HEADER_BYTES = 1 << 20
_EXTENDED = frozenset(b"LKxgX")

# Zeros fill up the last record of an archive: 10 KiB, with `tar -b` up to about this. A download that reserved its
# space and was interrupted ends in more of them.
_MOST_PADDING = 1 << 20

_COPY_AGAIN = "copy or download it again"
_PACK_AGAIN = "pack the archive again"


class TarBytes(Protocol):
    """What an archive is read from. Going back is asked for only to where the last block read began."""

    def read(self, size: int, /) -> bytes:
        """Return `size` bytes, fewer only at the end."""

    def seek(self, position: int, /) -> int:
        """Go to an absolute position."""

    def tell(self) -> int:
        """Return the position."""


class _Header(tarfile.TarInfo):
    """A member; of regular files only what is needed is read, in 10 us instead of 26."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Return the member of a block as tarfile does, but without owner, mode and times of a regular file."""
        member = None
        if len(buf) == BLOCK and buf[156] == _REGULAR:
            with contextlib.suppress(ValueError):  # numbers that are not octal
                member = cls._regular(buf, encoding, errors)
        if member is None:
            member = super().frombuf(buf, encoding, errors)
        if member.size < 0 or (buf[156] in _EXTENDED and member.size > _MOST_HEADER_BYTES):
            raise tarfile.HeaderError(f"a header of {member.size} bytes")
        return member

    @classmethod
    def _regular(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self | None:
        if int(buf[148:156].partition(b"\0")[0], 8) != 256 + sum(buf[:148]) + sum(buf[156:]):
            return None  # or the sum of signed bytes
        member = cls(buf[:100].partition(b"\0")[0].decode(encoding, errors))
        member.size = int(buf[124:136].partition(b"\0")[0], 8)
        if buf[345] and buf[257:265] != _GNU_MAGIC:
            member.name = f"{buf[345:500].partition(bytes(1))[0].decode(encoding, errors)}/{member.name}"
        return member


class _Archive(tarfile.TarFile):
    """tarfile's reader of headers, which keeps no list of members and names every error."""

    def next(self) -> tarfile.TarInfo | None:
        """Read nothing: the constructor asks for the first member."""
        return None

    def following(self) -> tarfile.TarInfo:
        """Return the member whose headers begin at `offset`. Raises what tarfile and the file do."""
        assert self.fileobj is not None
        if self.offset != self.fileobj.tell():
            self.fileobj.seek(self.offset)
        return self.tarinfo.fromtarfile(self)


def walk(file: TarBytes, size: int) -> Iterator[tarfile.TarInfo]:
    """Yield the members of the archive that begins where the file stands, with `offset_data` and `size` in bytes.

    `size` is that of the file; -1: not known, then the last member's data may be cut. Archives that were joined are all
    read, as by `tar --ignore-zeros`. Raises ReadFailure behind the last whole member of a damaged file: `empty_file`,
    `not_a_tar`, `truncated_file`, `corrupt_file`, and what the file raises.
    """
    # tarfile wants a file to write to as well, and uses what TarBytes has.
    archive = _Archive(fileobj=file, tarinfo=_Header, encoding="utf-8", errors="surrogateescape")  # type: ignore[arg-type]
    while True:
        start = archive.offset
        try:
            member = archive.following()
        except (ReadFailure, OSError):
            raise
        except Exception as error:  # tarfile raises a dozen kinds for damaged headers, from ValueError to IndexError
            position = _behind_zeros(file, start)
            if position is None:
                return
            if position == start:
                raise _damage(file, start, error) from error
            archive.offset = position
            continue
        if member.size < 0:  # PAX records may say so, and lead back to where this member begins
            raise ReadFailure("corrupt_file", f"the archive is damaged at byte {start}; {_COPY_AGAIN}")
        if 0 <= size < (member.offset_data + member.size if is_plain(member) else archive.offset):
            raise cut_short(size, member.name)
        yield member
        if 0 <= size < archive.offset:
            raise cut_short(size, member.name)


def is_plain(member: tarfile.TarInfo) -> bool:
    """Tell whether the member's data lies in the archive as it is."""
    return member.isreg() and member.sparse is None


def refusal(member: tarfile.TarInfo) -> ReadFailure:
    """Return why the data of a member that is not plain is not read."""
    target = one_line(repr(member.linkname))
    if member.issparse():
        return ReadFailure("unsupported_format", f"a sparse entry is not read; {_PACK_AGAIN} without --sparse")
    if member.issym():
        return ReadFailure("not_a_file", f"a symbolic link to {target}; {_PACK_AGAIN} with --dereference")
    if member.islnk():
        reason = f"a hard link to {target}, which is no image before it"
        return ReadFailure("not_a_file", f"{reason}; {_PACK_AGAIN} with --hard-dereference")
    what = f"an entry of type {member.type.decode('latin-1')!r}"
    if member.isdev():
        what = "a FIFO" if member.isfifo() else "a device"
    return ReadFailure("not_a_file", f"{what}, not a regular file")


def cut_short(position: int, name: str) -> ReadFailure:
    """Return the failure of an archive that ends at a position in bytes, while a member is read."""
    reason = f"the archive ends too early, at byte {position} in {one_line(repr(name))}"
    return ReadFailure("truncated_file", f"{reason}; {_COPY_AGAIN}")


def _behind_zeros(file: TarBytes, start: int) -> int | None:
    """Return where the first block lies that is not of zeros, from one that could not be read on; None: at the end."""
    if file.tell() > start + BLOCK:  # more was read than one block, and so it is not of zeros
        return start
    file.seek(start)
    position = start
    while block := file.read(BLOCK):
        if block.strip(b"\0"):
            return position
        position += len(block)
    if position == 0:
        raise ReadFailure("empty_file", f"0 bytes; {_COPY_AGAIN}")
    if position - start > _MOST_PADDING:
        reason = f"the archive ends in {position - start} bytes of zeros, as an interrupted copy leaves them"
        raise ReadFailure("truncated_file", f"{reason}; {_COPY_AGAIN}")
    return None


def _no_tar(head: bytes) -> ReadFailure:
    found = recognize(head)
    what = found.message if isinstance(found, Failure) else f"an image ({found.name})"
    advice = "decompress it" if "gzip" in what else "unpack it" if "zip" in what else _COPY_AGAIN
    return ReadFailure("not_a_tar", f"not a tar archive but {what}; {advice}")


def _damage(file: TarBytes, start: int, error: Exception) -> ReadFailure:
    """Return the failure of an archive whose headers at `start` cannot be read."""
    if start == 0 and file.tell() <= BLOCK:
        file.seek(0)
        head = file.read(BLOCK)
        if head[257:262] != b"ustar":
            return _no_tar(head)
    if not file.read(1):
        return ReadFailure("truncated_file", f"the archive ends too early, in a header at byte {start}; {_COPY_AGAIN}")
    said = one_line(error, 80) if isinstance(error, tarfile.TarError) else "headers that make no sense"
    reason = f"the archive is damaged at byte {start} ({said})"
    return ReadFailure("corrupt_file", f"{reason}, and what follows is not read; {_COPY_AGAIN}")
