"""What people decided, as an open evidence file has it; `Evidence.record_decisions` adds to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tagllm_cli.records import Decision
from tagllm_cli.store import human_labels
from tagllm_cli.store.evidence_queries import read_people
from tagllm_cli.store.human_labels import HumanDecision
from tagllm_cli.store.people import People, people_of
from tagllm_cli.store.sqlite import SQLiteFile


@dataclass(frozen=True, slots=True)
class RecordedDecisions:
    """The decisions of an evidence file. Each method raises TableError where one is not what was written."""

    _file: SQLiteFile

    def __bool__(self) -> bool:
        """Whether people decided anything."""
        return human_labels.has_decisions(self._file)

    def __iter__(self) -> Iterator[list[HumanDecision]]:
        """Yield what was decided about the same bytes, by fingerprint."""
        return human_labels.all_decisions(self._file)

    def in_force(self, fingerprint: bytes) -> Mapping[str, Decision]:
        """Return what people decided about the labels of these bytes, as far as it counts."""
        return human_labels.in_force(self.about(fingerprint))

    def about(self, fingerprint: bytes) -> list[HumanDecision]:
        """Return all decisions about these bytes."""
        return human_labels.decisions_about(self._file, fingerprint)

    def of_file(self, content: bytes) -> list[HumanDecision]:
        """Return what was recorded from a file with this hash."""
        return human_labels.decisions_of_file(self._file, content)

    def of_last_import(self, origin: str) -> list[HumanDecision]:
        """Return what the latest import from a file recorded; `origin` is how its origin begins."""
        return human_labels.last_import_of(self._file, origin)

    def fingerprints(self) -> set[bytes]:
        """Return the fingerprints of all images that people decided anything about."""
        return human_labels.fingerprints(self._file)

    def people(self) -> People | None:
        """Return the decisions in numbers, None where there is none."""
        found = read_people(self._file.query) if self else None
        return None if found is None else people_of(found)
