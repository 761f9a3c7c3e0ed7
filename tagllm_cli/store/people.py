"""What people decided about the images of a table, in numbers: by whom, from where, what is disputed, stale or gone."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from operator import attrgetter
from typing import Any

from tagllm_cli.store.human_labels import HumanDecision, conflicts, plain_decisions


@dataclass(frozen=True, slots=True)
class Lost:
    """Decisions that apply to no image now, and the first images that they are about."""

    decisions: int
    images: int
    examples: Sequence[str]

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {"decisions": self.decisions, "images": self.images, "examples": list(self.examples)}


@dataclass(frozen=True, slots=True)
class Conflict:
    """What people say about one label of one image where they disagree; the last one counts."""

    image: str
    label: str
    said: Sequence[tuple[str, str]]

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {
            "image": self.image,
            "label": self.label,
            "said": [{"who": who, "decision": decision} for who, decision in self.said],
        }

    def __str__(self) -> str:
        """Return it in a line.

        >>> str(Conflict("1.jpg", "cat", [("ann", "yes"), ("", "no")]))
        '1.jpg, cat: ann yes, nobody named no'
        """
        return f"{self.image}, {self.label}: {', '.join(f'{named(who)} {said}' for who, said in self.said)}"


@dataclass(frozen=True, slots=True)
class People:
    """All that people decided.

    Args:
        decisions: on record, those that count no more included.
        images: different bytes that they are about.
        first, last: microseconds since the epoch (UTC), of the first and the last decision.
        who: decisions by person, "" where nobody was named.
        files: (origin, decisions, microseconds since the epoch of the import) of each file.
        stale: of images whose bytes have changed since.
        gone: of images that are in the table no more.
        labels: decisions by label.
        conflicts: where the latest decisions of two people differ.
    """

    decisions: int
    images: int
    first: int
    last: int
    who: Mapping[str, int]
    files: Sequence[tuple[str, int, int]]
    stale: Lost
    gone: Lost
    labels: Mapping[str, int]
    conflicts: Sequence[Conflict]

    def gone_labels(self, names: Collection[str]) -> Mapping[str, int]:
        """Return the decisions about single labels that are not among these, by label."""
        return {label: count for label, count in self.labels.items() if label not in names}

    def problems(self, names: Collection[str]) -> list[str]:
        """Return what of it applies to no image or label of a table with these label names, a line each."""
        lines = []
        for lost, what in ((self.stale, "whose bytes have changed"), (self.gone, "that {be} gone")):
            if lost.decisions:
                decisions, images = many(lost.decisions, "decision"), many(lost.images, "image")
                where = what.format(be="is" if lost.images == 1 else "are")
                lines.append(f"{decisions} of people about {images} {where} (first: {lost.examples[0]})")
        if missing := self.gone_labels(names):
            decisions = many(sum(missing.values()), "decision")
            labels = many(len(missing), "label")
            lines.append(
                f"{decisions} of people about {labels} that the vocabulary lacks (first: {next(iter(missing))})"
            )
        return lines

    def in_brief(self, names: Collection[str]) -> dict[str, Any]:
        """Return what a run tells, as plain JSON values; `names` are the labels of the table."""
        return {
            "decisions": self.decisions,
            "images": self.images,
            "conflicts": len(self.conflicts),
            "stale": self.stale.to_json(),
            "gone": self.gone.to_json(),
            "gone_labels": dict(self.gone_labels(names)),
        }

    def to_json(self, names: Collection[str]) -> dict[str, Any]:
        """Return all of it as plain JSON values."""
        return {
            "decisions": self.decisions,
            "images": self.images,
            "first": time_of(self.first),
            "last": time_of(self.last),
            "who": dict(self.who),
            "files": [
                {"origin": origin, "decisions": count, "imported": time_of(recorded)}
                for origin, count, recorded in self.files
            ],
            "stale": self.stale.to_json(),
            "gone": self.gone.to_json(),
            "gone_labels": dict(self.gone_labels(names)),
            "conflicts": [each.to_json() for each in self.conflicts],
        }


def people_of(found: Mapping[str, Any]) -> People:
    """Return what `evidence_queries.read_people` found."""
    disputed = plain_decisions(None, found["disputed"], found["sets"])
    return People(
        found["decisions"],
        found["images"],
        found["first"],
        found["last"],
        dict(found["who"]),
        [(origin, count, recorded) for origin, count, recorded in found["files"]],
        Lost(**found["stale"]),
        Lost(**found["gone"]),
        dict(found["labels"]),
        list(conflicts_of(disputed)),
    )


def conflicts_of(decisions: Sequence[HumanDecision]) -> Sequence[Conflict]:
    """Return where people disagree; the decisions come by fingerprint."""
    return [
        Conflict(said[-1].image, label, [(each.who, each.decision) for each in said])
        for _, some in groupby(decisions, attrgetter("fingerprint"))
        for label, said in sorted(conflicts(some).items())
    ]


def many(count: int, what: str) -> str:
    """Return a count with its noun.

    >>> many(1, "image"), many(1200, "image")
    ('1 image', '1,200 images')
    """
    return f"{count:,} {what}{'s' * (count != 1)}"


def named(who: str) -> str:
    """Return who said something, for people."""
    return who or "nobody named"


def time_of(microseconds: int) -> str:
    """Return a time in ISO 8601, in UTC.

    >>> time_of(1_700_000_000_000_000)
    '2023-11-14T22:13:20+00:00'
    """
    return datetime.fromtimestamp(microseconds / 1e6, UTC).isoformat(timespec="seconds")
