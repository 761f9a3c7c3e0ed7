"""`tagllm import`: what files say, matched with a table, recorded in its evidence, and shown by the table at once.

    files -> readers -> match -> decide -> evidence (one commit) -> table (one rename)

Nothing is recorded before every file is read and matched: a file that cannot be used leaves everything as it was.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from tagllm_cli.errors import TableError, UsageError
from tagllm_cli.evaluation.human_labels.base import HumanLabels
from tagllm_cli.evaluation.human_labels.decide import (
    About,
    FileDecisions,
    Origin,
    decisions_of,
    not_on_record,
    withdrawals,
)
from tagllm_cli.evaluation.human_labels.match import Match, TableImages, match_file
from tagllm_cli.evaluation.human_labels.options import ImportOptions
from tagllm_cli.evaluation.human_labels.put_right import Report, TableState, changes_in
from tagllm_cli.evaluation.human_labels.registry import read_human_labels
from tagllm_cli.evaluation.human_labels.summary import FileSummary, ImportSummary
from tagllm_cli.evaluation.truth import TableContext
from tagllm_cli.evaluation.truth.paths import without_ending
from tagllm_cli.records import Decision
from tagllm_cli.store.atomic import check_free_space
from tagllm_cli.store.evidence import Evidence
from tagllm_cli.store.evidence_layout import storable
from tagllm_cli.store.human_labels import WITHDRAWN, HumanDecision
from tagllm_cli.store.merge.parts import evidence_of
from tagllm_cli.store.people import time_of
from tagllm_cli.store.table import Table, open_table
from tagllm_cli.text import one_line, shortened

_CHUNK = 1 << 20
_LARGEST = 1 << 28  # bytes of a file in a folder: what is larger (a shard) holds no labels
_ROWS = 8192
_FEW = 500  # decisions whose images are looked up one by one


def import_files(
    path: Path,
    files: Sequence[Path],
    options: ImportOptions = ImportOptions(),  # noqa: B008 (frozen)
    report: Report = lambda *_: None,
) -> ImportSummary:
    """Take in what people decided about the images of a table; with `dry_run`, only say what would change.

    Raises UsageError, with everything as it was, for a table or a file that cannot be used.
    """
    began = time.monotonic()
    files = list(dict.fromkeys(files))
    table = open_table(path)
    _check(table, files, options)
    with _without_collector(), Evidence(evidence_of(path)) as evidence:
        work = _Import(table, evidence, options, report)
        summary = work.run(files)
        if options.dry_run:
            evidence.rollback()
    summary.seconds = time.monotonic() - began
    return summary


@contextlib.contextmanager
def _without_collector() -> Iterator[None]:
    """Look for no cycles meanwhile: there are none, and going through millions of names takes a sixth of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _check(table: Table, files: Sequence[Path], options: ImportOptions) -> None:
    path, evidence = table.path, evidence_of(table.path)
    if not (evidence.is_file() and evidence.stat().st_size):
        raise TableError(
            f"{path} is there, but its evidence {evidence.name} is not, which keeps what people decide",
            "Put it back beside the table.",
        )
    same = [os.path.realpath(path), os.path.realpath(evidence)]
    if any(os.path.realpath(file) in same for file in files):
        raise UsageError(f"{path} is the table itself, and no file of what people decided", "Name a file after it.")
    names = table.info.vocabulary.names
    if unknown := [name for name in options.labels or () if name not in names]:
        raise UsageError(
            f"--labels names {shortened(unknown)}, which the vocabulary of {path} lacks",
            f"It has {shortened(names, 8)}.",
        )
    if options.withdraw and (options.complete or options.only_changes):
        raise UsageError("--withdraw does not go with --complete and --only-changes", "Leave out one or the other.")
    if not options.dry_run:
        folder = path.absolute().parent
        if not os.access(folder, os.W_OK | os.X_OK):
            raise TableError(f"{folder} cannot be written", "Copy the table with its evidence to another place.")
        check_free_space(folder)


