"""Suggestions for a vocabulary as one JSON object, as lines and tables of text, and as additions to its file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tagllm_cli.evaluation.sections import Cells
from tagllm_cli.evaluation.suggest.suggest import Suggestion, Suggestions
from tagllm_cli.text import one_line, shortened
from tagllm_cli.vocabulary.write import Addition, Additions

_SHOWN = 60  # characters of a sample


def to_json(found: Suggestions, out: Path | None) -> dict[str, Any]:
    """Return everything as plain JSON values."""
    return {
        "vocabulary": found.vocabulary.name,
        "tables": [str(path) for path in found.tables],
        "images": found.images,
        "labels": [each.to_json() for each in found.labels],
        "synonyms": [each.to_json() for each in found.synonyms],
        "left_out": {"junk": dict(found.junk), "described": found.described, "rare": found.rare, "more": found.more},
        "never": list(found.never),
        "implied": [each.to_json() for each in found.implied],
        "collisions": list(found.collisions),
        "notes": list(found.notes),
        "out": None if out is None else str(out),
    }


def lines(found: Suggestions, out: Path | None) -> list[str]:
    """Return what was found in a line, and the command to run next."""
    counts = {
        "names to add": len(found.labels),
        "synonyms": len(found.synonyms),
        "labels that never occur": len(found.never),
        "labels that imply another": len(found.implied),
        "collisions": len(found.collisions),
    }
    told = ", ".join(f"{count:,} {what}" for what, count in counts.items())
    first = f"{found.vocabulary.name}, from {found.images:,} images: {told}"
    return [first] if out is None else [first, f"written: {out}", f"next: edit it, then tagllm vocab check {out}"]


def tables(found: Suggestions) -> list[tuple[str, Cells]]:
    """Return titles with (column names, rows); none that is empty."""
    pairs = [
        (
            each.label,
            each.implied + (" (its parent)" if each.is_parent else ""),
            "always together" if each.both_ways else "implies",
            f"{each.images:,}",
            f"{each.share:.3f} [{each.low:.3f}, {each.high:.3f}]",
            f"{each.lift:.1f}",
        )
        for each in found.implied
    ]
    left_out = [
        *(
            (f"no name: {kind}", f"{count:,}", one_line(found.samples[kind], _SHOWN))
            for kind, count in found.junk.items()
        ),
        ("a label, or one with an adjective", f"{found.described:,}", ""),
        ("names of too few images", f"{found.rare:,}", ""),
        ("names beyond the limit", f"{found.more:,}", ""),
    ]
    parts: list[tuple[str, Cells]] = [
        ("names worth adding", (_COLUMNS, [_cells(each) for each in found.labels])),
        ("other forms of labels", (_COLUMNS, [_cells(each) for each in found.synonyms])),
        ("labels that never occur", (("label",), [(name,) for name in found.never])),
        ("labels that come together", (("label", "other", "", "images", "share with 95% interval", "lift"), pairs)),
        ("names that collide", (("",), [(text,) for text in found.collisions])),
        ("left out", (("what", "count", "for example"), [row for row in left_out if row[1] != "0"])),
    ]
    return [(title, cells) for title, cells in parts if cells[1]]


_COLUMNS = ("name", "images", "share", "relation", "also written", "for example")


def _cells(each: Suggestion) -> tuple[str, ...]:
    others = [form for form in each.forms if form != each.name]
    relations = {"same as": each.same_as, "narrower than": each.broader, "in": each.parent}
    relation = ", ".join(f"{what} {name}" for what, name in relations.items() if name)
    return (
        each.name,
        f"{each.images:,}",
        f"{each.share:.2%}",
        relation,
        shortened(others, 3),
        shortened(each.examples, 1),
    )


def additions(found: Suggestions) -> Additions:
    """Return what is added to the vocabulary's file, with comments on why."""
    synonyms: dict[str, list[tuple[str, str]]] = {}
    for each in found.synonyms:
        synonyms.setdefault(each.same_as, []).append((each.name, _why(each)))
    return Additions([Addition(each.label(), _comment(each)) for each in found.labels], synonyms)


def head(found: Suggestions) -> Sequence[str]:
    """Return the first lines of the file."""
    tables = shortened([path.name for path in found.tables], 3)
    told = [
        f"{found.vocabulary.name} with what {tables} suggest. Edit it, then:",
        "tagllm vocab check FILE; tagllm candidates SOURCE --vocab FILE --out TABLE asks groups with new labels only.",
    ]
    if found.never:
        told.append(f"Never seen in {found.images:,} images: {', '.join(found.never)}")
    told += [
        f"{each.label} {'always occurs with' if each.both_ways else 'implies'} {each.implied}:"
        f" {each.share:.1%} of {each.images:,} images"
        for each in found.implied
        if not each.is_parent
    ]
    return [*told, *(f"Collision: {text}" for text in found.collisions)]


def _comment(each: Suggestion) -> str:
    others = [form for form in each.forms if form != each.name]
    notes = [_why(each)]
    if each.broader:
        notes.append(f"narrower than {each.broader}")
    if others:
        notes.append(f"also written {shortened(others, 5)}")
    return f"{each.name}: {'; '.join(notes)}"


def _why(each: Suggestion) -> str:
    return f"{each.images:,} images, {each.share:.2%}, as {shortened(each.examples, 3)}"
