"""What two tables were made by: which settings differ, of all labels and of single ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tagllm_cli.evaluation.entry_arrays import Array
from tagllm_cli.labeling.strategies import DEFAULT_STRATEGY, STRATEGIES
from tagllm_cli.store.table import Table
from tagllm_cli.text import shortened

_NONE = "none"


@dataclass(frozen=True, slots=True)
class Limits:
    """What makes decisions of answers in one table: thresholds, float32 [labels], the least mass and votes."""

    thresholds: Array
    min_mass: float
    min_votes: int


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting that differs, in words."""

    what: str
    first: str
    second: str

    def to_json(self) -> dict[str, str]:
        """Return plain JSON values."""
        return {"setting": self.what, "a": self.first, "b": self.second}


@dataclass(frozen=True, slots=True)
class Differences:
    """What differs in how labels came about. `cards`, `prompts` and `groups` are bool [labels]."""

    limits: tuple[Limits, Limits]
    model: bool
    pixels: bool
    cards: Array
    prompts: Array
    groups: Array
    told: Sequence[Setting]

    @property
    def limits_differ(self) -> Array:
        """The labels whose answers are decided by another threshold, mass or number of votes, bool [labels]."""
        one, two = self.limits
        common = (one.min_mass, one.min_votes) != (two.min_mass, two.min_votes)
        return np.asarray((one.thresholds != two.thresholds) | common)


def differences(first: Table, second: Table, names: Sequence[str]) -> Differences:
    """Compare the plans of two tables of the same stage; `names` are the labels of both."""
    plans = first.info.plan, second.info.plan

    def differs(of: Callable[[Mapping[str, Any], str], Any]) -> Array:
        return np.array([of(plans[0], name) != of(plans[1], name) for name in names], bool)

    stage = first.info.stage
    cards = differs(_card)
    groups = differs(_groups_of) if stage == "candidates" else np.zeros(len(names), bool)
    prompts = differs(lambda plan, name: _prompt(plan, name, stage))
    if _strategy(plans[0]) != _strategy(plans[1]) and stage == "candidates":
        groups[:], prompts[:] = True, False  # each strategy has a prompt of its own
    told = [each for each in _told(first, second, int(cards.sum())) if each.first != each.second]
    return Differences(
        (_limits(plans[0], names), _limits(plans[1], names)),
        plans[0].get("model_digest") != plans[1].get("model_digest"),
        any(plans[0].get(key) != plans[1].get(key) for key in ("max_pixels", "imaging")),
        cards,
        prompts,
        groups,
        told,
    )


def _limits(plan: Mapping[str, Any], names: Sequence[str]) -> Limits:
    common, own = float(plan.get("threshold", 0.5)), plan.get("label_thresholds") or {}
    thresholds = np.array([own.get(name, common) for name in names], np.float32)
    return Limits(thresholds, float(plan.get("min_mass", 0.5)), int(plan.get("min_votes", 1)))


def _strategy(plan: Mapping[str, Any]) -> str:
    return str(plan.get("strategy", DEFAULT_STRATEGY))


def _card(plan: Mapping[str, Any], name: str) -> str:
    """Return a hash of what the label's card says; of all cards in tables of releases that knew no other."""
    if "label_cards" not in plan:
        return "" if plan.get("cards", _NONE) == _NONE else str(plan["cards"])
    return str(plan["label_cards"].get(name, ""))


def _prompt(plan: Mapping[str, Any], name: str, stage: str) -> Any:
    used = STRATEGIES[_strategy(plan)] if stage == "candidates" else "verify_card" if _card(plan, name) else "verify"
    found = plan.get("templates", {}).get(used) or {}
    return {key: value for key, value in found.items() if key != "name"}


def _groups_of(plan: Mapping[str, Any], name: str) -> Any:
    """Return the groups in which the label is asked about, each once."""
    groups = [tuple(names) for arm in plan.get("arms", {}).values() for _, names in arm]
    return {each for each in groups if name in each}


def _told(first: Table, second: Table, cards: int) -> Iterator[Setting]:
    one, two = first.info.plan, second.info.plan
    names = [str(plan.get("model", "unknown")) for plan in (one, two)]
    if names[0] == names[1]:
        names = [f"{name}, {str(plan.get('model_digest'))[:8]}" for name, plan in zip(names, (one, two), strict=True)]
    yield Setting("model", *names)
    for key, what in (("max_pixels", "pixels of an image, at most"), ("imaging", "version of decoding")):
        yield Setting(what, *(_number(plan.get(key)) for plan in (one, two)))
    if cards:
        yield Setting("concept cards", _cards(one), f"{_cards(two)}; {cards:,} labels differ")
    yield Setting("prompts", *_prompts(one, two))
    if first.info.stage == "candidates":
        yield Setting("strategy", _strategy(one), _strategy(two))
        yield Setting("groups", *_group_texts(one, two))
        yield Setting("votes, at least", *(_number(plan.get("min_votes", 1)) for plan in (one, two)))
    yield Setting("threshold", *(_number(plan.get("threshold", 0.5)) for plan in (one, two)))
    yield Setting("thresholds of single labels", *_own_thresholds(one, two))
    yield Setting("mass on yes and no, at least", *(_number(plan.get("min_mass", 0.5)) for plan in (one, two)))
    yield Setting("vocabulary", *_vocabularies(first, second))
    yield Setting("images", *(f"{table.info.source.kind} {table.info.source.uri}" for table in (first, second)))


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else str(value)


def _cards(plan: Mapping[str, Any]) -> str:
    count = len(plan.get("label_cards") or {})
    return f"{count:,} labels" if count else _NONE if plan.get("cards", _NONE) == _NONE else "some"


def _prompts(one: Mapping[str, Any], two: Mapping[str, Any]) -> tuple[str, str]:
    first, second = one.get("templates", {}), two.get("templates", {})
    changed = sorted(name for name in {*first} & {*second} if first[name] != second[name])
    texts = [shortened(sorted(each)) for each in (first, second)]
    return texts[0], texts[1] + (f"; other words in {shortened(changed)}" if changed else "")


def _group_texts(one: Mapping[str, Any], two: Mapping[str, Any]) -> tuple[str, str]:
    first, second = one.get("arms", {}), two.get("arms", {})
    texts = [", ".join(f"{arm} ({len(groups):,})" for arm, groups in arms.items()) or _NONE for arms in (first, second)]
    same_text = texts[0] == texts[1] and first != second
    return texts[0], texts[1] + ("; other groups" if same_text else "")


def _own_thresholds(one: Mapping[str, Any], two: Mapping[str, Any]) -> tuple[str, str]:
    first, second = one.get("label_thresholds") or {}, two.get("label_thresholds") or {}
    texts = [f"{len(each):,}" if each else _NONE for each in (first, second)]
    changed = sum(first[name] != second[name] for name in {*first} & {*second})
    return texts[0], texts[1] + (f"; {changed:,} other ones" if changed else "")


def _vocabularies(first: Table, second: Table) -> tuple[str, str]:
    names = [table.info.vocabulary.names for table in (first, second)]
    only = [[name for name in one if name not in set(other)] for one, other in (names, names[::-1])]
    if not any(only):
        return "", ""
    told = [f"{len(own):,} labels" + (f", only here: {shortened(new)}" if new else "")
            for own, new in zip(names, only, strict=True)]  # fmt: skip
    return told[0], told[1]