class _Import:
    """One import into the evidence, which is open."""

    def __init__(self, table: Table, evidence: Evidence, options: ImportOptions, report: Report) -> None:
        self._table, self._evidence, self._options, self._report = table, evidence, options, report
        self._images = TableImages(table)
        self._names = table.info.vocabulary.names
        self._now = time.time_ns() // 1000
        self._undated: dict[bytes, tuple[int, int]] = {}  # by file: the times that undated statements got

    def run(self, files: Sequence[Path]) -> ImportSummary:
        """Read everything, record it, and put the table right."""
        table, evidence, options = self._table, self._evidence, self._options
        state = TableState(table, evidence)
        summaries, read = [], []
        for number, path in enumerate(files):
            self._report("files", number, len(files))
            summary, decisions = self._withdraw(path) if options.withdraw else self._take_in(path)
            summaries.append(summary)
            read.append(decisions)
        for summary, decisions in zip(summaries, read, strict=True):
            summary.recorded = evidence.record_decisions(self._new(decisions))
        about = {each.fingerprint for decisions in read for each in decisions}
        here = set(self._images.with_content(about)) if any(each.recorded for each in summaries) else set()
        if options.dry_run:
            changes = changes_in(table, evidence, here, self._report)
        else:
            changes = state.put_right(here, self._report)
        return ImportSummary(
            table.path, table.info.stage, summaries, changes, evidence.human.people(), self._names, options
        )

    def _new(self, decisions: Sequence[HumanDecision]) -> list[HumanDecision]:
        if self._options.withdraw or not self._evidence.human:
            return list(decisions)
        return list(not_on_record(decisions, self._about(decisions), self._is_undated))

    def _about(self, decisions: Sequence[HumanDecision]) -> About:
        """Return what tells all decisions about an image; of many images they are read at once."""
        if len(decisions) < _FEW:
            return self._evidence.human.about
        known = {some[0].fingerprint: some for some in self._evidence.human}
        return lambda fingerprint: known.get(fingerprint, ())

    def _is_undated(self, decision: HumanDecision) -> bool:
        first, last = self._undated[decision.file]
        return first <= decision.decided <= last

    def _take_in(self, path: Path) -> tuple[FileSummary, list[HumanDecision]]:
        found, match = self._read(path)
        origin = self._origin(path, found)
        said = self._said(match) if self._options.only_changes else None
        taken = decisions_of(found, match, origin, self._options, self._names, said)
        return _summary(path, found, match, taken), taken.decisions

    def _read(self, path: Path) -> tuple[HumanLabels, Match]:
        context = TableContext(self._images.ids, self._table.info.vocabulary)
        found = read_human_labels(path, self._options.reading, context)
        return found, match_file(path, found, self._images)

    def _origin(self, path: Path, found: HumanLabels) -> Origin:
        digest = digest_of(path)
        before = [each.recorded for each in self._evidence.human.of_file(digest)]
        name = storable(f"{one_line(path.name, 200)} ({one_line(found.form, 200)})")
        began = min(before, default=self._now)
        self._undated[digest] = (began, began + len(found.statements) + len(found.kept))
        return Origin(path, name, digest, began, self._now)

    def _withdraw(self, path: Path) -> tuple[FileSummary, list[HumanDecision]]:
        """Take back what was recorded from this file; where nothing was, what it says and is on record."""
        evidence = self._evidence
        if not path.exists():
            raise UsageError(f"there is no file at {path}", "Name a file that was imported.")
        digest, warnings = digest_of(path), []
        recorded = [each for each in evidence.human.of_file(digest) if each.decision != WITHDRAWN]
        if not recorded and path.is_dir():
            # An export may have rewritten its sidecars since: then what it says now is not what was recorded.
            recorded = evidence.human.of_last_import(storable(f"{one_line(path.name, 200)} ("))
            since = [f"it has changed since {time_of(each.recorded)}" for each in recorded[:1]]
            warnings = [f"{each}: what was imported then is taken back" for each in since]
        if recorded:
            origin = Origin(path, recorded[0].origin, recorded[0].file, self._now, self._now)
            taken = FileDecisions(statements=len(recorded), images={each.fingerprint for each in recorded})
            found = HumanLabels((), (), "taken back as it was imported", warnings=tuple(warnings))
            summary = _summary(path, found, None, taken)
        else:
            found, match = self._read(path)
            origin = self._origin(path, found)
            taken = decisions_of(found, match, origin, self._options, self._names, None)
            recorded = [same for each in taken.decisions for same in self._same_on_record(each)]
            summary = _summary(path, found, match, taken)
        if self._options.labels is not None:
            recorded = _about_labels(recorded, frozenset(self._options.labels))
        return summary, list(withdrawals(recorded, self._about(recorded), origin))

    def _same_on_record(self, each: HumanDecision) -> Iterator[HumanDecision]:
        is_undated = self._is_undated(each)
        said = (each.label, each.scope, each.who, each.decision)
        for other in self._evidence.human.about(each.fingerprint):
            is_same = (other.label, other.scope, other.who, other.decision) == said
            if is_same and (is_undated or other.decided == each.decided):
                yield other

    def _said(self, match: Match) -> Callable[[str], Mapping[str, str] | None]:
        """Return what the table says about the images of a file: yes and unknown by label."""
        targets = (*match.images.values(), *match.by_content.values())
        ids = pa.array({target.image for target in targets}, pa.string())
        found: dict[str, Mapping[str, str] | None] = {}
        for batch in self._table.batches(_ROWS, ["image_id", "labels"]):
            some = batch.filter(pc.is_in(batch["image_id"], value_set=ids))
            for image, labels in zip(some["image_id"].to_pylist(), some["labels"].to_pylist(), strict=True):
                found[image] = (
                    None
                    if labels is None
                    else {
                        # A candidate that was proposed, and not decided, is a yes of its table.
                        entry["name"]: entry["decision"] or Decision.YES.value
                        for entry in labels
                    }
                )
        return found.get


