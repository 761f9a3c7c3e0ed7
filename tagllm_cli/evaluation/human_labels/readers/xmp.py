"""XMP sidecars: the keywords that people added to photographs, or removed, in photo software.

A keyword that tagllm wrote and nobody touched is no human decision (`HumanLabels.kept`); one that is missing was
removed, which is a no (see `store.xmp.keywords`). What is no label of the table is people's own: holidays, places.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from tagllm_cli.evaluation.human_labels.base import NO, YES, CheckedImage, HumanLabels, Reader, Statement
from tagllm_cli.evaluation.truth.base import TruthFile
from tagllm_cli.evaluation.truth.paths import without_ending
from tagllm_cli.store.xmp.elements import XmpError
from tagllm_cli.store.xmp.keywords import Keywords, ending_of_image
from tagllm_cli.store.xmp.packet import Packet
from tagllm_cli.text import shortened

ENDING = ".xmp"


def recognizes(file: TruthFile) -> bool:
    """Return whether this is a sidecar, or a folder with some."""
    if file.is_folder:
        return next(_sidecars(file.path), None) is not None
    return file.path.suffix.lower() == ENDING or "<x:xmpmeta" in file.start


def read(file: TruthFile) -> HumanLabels:
    """Read every sidecar. Raises UsageError where not one of them can be read."""
    found = _Found(file)
    sidecars = list(_sidecars(file.path)) if file.is_folder else [_alone(file.path)]
    for path, image in sidecars:
        try:
            packet = Packet(path.read_bytes())
            keywords, ending = Keywords.of(packet), ending_of_image(packet)
            modified = path.stat().st_mtime_ns // 1000
        except (XmpError, OSError) as error:
            found.unreadable[path.name] = str(error)
        else:
            found.take(_named(path, image, ending), keywords, keywords.when(modified))
    if len(found.unreadable) == len(sidecars):
        name, why = next(iter(found.unreadable.items()))
        message = f"not one of {len(sidecars):,} XMP sidecars can be read: {name}: {why}"
        raise file.error(message, "Name a folder of sidecars.")
    return found.human_labels(len(sidecars))


@dataclass(slots=True)
class _Found:
    """What was read so far."""

    file: TruthFile
    statements: list[Statement] = field(default_factory=list)
    checked: list[CheckedImage] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)
    others: Counter[str] = field(default_factory=Counter)
    kept: list[Statement] = field(default_factory=list)
    recorded: int = 0

    def take(self, image: str, keywords: Keywords, when: int) -> None:
        """Add what one sidecar says about its image."""
        self.recorded += keywords.is_recorded
        self.checked.append(CheckedImage(image, when=when))
        self.kept += [Statement(image, name, YES, when=when) for name in keywords.untouched if self._knows(name)]
        for decision, names in ((YES, keywords.added), (NO, keywords.removed)):
            for name in names:
                if self._knows(name):
                    self.statements.append(Statement(image, name, decision, when=when))
                elif decision == YES:
                    self.others[name] += 1

    def human_labels(self, files: int) -> HumanLabels:
        """Return it, with what was not taken as notes."""
        notes = []
        if self.others:
            names = shortened([name for name, _ in self.others.most_common()])
            notes.append(f"keywords that are no labels of the table: {self.others.total():,} ({names})")
        if self.recorded:
            notes.append(f"sidecars that tagllm wrote into: {self.recorded:,}")
        warnings = [f"sidecars that cannot be read: {len(self.unreadable):,} ({_first(self.unreadable)})"]
        return HumanLabels(
            self.statements,
            self.checked,
            f"XMP keywords, {files:,} sidecars",
            self.kept,
            is_explicit=self.recorded > 0,
            notes=tuple(notes),
            warnings=tuple(warnings if self.unreadable else ()),
        )

    def _knows(self, name: str) -> bool:
        return self.file.table is None or self.file.table.knows(name)


def _first(unreadable: dict[str, str]) -> str:
    return shortened([f"{name}: {why}" for name, why in unreadable.items()], 3)


def _sidecars(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield every sidecar below a folder with the image that it is about, relative to the folder.

    `a.jpg.xmp` names its image; that of `a.xmp` is the one of this name beside it, else its ending is not known.
    """
    for above, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        images = Counter(without_ending(name) for name in names if without_ending(name) != name)
        by_stem = {without_ending(name): name for name in names if images[without_ending(name)] == 1}
        for name in sorted(names):
            if name.lower().endswith(ENDING):
                image = name[: -len(ENDING)]
                yield Path(above, name), Path(above, by_stem.get(image, image)).relative_to(folder).as_posix()


def _named(path: Path, image: str, ending: str) -> str:
    """Return the image of `a.xmp` that says the ending of its image, whatever lies beside it."""
    if not ending or without_ending(path.stem) != path.stem:
        return image
    return str(PurePosixPath(image).with_name(f"{path.stem}.{ending}"))


def _alone(path: Path) -> tuple[Path, str]:
    return path, path.name[: -len(ENDING)] if path.name.lower().endswith(ENDING) else path.name


READER = Reader("XMP keywords", recognizes, read)
