"""What tables must have in common to be merged: what was asked, of which model, and how answers became labels."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from tagllm_cli.errors import TableError
from tagllm_cli.records import SourceInfo
from tagllm_cli.store.merge.parts import Part

# The names of a plan's parts and of the settings beside it, in words; the order is that of the messages.
_WORDS = {
    "stage": "the stage",
    "model": "the model",
    "model_digest": "the files of the model",
    "vocabulary": "the vocabulary",
    "label_ids": "the ids of the labels",
    "strategy": "--strategy",
    "arms": "the groups of labels",
    "group_size": "--group-size",
    "knowledge": "what labels are grouped by",
    "templates": "the prompts",
    "max_pixels": "--max-pixels",
    "imaging": "how images are decoded (another release of tagllm)",
    "cards": "the concept cards",
    "label_cards": "the concept cards of single labels",
    "min_votes": "--min-votes",
    "threshold": "--threshold",
    "min_mass": "--min-mass",
    "thresholds": "--thresholds",
    "label_thresholds": "the thresholds of single labels",
}
_SHOWN = 60  # characters of a value


def check_agreement(first: Part, other: Part) -> None:
    """Raise TableError, with both paths and what differs, where two parts cannot be merged."""
    told = list(_differences(first, other))
    if told:
        raise TableError(
            f"{first.path} and {other.path} cannot be merged: they differ in {', '.join(told)}",
            "Merge tables of the same stage, model, vocabulary and options; --replan makes a part anew.",
        )


def check_whole(part: Part) -> None:
    """Raise TableError where a part has no plan, or its table was made by another plan than its evidence has."""
    plan = part.meta("plan")
    if plan is None:
        raise TableError(f"{part.evidence} is empty", "Run the command of its table once more.")
    if part.table is not None and list(_unequal(plan, {key: part.table.info.plan.get(key) for key in plan})):
        raise TableError(
            f"{part.path} is older than its evidence, whose plan has changed since",
            "Run its command once more, then merge.",
        )


def other_places(first: SourceInfo, parts: Sequence[Part]) -> list[str]:
    """Return the other places that the images of the parts were read from, each once."""
    found = [part.table.info.source.uri for part in parts if part.table is not None]
    return [uri for uri in dict.fromkeys(found) if uri != first.uri]


def _differences(first: Part, other: Part) -> Iterator[str]:
    one, two = first.table, other.table
    if one is None or two is None:  # the output's run was killed before it had a table
        yield from _unequal(first.meta("plan"), other.meta("plan"))
        return
    if one.info.stage != two.info.stage:
        yield from _unequal({"stage": one.info.stage}, {"stage": two.info.stage})
        return
    yield from _unequal(one.info.plan, two.info.plan)
    # Another uri is no difference: the same images may be mounted elsewhere on each machine.
    yield from _unequal(*({**asdict(table.info.source), "uri": ""} for table in (one, two)), prefix="the source's ")


def _unequal(one: Mapping[str, Any], two: Mapping[str, Any], *, prefix: str = "") -> Iterator[str]:
    keys = dict.fromkeys([*_WORDS, *one, *two])
    for key in keys:
        values = [_normal(each.get(key)) for each in (one, two)]
        if values[0] != values[1]:
            shown = ", ".join(value[:_SHOWN] for value in values)
            is_short = all(len(value) <= _SHOWN for value in values) and key != "model_digest"
            yield f"{prefix}{_WORDS.get(key, key)}" + (f" ({shown})" if is_short else "")


def _normal(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
