"""The pinned plan: what a table's evidence asks, and what a change of vocabulary, prompts or model asks again.

A plan is made once per table and kept in its evidence, so that an upgrade of the tool never asks a million images
again unannounced. A new label joins a group with room or opens a new one; a removed label is filtered without asking.
Everything else that would change a question needs `--replan`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from tagllm_cli.errors import UsageError
from tagllm_cli.grouping import MAX_GROUP_CHARS, affinity_by_parent, cooccurring, disjoint, place
from tagllm_cli.imaging import IMAGING_VERSION
from tagllm_cli.prompts import Template
from tagllm_cli.schema import Vocabulary
from tagllm_cli.tables import vocabulary_from_json, vocabulary_to_json

DEFAULT_MAX_PIXELS = 1_003_520  # 1280 patches of 28 x 28, the middle of what Qwen2.5-VL was trained on
DEFAULT_GROUP_SIZE = 12
DEFAULT_ARMS = ("cooccurring", "disjoint")


@dataclass(frozen=True, slots=True)
class Group:
    """Labels that one request asks about. The id is permanent and names the arm; names that were removed stay in it."""

    id: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a command asks for; None means: as pinned, else the default."""

    stage: str
    vocabulary: Vocabulary
    templates: Mapping[str, Template]
    model: str | None = None
    model_digest: bytes | None = None
    own_templates: bool = False
    max_pixels: int | None = None
    group_size: int | None = None
    arms: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that decides what is asked about an image. `model_digest` and `context()` are 16 bytes."""

    stage: str
    vocabulary: Vocabulary
    label_ids: Mapping[str, int]
    templates: Mapping[str, Template]
    model: str
    model_digest: bytes
    imaging: int
    max_pixels: int
    group_size: int
    arms: Mapping[str, tuple[Group, ...]] = field(default_factory=dict)

    def context(self) -> bytes:
        """Return the hash that every request's identity starts from: model, imaging version and pixel budget."""
        state = hashlib.blake2b(self.model_digest, digest_size=16)
        state.update(f"imaging {self.imaging} pixels {self.max_pixels}".encode())
        return state.digest()

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain JSON values."""
        return {
            "stage": self.stage,
            "vocabulary": vocabulary_to_json(self.vocabulary),
            "label_ids": dict(self.label_ids),
            "templates": {name: asdict(template) for name, template in self.templates.items()},
            "model": self.model,
            "model_digest": self.model_digest.hex(),
            "imaging": self.imaging,
            "max_pixels": self.max_pixels,
            "group_size": self.group_size,
            "arms": {arm: [[group.id, list(group.names)] for group in groups] for arm, groups in self.arms.items()},
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Plan:
        """Return the plan that `to_json` wrote."""
        return cls(
            stage=value["stage"],
            vocabulary=vocabulary_from_json(value["vocabulary"]),
            label_ids=value["label_ids"],
            templates={name: Template.from_json(template) for name, template in value["templates"].items()},
            model=value["model"],
            model_digest=bytes.fromhex(value["model_digest"]),
            imaging=value["imaging"],
            max_pixels=value["max_pixels"],
            group_size=value["group_size"],
            arms={
                arm: tuple(Group(id_, tuple(names)) for id_, names in groups) for arm, groups in value["arms"].items()
            },
        )


def new_plan(wanted: Wanted, label_ids: Mapping[str, int] | None = None) -> Plan:
    """Make the first plan of a table, or a new one under `--replan`, which keeps the `label_ids` given so far.

    Raises UsageError where no model is named, or an arm that does not exist.
    """
    if wanted.model is None or wanted.model_digest is None:
        raise UsageError("no model is named", "Give --model NAME_OR_FOLDER, or --endpoint URL of a running server.")
    size = wanted.group_size or DEFAULT_GROUP_SIZE
    stage_templates = STAGE_TEMPLATES[wanted.stage]
    return Plan(
        stage=wanted.stage,
        vocabulary=wanted.vocabulary,
        label_ids=_numbered(label_ids or {}, wanted.vocabulary.names),
        templates={name: wanted.templates[name] for name in stage_templates},
        model=wanted.model,
        model_digest=wanted.model_digest,
        imaging=IMAGING_VERSION,
        max_pixels=wanted.max_pixels or DEFAULT_MAX_PIXELS,
        group_size=size,
        arms=_cut(wanted.vocabulary, wanted.arms, size) if wanted.stage == "candidates" else {},
    )


def revise(pinned: Plan, wanted: Wanted) -> tuple[Plan, list[str]]:
    """Bring a pinned plan up to a vocabulary that may have changed; return it with one line per change for people.

    Raises UsageError where the command asks for what only `--replan` may change.
    """
    for what, asked, have in _fixed(pinned, wanted):
        raise UsageError(
            f"this table is pinned to {what} {have}; the command asks for {asked}",
            "`--replan` asks again under a new plan (`--replan --dry-run` says how much); or choose another --out.",
        )
    vocabulary = wanted.vocabulary
    before, now = dict.fromkeys(pinned.vocabulary.names), dict.fromkeys(vocabulary.names)
    added = [name for name in now if name not in before]
    removed = [name for name in before if name not in now]
    ids = _numbered(pinned.label_ids, added)
    arms, notes = dict(pinned.arms), []
    for arm, groups in pinned.arms.items():
        arms[arm], touched = _add(arm, groups, added, vocabulary, pinned.group_size)
        if touched:
            verb = "is" if len(touched) == 1 else "are"
            notes.append(f"{_some(added)} added: {_some(touched)} {verb} asked again")
    if removed:
        notes.append(f"{_some(removed)} removed: filtered without asking")
    return replace(pinned, vocabulary=vocabulary, label_ids=ids, arms=arms), notes


STAGE_TEMPLATES = {"candidates": ("group",), "labels": ("verify", "verify_card")}


def _fixed(pinned: Plan, wanted: Wanted) -> list[tuple[str, str, str]]:
    """List what is asked for and may not change: (what, as asked, as pinned)."""
    conflicts = []
    if wanted.model_digest is not None and wanted.model_digest != pinned.model_digest:
        asked, have = str(wanted.model), pinned.model
        if asked == have:
            asked, have = (
                f"{name} ({digest.hex()[:8]})"
                for name, digest in ((asked, wanted.model_digest), (have, pinned.model_digest))
            )
        conflicts.append(("the model", asked, have))
    if wanted.max_pixels is not None and wanted.max_pixels != pinned.max_pixels:
        conflicts.append(("--max-pixels", str(wanted.max_pixels), str(pinned.max_pixels)))
    if wanted.group_size is not None and wanted.group_size != pinned.group_size:
        conflicts.append(("--group-size", str(wanted.group_size), str(pinned.group_size)))
    if wanted.arms is not None and set(wanted.arms) != set(pinned.arms) and pinned.stage == "candidates":
        conflicts.append(("--arms", ",".join(wanted.arms), ",".join(pinned.arms)))
    if wanted.own_templates:
        changed = [name for name, template in pinned.templates.items() if wanted.templates[name] != template]
        if changed:
            conflicts.append(
                ("its own copy of the templates", f"another wording of {_some(changed)}", "(made with the first run)")
            )
    return conflicts


def _cut(vocabulary: Vocabulary, arms: Sequence[str] | None, size: int) -> dict[str, tuple[Group, ...]]:
    """Cut a vocabulary into groups, once per arm: as its author wrote them, else by parent category."""
    chosen = tuple(arms) if arms else tuple(vocabulary.groups) or DEFAULT_ARMS
    cut: dict[str, tuple[Group, ...]] = {}
    for arm in chosen:
        if arm in vocabulary.groups:
            partition = [list(group) for group in vocabulary.groups[arm]]
        elif arm in CUTTERS:
            partition = CUTTERS[arm](vocabulary.names, affinity_by_parent(vocabulary), size, MAX_GROUP_CHARS)
        else:
            known = ", ".join(dict.fromkeys((*vocabulary.groups, *CUTTERS)))
            raise UsageError(f"there is no arm named {arm!r}", f"Arms of this vocabulary: {known}.")
        cut[arm] = tuple(Group(f"{arm}:{number}", tuple(names)) for number, names in enumerate(partition))
    return cut


CUTTERS = {"cooccurring": cooccurring, "disjoint": disjoint}


def _add(
    arm: str, groups: tuple[Group, ...], added: Sequence[str], vocabulary: Vocabulary, size: int
) -> tuple[tuple[Group, ...], list[str]]:
    """Put new labels into groups with room; return the groups and the ids of those that are asked again."""
    live = set(vocabulary.names)
    grown = list(groups)
    touched: dict[str, None] = {}
    if not added:
        return groups, []
    affinity = affinity_by_parent(vocabulary)
    position = {name: index for index, name in enumerate(vocabulary.names)}
    for name in added:
        if any(name in group.names for group in grown):
            continue  # it was removed once and is still asked about
        index = place(
            [[each for each in group.names if each in live] for group in grown],
            name,
            affinity,
            position,
            arm,
            size,
            MAX_GROUP_CHARS,
        )
        if index is None:
            grown.append(Group(f"{arm}:{len(grown)}", (name,)))
            index = len(grown) - 1
        else:
            # The group is asked again anyway: names that were removed leave it now.
            grown[index] = Group(grown[index].id, (*(each for each in grown[index].names if each in live), name))
        touched[grown[index].id] = None
    return tuple(grown), list(touched)


def _numbered(ids: Mapping[str, int], names: Sequence[str]) -> dict[str, int]:
    """Return permanent label ids: those given so far, and the next numbers for new names."""
    numbered = dict(ids)
    for name in names:
        numbered.setdefault(name, len(numbered))
    return numbered


def _some(names: Sequence[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
