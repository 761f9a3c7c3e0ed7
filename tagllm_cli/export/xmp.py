"""XMP sidecars with labels as keywords, merged into those that are there, for photo software.

`out` mirrors the folders of the source; where it is the folder of the images, the sidecars lie beside them. Whatever
else is in it stays: only sidecars of images of the table are touched, each replaced by one rename, and of these only
what tagllm wrote (`store.xmp`). So any folder will do, and a killed export goes on when it is started again. A sidecar
that cannot be read, or whose folder may not be written, is left as it is, and its image is left out.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from tagllm_cli.errors import UsageError
from tagllm_cli.export.base import Example, Examples, ExportSettings, ExportSummary, Format, Option
from tagllm_cli.text import shortened

if TYPE_CHECKING:
    from tagllm_cli.export.sidecars import SidecarFolder, SidecarTree
    from tagllm_cli.store.table import Table
    from tagllm_cli.store.xmp.keywords import Keyword, Merged
    from tagllm_cli.vocabulary.model import Label

OPTIONS = {
    "naming": Option("a new sidecar is IMG_1.jpg.xmp (full) or IMG_1.xmp (stem)", "full", ("full", "stem")),
    "hierarchy": Option("write paths (parent and label) beside flat keywords", "yes", ("yes", "no")),
    "under": Option("keywords above all labels, divided by /", ""),
    "restore": Option("put back labels that somebody removed in photo software", "no", ("yes", "no")),
}
_TRIES = 5  # where photo software writes the same sidecar at the same time


def export(table: Table, out: Path, settings: ExportSettings) -> ExportSummary:
    """Write or merge a sidecar per image that has labels, or had any of ours."""
    from tagllm_cli.export.sidecars import SidecarTree

    if settings.split:
        raise UsageError("XMP sidecars lie beside their images: there is nothing to split", "Leave out --split.")
    examples = Examples(table, settings)
    options = settings.format_options
    work = _Work([label.name for label in examples.vocabulary], _keywords(examples.vocabulary, options), options)
    try:
        out.mkdir(parents=True, exist_ok=True)
        with SidecarTree(out) as tree:
            for example, name in _named(examples, out):
                if reason := work.write(tree, name, example):
                    examples.drop(example, reason)
    except OSError as error:
        where = error.filename2 or error.filename or out
        hint = "What was written is whole; the same command goes on from there."
        raise UsageError(f"cannot write {where}: {error.strerror or error}", hint) from error
    summary = examples.summary([out])
    return replace(summary, elsewhere=0, notes=[*summary.notes, *work.notes()])


def _keywords(vocabulary: Sequence[Label], options: Mapping[str, str]) -> list[Keyword]:
    from tagllm_cli.store.xmp.elements import XmpError
    from tagllm_cli.store.xmp.keywords import SUBJECT, Keyword, keyword

    under = [part.strip() for part in options["under"].split("/") if part.strip()]
    try:
        found = [keyword(each.name, [*under, *([each.parent] if each.parent else [])]) for each in vocabulary]
    except XmpError as error:
        raise UsageError(f"a keyword cannot be written: {error}", "Rename the label.") from error
    if options["hierarchy"] == "no":
        return [Keyword({SUBJECT: each.flat}) for each in found]
    return found


def _named(examples: Examples, out: Path) -> Iterator[tuple[Example, str]]:
    """Yield the examples whose images have a place below `out`, with their paths there."""
    root = out.resolve().as_posix().rstrip("/") + "/"
    for example, name in examples.with_file_names():
        below = name.removeprefix(root)
        path = PurePosixPath(below)
        if "://" in below or path.is_absolute() or ".." in path.parts or not path.name:
            examples.drop(example, "elsewhere")
        elif "\0" in below or max(len(part.encode(errors="surrogateescape")) for part in path.parts) > 251:
            examples.drop(example, "bad_name")
        else:
            yield example, below


@dataclass(slots=True)
class _Work:
    """What is written, and what became of the sidecars so far."""

    names: Sequence[str]
    keywords: Sequence[Keyword]
    options: Mapping[str, str]
    counts: Counter[str] = field(default_factory=Counter)
    kept_out: Counter[str] = field(default_factory=Counter)
    unreadable: list[str] = field(default_factory=list)
    locked: list[str] = field(default_factory=list)

    def write(self, tree: SidecarTree, name: str, example: Example) -> str:
        """Bring one sidecar up to date; return why it is left out, "" if it is not."""
        try:
            return self._written(tree, name, example)
        except (PermissionError, UsageError) as error:
            if not isinstance(error.__cause__ or error, PermissionError):
                raise
            self.locked.append(str(PurePosixPath(name).parent))
            return "no_permission"

    def _written(self, tree: SidecarTree, name: str, example: Example) -> str:
        folder = tree.folder_of(name)
        path = folder.sidecar_of(PurePosixPath(name).name, self.options["naming"])
        if path is None:
            return "shared_sidecar"
        try:
            result = self._merge(folder, path, example)
        except ValueError as error:  # XmpError
            self.unreadable.append(f"{path.relative_to(tree.root)}: {error}")
            return "unreadable_sidecar"
        self.counts["written" if result.data is not None else "unchanged"] += 1
        self.kept_out.update(result.kept_out)
        return ""

    def _merge(self, folder: SidecarFolder, path: Path, example: Example) -> Merged:
        from tagllm_cli.export.sidecars import state
        from tagllm_cli.store.xmp.elements import XmpError
        from tagllm_cli.store.xmp.keywords import merged

        for _ in range(_TRIES):
            seen = state(path)
            try:
                data = b"" if seen is None else path.read_bytes()
            except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
                raise XmpError(error.strerror or str(error)) from error
            result = merged(
                data,
                [self.keywords[place] for place in example.labels],
                settled=[self.names[place] for place in example.human - {*example.labels}],
                restore=self.options["restore"] == "yes",
                now=time.time_ns() // 1000,
                modified=None if seen is None else seen.mtime_ns // 1000,
            )
            if result.data is None or folder.put(path, result.data, seen):
                return result
        raise XmpError("another program keeps writing it")

    def notes(self) -> list[str]:
        """Return what the user should know about the sidecars."""
        notes = [f"sidecars written: {self.counts['written']:,}; nothing to change: {self.counts['unchanged']:,}"]
        if self.kept_out:
            names = [name for name, _ in self.kept_out.most_common()]
            notes.append(
                f"labels that somebody removed in photo software, and that were not put back: "
                f"{self.kept_out.total():,} ({shortened(names)}); `tagllm import` takes the removals as decisions, "
                "--option restore=yes puts them back"
            )
        if self.locked:
            notes.append(f"folders whose sidecars you may not write: {shortened(list(dict.fromkeys(self.locked)))}")
        if self.unreadable:
            notes.append(f"sidecars that were left as they are: {shortened(self.unreadable)}")
        return notes


FORMAT = Format(
    "xmp",
    "XMP sidecars with keywords for photo software, merged into those that are there",
    export,
    Path.is_dir,
    lays_out_splits=True,
    options=OPTIONS,
    has_card=False,
)