def _about_labels(decisions: Sequence[HumanDecision], chosen: frozenset[str]) -> list[HumanDecision]:
    """Return decisions about some labels: those about a set of labels are about those of it that were chosen."""
    found = []
    for each in decisions:
        if each.label in chosen:
            found.append(each)
        elif scope := tuple(name for name in each.scope if name in chosen):
            found.append(replace(each, scope=scope))
    return found


def digest_of(path: Path) -> bytes:
    """Return 16 bytes that tell the content of a file from others; of a folder, that of its files but for images."""
    digest = hashlib.blake2b(digest_size=16)
    try:
        for file in _files(path):
            if file != path:
                digest.update(os.fsencode(file.relative_to(path)) + b"\0%d\0" % file.stat().st_size)
            with file.open("rb") as data:
                while chunk := data.read(_CHUNK):
                    digest.update(chunk)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}", "Check its permissions.") from error
    return digest.digest()


def _files(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    for above, folders, names in os.walk(path):
        folders.sort()
        # Sidecars lie beside the images, which may be terabytes.
        some = (Path(above, name) for name in sorted(names) if without_ending(name) == name)
        yield from (each for each in some if each.is_file() and each.stat().st_size <= _LARGEST)


def _summary(path: Path, found: HumanLabels, match: Match | None, taken: FileDecisions) -> FileSummary:
    return FileSummary(
        path,
        found.form,
        taken.statements,
        len(taken.images),
        () if match is None else match.missing_images,
        () if match is None else match.missing_labels,
        () if match is None else match.unread,
        False if match is None else match.by_file_name,
        taken.contradictions,
        taken.unchanged,
        taken.left_out,
        taken.in_future,
        len(found.kept),
        found.is_explicit or not found.checked,
        len(found.checked),
        found.notes,
        found.warnings,
    )
