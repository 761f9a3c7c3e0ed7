"""Summary of an import: `to_json` for programs, `lines` for people."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tagllm_cli.evaluation.human_labels.options import ImportOptions
from tagllm_cli.labeling.human_changes import Changes
from tagllm_cli.store.people import People, many
from tagllm_cli.store.table import label_table_of
from tagllm_cli.text import one_line, shortened

_EXAMPLES = 3
_FILES = 5


@dataclass(slots=True)
class FileSummary:
    """What one file said, and what of it could not be used; see `FileDecisions` and `Match`."""

    path: Path
    form: str
    statements: int
    images: int
    missing_images: Sequence[str]
    missing_labels: Sequence[str]
    unread: Sequence[str]
    by_file_name: bool
    contradictions: int
    unchanged: int
    left_out: int
    in_future: int
    kept: int
    is_explicit: bool
    checked: int
    notes: Sequence[str]
    warnings: Sequence[str]
    recorded: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {
            "file": str(self.path),
            "form": self.form,
            "decisions": self.statements,
            "images": self.images,
            "checked": self.checked,
            "recorded": self.recorded,
            "contradictions": self.contradictions,
            "unchanged": self.unchanged,
            "not_chosen": self.left_out,
            "in_future": self.in_future,
            "by_file_name": self.by_file_name,
            "images_not_in_table": list(self.missing_images),
            "labels_not_in_vocabulary": list(self.missing_labels),
            "images_never_read": list(self.unread),
            "notes": list(self.notes),
            "warnings": list(self.warnings),
        }

    def line(self) -> str:
        """Return what it said, for people."""
        found = f"{many(self.statements, 'decision')} about {many(self.images, 'image')}"
        unchanged = f", {self.unchanged:,} as the table says" if self.unchanged else ""
        return f"{self.path} ({self.form}): {found}, {self.recorded:,} new{unchanged}"

    def problems(self) -> Iterator[str]:
        """Yield what of the file could not be used, or may be wrong with it, a line each."""
        yield from (f"{self.path}: {each}" for each in self.warnings)
        for names, what in (
            (self.missing_images, "images are not in the table"),
            (self.missing_labels, "labels are not in the vocabulary"),
            (self.unread, "images were never read, so that nothing can be recorded about them"),
        ):
            if names:
                shown = shortened([one_line(name, 80) for name in names], _EXAMPLES)
                yield f"{self.path}: {len(names):,} of its {what}: {shown}"
        if self.contradictions:
            times = "time" if self.contradictions == 1 else "times"
            yield f"{self.path}: {self.contradictions:,} {times} one person says two things of a pair: the later counts"
        if self.in_future:
            decisions = many(self.in_future, "decision")
            yield f"{self.path}: {decisions} from the future, a clock was wrong: the time of the import counts"
        if self.by_file_name:
            yield f"{self.path}: its images lie in other folders; they were found by their file names alone"


@dataclass(slots=True)
class ImportSummary:
    """What an import did, or would do; `people` are all decisions on record after it."""

    table: Path
    stage: str
    files: Sequence[FileSummary]
    changes: Changes
    people: People | None
    names: Sequence[str]
    options: ImportOptions
    seconds: float = 0.0

    @property
    def recorded(self) -> int:
        """How many decisions are new on record."""
        return sum(each.recorded for each in self.files)

    @property
    def next_command(self) -> str:
        """What to run next."""
        table = shlex.quote(str(self.table))
        if self.stage == "candidates":
            return f"tagllm disambiguate {table} --out {shlex.quote(str(label_table_of(self.table)))}"
        return f"tagllm evaluate {table} --truth {table} --human-only"

    def to_json(self) -> dict[str, Any]:
        """Return the summary as plain JSON values."""
        return {
            "command": "import",
            "table": str(self.table),
            "dry_run": self.options.dry_run,
            "recorded": self.recorded,
            "changed": self.changes.to_json(),
            "files": [each.to_json() for each in self.files],
            "people": None if self.people is None else self.people.to_json(self.names),
            "seconds": round(self.seconds, 3),
            "next": self.next_command,
        }

    def lines(self) -> list[str]:
        """Return what was recorded, what it changes, what is on record now and what to run next: four lines in all.

        A line for each file comes before them where there are several.
        """
        pairs, would = self.changes.pairs, "would be " if self.options.dry_run else ""
        verb = "taken back" if self.options.withdraw else "recorded"
        kinds = {
            "added": "added",
            "removed": "removed",
            "settled": "settled otherwise",
            "confirmed": "confirmed",
            "released": "the model's again",
        }
        shown = ", ".join(f"{pairs[kind]:,} {words}" for kind, words in kinds.items() if pairs[kind])
        seconds = f" ({self.seconds:.1f} s)"
        done = f"{self.table}: {many(self.recorded, 'decision')} {would}{verb}"
        shown = f"labels {shown}" if shown else ""
        return [
            *(each.line() for each in self.files[:_FILES] if len(self.files) > 1),
            f"{done}, {self._images()}{seconds}",
            f"{many(self.changes.rows, 'row')} {would}changed: {shown}" if shown else f"no row {would}changed",
            self._people(),
            "next: the same command without --dry-run" if self.options.dry_run else f"next: {self.next_command}",
        ]

    def _images(self) -> str:
        statements = sum(each.statements for each in self.files)
        images = sum(each.images for each in self.files)
        where = self.files[0].path.name if len(self.files) == 1 else many(len(self.files), "file")
        if self.options.complete:  # which says something about all labels, not only about those that are listed
            return f"about {many(images, 'image')} in {where}"
        return f"of {statements:,} about {many(images, 'image')} in {where}"

    def _people(self) -> str:
        people, then = self.people, "on record then" if self.options.dry_run else "on record"
        if people is None:
            return f"{then}: no decision of people"
        known = [who for who in people.who if who]
        by = f" by {shortened(known, _EXAMPLES)}" if known else ""
        disputed = f", {many(len(people.conflicts), 'conflict')}" if people.conflicts else ""
        return f"{then}: {many(people.decisions, 'decision')} about {many(people.images, 'image')}{by}{disputed}"

    def notes(self) -> Iterator[str]:
        """Yield what is worth knowing about the files, a line each."""
        for each in self.files:
            yield from (f"{each.path}: {note}" for note in each.notes)
            if each.left_out:
                yield f"{each.path}: {many(each.left_out, 'decision')} about labels that --labels does not name"
            if each.kept and not self.options.withdraw:
                what = "count as yes with" if self.options.complete else "are no human decisions without"
                yield f"{each.path}: labels that nobody touched, {each.kept:,}, {what} --complete"
            if not (each.is_explicit or self.options.complete or self.options.withdraw):
                yield (
                    f"{each.path}: only what is listed was recorded; with --complete, every other label of its "
                    f"{many(each.checked, 'image')} is no"
                )

    def warnings(self) -> Iterator[str]:
        """Yield what may be wrong, a line each."""
        for each in self.files:
            yield from each.problems()
        if self.people is None:
            return
        if conflicts := self.people.conflicts:
            yield (
                f"people disagree about {many(len(conflicts), 'pair')} of image and label, and the later decision "
                f"counts (first: {one_line(conflicts[0], 200)})"
            )
        yield from self.people.problems(self.names)
