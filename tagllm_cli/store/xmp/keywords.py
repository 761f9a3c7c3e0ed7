"""Keywords of a photograph: what people wrote, what tagllm wrote, and how new labels are merged with both.

Photo software keeps a keyword in up to three properties: flat in `dc:subject`, and as a path in
`lr:hierarchicalSubject` (Lightroom, darktable: `animal|cat`) and `digiKam:TagsList` (`animal/cat`). What of them is
ours is on record in properties of the same names in our own namespace; everything else is people's:

    in the property and on record      ours, and nobody touched it
    in the property only               somebody wrote it
    on record only                     somebody removed it

Names are compared without case, as photo software does.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from tagllm_cli.store.xmp.elements import XmpError
from tagllm_cli.store.xmp.packet import EMPTY_PACKET, Name, Packet, can_hold

SUBJECT = Name("http://purl.org/dc/elements/1.1/", "subject", "dc")
HIERARCHICAL_SUBJECT = Name("http://ns.adobe.com/lightroom/1.0/", "hierarchicalSubject", "lr")
TAGS_LIST = Name("http://www.digikam.org/ns/1.0/", "TagsList", "digiKam", "Seq")
PROPERTIES = (SUBJECT, HIERARCHICAL_SUBJECT, TAGS_LIST)
SEPARATORS = {HIERARCHICAL_SUBJECT: "|", TAGS_LIST: "/"}

_URI = "urn:tagllm:xmp:1.0:"
_RECORDS = {each: Name(_URI, each.local, "tagllm", each.array) for each in PROPERTIES}
_TIMES = Name(_URI, "times", "tagllm")  # of our last write; of the last change before it that was not ours
_RAW_ENDING = Name("http://ns.adobe.com/photoshop/1.0/", "SidecarForExtension", "photoshop")
_CLOCKS_DIFFER = 2_000_000  # microseconds: file systems keep times to 2 s (FAT)


class Keyword(NamedTuple):
    """A label as keywords: its text in each property, none in a property that cannot hold it."""

    texts: Mapping[Name, str]

    @property
    def flat(self) -> str:
        """The label's name."""
        return self.texts[SUBJECT]


def keyword(name: str, above: Sequence[str] = ()) -> Keyword:
    """Return the keyword of a label below the parents `above`; a path whose parts hold its separator is not written.

    Raises XmpError for a name that XML cannot hold.
    """
    parts = [*above, name]
    if bad := next((part for part in parts if not can_hold(part)), None):
        raise XmpError(f"the name {bad!r} holds a control character, which XML cannot hold")
    paths = {
        each: mark.join(parts)
        for each, mark in SEPARATORS.items()
        if not any(mark in part or not part for part in parts)
    }
    return Keyword({SUBJECT: name, **paths})


def ending_of_image(packet: Packet) -> str:
    """Return the ending of the image that a packet says to be about, as Lightroom has it (`CR3`); "" without one."""
    return next(iter(packet.values(_RAW_ENDING)), "").strip().lstrip(".").lower()


@dataclass(frozen=True, slots=True)
class Keywords:
    """The keywords of a packet. `values` are those of each property, `ours` those that tagllm put there.

    Times are microseconds since the epoch, in UTC; None where the packet does not say: `written` is that of our last
    write, `changed` that of the last change before it that was not ours.
    """

    values: Mapping[Name, Sequence[str]]
    ours: Mapping[Name, Sequence[str]]
    written: int | None = None
    changed: int | None = None

    @classmethod
    def of(cls, packet: Packet) -> Keywords:
        """Read the keywords of a packet."""
        times = sorted(filter(None, map(_microseconds, packet.values(_TIMES))))
        return cls(
            {each: packet.values(each) for each in PROPERTIES},
            {each: packet.values(record) for each, record in _RECORDS.items()},
            times[-1] if times else None,
            times[0] if len(times) > 1 else None,
        )

    @property
    def is_recorded(self) -> bool:
        """Whether tagllm has written keywords here."""
        return any(self.ours.values())

    @property
    def removed(self) -> list[str]:
        """The flat keywords of ours that somebody removed."""
        return _without(self.ours[SUBJECT], self.values[SUBJECT])

    @property
    def untouched(self) -> list[str]:
        """The flat keywords of ours that are still there."""
        return _without(self.ours[SUBJECT], self.removed)

    @property
    def added(self) -> list[str]:
        """The names that somebody wrote: flat keywords, and last parts of paths.

        A flat keyword that is a parent in a path, and nothing else, is left out: Lightroom writes parents as well.
        """
        parents: dict[str, None] = {}
        leaves: dict[str, str] = {}
        for name, mark in SEPARATORS.items():
            for path in self.values[name]:
                *above, last = (part.strip() for part in path.split(mark))
                parents.update(dict.fromkeys(part.casefold() for part in above))
                leaves.setdefault(last.casefold(), last)
        own = {text.casefold() for text in self.ours[SUBJECT]}
        flat = {text.casefold(): text for text in self.values[SUBJECT] if text.strip()}
        said = {text: name for text, name in flat.items() if text not in parents or text in leaves}
        said |= {text: name for text, name in leaves.items() if text not in flat}
        return [name for text, name in said.items() if name and text not in own]

    def when(self, modified: int) -> int:
        """Return when somebody last changed the file, by the file's own time `modified`: our writes do not count."""
        if self.written is None or self.changed is None or modified > self.written + _CLOCKS_DIFFER:
            return modified
        return self.changed


@dataclass(frozen=True, slots=True)
class Merged:
    """A merged packet: its bytes, None where nothing had to change, and the labels that stay removed from it."""

    data: bytes | None
    kept_out: tuple[str, ...] = ()


def merged(
    data: bytes,
    keywords: Iterable[Keyword],
    *,
    settled: Iterable[str] = (),
    restore: bool = False,
    now: int,
    modified: int | None = None,
) -> Merged:
    """Merge labels into a packet (empty: there is none), by what is on record in it.

    Ours that are no longer labels are taken out. A keyword that somebody removed is not put back, unless with
    `restore`; its removal stays on record until its name is among `settled`, the labels that the table lacks because a
    person said so. `now` and `modified`, when the file was last written, are in microseconds. Raises XmpError for a
    packet that cannot be read or edited.
    """
    packet = Packet(data or EMPTY_PACKET)
    found = Keywords.of(packet)
    removed = set(map(str.casefold, found.removed))
    every = {each.flat.casefold(): each for each in keywords}
    kept_out = () if restore else tuple(each.flat for text, each in every.items() if text in removed)
    wanted = [each for each in every.values() if each.flat not in kept_out]
    done = {text for name in settled if (text := name.casefold()) in removed}
    changes: dict[Name, Sequence[str]] = {}
    for name in PROPERTIES:
        texts = [each.texts[name] for each in wanted if name in each.texts]
        changes[name], changes[_RECORDS[name]] = _merged_values(found, name, texts, done, restore)
    before = {**found.values, **{_RECORDS[name]: found.ours[name] for name in PROPERTIES}}
    if changes == before:
        return Merged(None, kept_out)
    changed = None if modified is None else found.when(modified)
    is_recorded = any(changes[record] for record in _RECORDS.values())
    changes[_TIMES] = [_iso(each) for each in (now, changed) if each is not None] if is_recorded else []
    return Merged(packet.edited(changes), kept_out)


def _merged_values(
    found: Keywords, name: Name, texts: Sequence[str], settled: Collection[str], restore: bool
) -> tuple[list[str], list[str]]:
    """Return what a property holds from now on, and what is on record about it."""
    values, ours = found.values[name], found.ours[name]
    removed = _without(ours, values)
    stale = _without(_without(ours, removed), texts)
    new = _without(texts, values if restore else [*values, *removed])
    mark = SEPARATORS.get(name)
    done = [text for text in removed if (text.rpartition(mark)[2] if mark else text).casefold() in settled]
    return [*_without(values, stale), *new], [*_without(ours, [*stale, *done, *new]), *new]


def _without(texts: Iterable[str], others: Iterable[str]) -> list[str]:
    excluded = {text.casefold() for text in others}
    return [text for text in texts if text.casefold() not in excluded]


def _iso(microseconds: int) -> str:
    return datetime.fromtimestamp(microseconds / 1e6, UTC).isoformat(timespec="microseconds")


def _microseconds(text: str) -> int | None:
    """Return a date of XMP as microseconds; None for what is no date with a time of day."""
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    if len(text.strip()) <= 10:
        return None
    return round((found if found.tzinfo else found.astimezone()).timestamp() * 1e6)
