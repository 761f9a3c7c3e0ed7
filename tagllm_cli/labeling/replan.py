"""Make a plan, bring a pinned one up to date, replace it under `--replan`.

A new label joins a group that is not full or opens a new one; a removed label is filtered without asking. Everything
else that would change a request needs `--replan`, which keeps what the command does not give.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tagllm_cli.errors import UsageError
from tagllm_cli.labeling.groups.arms import (
    PARENTS,
    Group,
    GroupingBasis,
    add_labels,
    base_of,
    make_groups,
    update_groups,
)
from tagllm_cli.labeling.plan import DEFAULT_ARMS, DEFAULT_GROUP_SIZE, DEFAULT_MAX_PIXELS, Plan, PlanOptions
from tagllm_cli.labeling.strategies import DEFAULT_STRATEGY, STRATEGIES
from tagllm_cli.sources.decode import IMAGING_VERSION
from tagllm_cli.text import shortened
from tagllm_cli.vocabulary.model import Vocabulary


def new_plan(plan_options: PlanOptions, label_ids: Mapping[str, int] | None = None) -> Plan:
    """Make the first plan of a table, or a new one that keeps the `label_ids` given so far.

    Raises UsageError where no model is named, for an arm or strategy that does not exist, and where groups are asked
    for under a strategy that has none.
    """
    if plan_options.model is None or plan_options.model_digest is None:
        raise UsageError("no model is named", "Give --model NAME_OR_FOLDER, or --endpoint URL of a running server.")
    strategy, size = _strategy(plan_options), plan_options.group_size or DEFAULT_GROUP_SIZE
    asks_for_candidates = plan_options.stage == "candidates"
    templates = (STRATEGIES[strategy],) if asks_for_candidates else ("verify", "verify_card")
    basis = GroupingBasis(plan_options.vocabulary, plan_options.cooccurrence)
    return Plan(
        stage=plan_options.stage,
        vocabulary=plan_options.vocabulary,
        label_ids=_with_ids(label_ids or {}, plan_options.vocabulary.names),
        templates={name: plan_options.templates[name] for name in templates},
        model=plan_options.model,
        model_digest=plan_options.model_digest,
        imaging=IMAGING_VERSION,
        max_pixels=plan_options.max_pixels or DEFAULT_MAX_PIXELS,
        group_size=size,
        arms=_make_arms(strategy, plan_options, basis, size) if asks_for_candidates else {},
        strategy=strategy,
        grouped_by=basis.about,
    )


def first_notes(plan: Plan, plan_options: PlanOptions) -> list[str]:
    """Return sentences on a new plan: how the vocabulary's file was read, and what its groups are not made by."""
    notes = list(plan_options.vocabulary.notes)
    if plan_options.cooccurrence is None:
        return notes
    notes += plan_options.cooccurrence.notes
    if written := [arm for arm in plan.arms if {arm, base_of(arm)} & plan.vocabulary.groups.keys()]:
        own = f"the groups of {shortened(written, 3)} are those of the vocabulary's author"
        notes.append(f"{own}: --cooccurrence only places new labels")
    return notes


def renew(pinned: Plan, plan_options: PlanOptions) -> tuple[Plan, list[str]]:
    """Make a new plan under `--replan`; return it with a sentence for every option that was not given and stays.

    What the command does not give stays as it is pinned: strategy and pixel budget, and where groups stay groups, the
    arms and the group size. Groups are made anew, and templates taken anew. Only groups made by a file that is not
    given again stay: new labels join them, removed ones leave. Raises UsageError as `new_plan` does.
    """
    kept = _pinned_options(pinned, plan_options)
    plan = new_plan(replace(plan_options, **kept), pinned.label_ids)
    texts = {key: ",".join(value) if key == "arms" else str(value) for key, value in kept.items()}
    notes = [f"--replan keeps --{key.replace('_', '-')} {text}" for key, text in texts.items()]
    if not plan.arms or plan.strategy != DEFAULT_STRATEGY or plan_options.cooccurrence or pinned.grouped_by == PARENTS:
        return plan, [*notes, *first_notes(plan, plan_options)]
    if plan.arms.keys() == pinned.arms.keys() and plan.group_size == pinned.group_size:
        arms = update_groups(pinned.arms, plan.arms, GroupingBasis(plan.vocabulary), plan.group_size)
        notes.append(f"--replan keeps the groups made by {pinned.grouped_by}; give --cooccurrence to make others")
        return replace(plan, arms=arms, grouped_by=pinned.grouped_by), notes
    notes.append(f"groups are made by parents now, no longer by {pinned.grouped_by}: for that, give --cooccurrence")
    return plan, notes


def revise(pinned: Plan, plan_options: PlanOptions) -> tuple[Plan, list[str]]:
    """Bring a pinned plan up to a vocabulary that may have changed; return it with one sentence per change.

    Raises UsageError where the command asks for what only `--replan` may change.
    """
    for what, asked, have in _conflicts(pinned, plan_options):
        raise UsageError(
            f"this table is pinned to {what} {have}; the command asks for {asked}",
            "`--replan` asks again under a new plan (`--replan --dry-run` says how much); or choose another --out.",
        )
    vocabulary = plan_options.vocabulary
    before, now = dict.fromkeys(pinned.vocabulary.names), dict.fromkeys(vocabulary.names)
    added = [name for name in now if name not in before]
    removed = [name for name in before if name not in now]
    arms, notes = _add_labels(pinned, added, GroupingBasis(vocabulary, plan_options.cooccurrence))
    if removed:
        notes.append(f"{shortened(removed, 3)} removed: filtered without asking")
    if plan_options.cooccurrence is not None:
        if plan_options.cooccurrence.about != pinned.grouped_by:
            notes.append(f"groups stay as they were pinned; --replan groups by {plan_options.cooccurrence.about}")
        notes += plan_options.cooccurrence.notes if added else ()
    ids = _with_ids(pinned.label_ids, added)
    return replace(pinned, vocabulary=vocabulary, label_ids=ids, arms=arms), notes


def _strategy(plan_options: PlanOptions, pinned: str = DEFAULT_STRATEGY) -> str:
    """Return the strategy asked for, else the pinned one; UsageError for options about groups where it has none."""
    strategy = plan_options.strategy or pinned
    if strategy not in STRATEGIES:
        raise UsageError(f"there is no strategy {strategy!r}", f"Strategies: {', '.join(STRATEGIES)}.")
    given = {
        "--arms": plan_options.arms,
        "--group-size": plan_options.group_size,
        "--cooccurrence": plan_options.cooccurrence,
    }
    for option, value in given.items():
        if value is not None and strategy != DEFAULT_STRATEGY:
            raise UsageError(
                f"{option} is about groups, and --strategy {strategy} has none",
                f"Leave {option} out, or ask for --strategy {DEFAULT_STRATEGY}.",
            )
    return strategy


def _pinned_options(pinned: Plan, plan_options: PlanOptions) -> dict[str, Any]:
    """Return the options that are not given and pinned to another value than a new table would have."""
    default: dict[str, Any] = {"strategy": DEFAULT_STRATEGY, "arms": _default_arms(pinned.vocabulary)}
    default |= {"group_size": DEFAULT_GROUP_SIZE, "max_pixels": DEFAULT_MAX_PIXELS}
    current: dict[str, Any] = {"strategy": pinned.strategy, "max_pixels": pinned.max_pixels}
    if pinned.arms and pinned.strategy == (plan_options.strategy or pinned.strategy) == DEFAULT_STRATEGY:
        current |= {"arms": tuple(pinned.arms), "group_size": pinned.group_size}
    return {
        key: value for key, value in current.items() if getattr(plan_options, key) is None and value != default[key]
    }


def _conflicts(pinned: Plan, plan_options: PlanOptions) -> list[tuple[str, str, str]]:
    """Return what is asked for and may not change, as (what, asked for, pinned)."""
    conflicts = []
    if plan_options.model_digest is not None and plan_options.model_digest != pinned.model_digest:
        asked, have = str(plan_options.model), pinned.model
        if asked == have:
            asked, have = (
                f"{name} ({digest.hex()[:8]})"
                for name, digest in ((asked, plan_options.model_digest), (have, pinned.model_digest))
            )
        conflicts.append(("the model", asked, have))
    strategy = _strategy(plan_options, pinned.strategy)
    if strategy != pinned.strategy:
        conflicts.append(("--strategy", strategy, pinned.strategy))
    if plan_options.max_pixels is not None and plan_options.max_pixels != pinned.max_pixels:
        conflicts.append(("--max-pixels", str(plan_options.max_pixels), str(pinned.max_pixels)))
    if plan_options.group_size is not None and plan_options.group_size != pinned.group_size:
        conflicts.append(("--group-size", str(plan_options.group_size), str(pinned.group_size)))
    if plan_options.arms is not None and set(plan_options.arms) != set(pinned.arms) and pinned.stage == "candidates":
        conflicts.append(("--arms", ",".join(plan_options.arms), ",".join(pinned.arms)))
    if plan_options.own_templates:
        changed = [name for name, template in pinned.templates.items() if plan_options.templates[name] != template]
        if changed:
            conflicts.append(
                (
                    "its own copy of the templates",
                    f"another wording of {shortened(changed, 3)}",
                    "(made with the first run)",
                )
            )
    return conflicts


def _make_arms(
    strategy: str, plan_options: PlanOptions, basis: GroupingBasis, size: int
) -> Mapping[str, tuple[Group, ...]]:
    vocabulary = plan_options.vocabulary
    if strategy == "groups":
        return make_groups(plan_options.arms or _default_arms(vocabulary), basis, size)
    if strategy == "binary":
        return {strategy: ()}
    return {strategy: (Group(f"{strategy}:0", vocabulary.names if strategy == "all" else ()),)}


def _default_arms(vocabulary: Vocabulary) -> tuple[str, ...]:
    return tuple(vocabulary.groups) or DEFAULT_ARMS


def _add_labels(
    pinned: Plan, added: Sequence[str], basis: GroupingBasis
) -> tuple[Mapping[str, tuple[Group, ...]], list[str]]:
    """Return the arms with new labels added, and a sentence on what that asks."""
    arms, names = pinned.arms, shortened(added, 3)
    if not added or not arms:
        return arms, []
    if pinned.strategy == "open":
        return arms, [f"{names} added: found in the recorded answers, nothing is asked again"]
    if pinned.strategy == "binary":
        return arms, [f"{names} added: one question each"]
    if pinned.strategy == "all":
        (whole,) = arms["all"]
        fresh = [name for name in added if name not in whole.names]
        arms = {"all": (whole.with_labels(fresh, frozenset(basis.vocabulary.names)),)} if fresh else arms
        touched = [[whole.id]] if fresh else []
    else:
        arms, touched = add_labels(arms, added, basis, pinned.group_size)
    asked = [f"{shortened(groups, 3)} {'is' if len(groups) == 1 else 'are'} asked again" for groups in touched]
    return arms, [f"{names} added: {each}" for each in asked]


def _with_ids(ids: Mapping[str, int], names: Sequence[str]) -> dict[str, int]:
    """Return permanent label ids: those given so far, and the next numbers for new names."""
    numbered = dict(ids)
    for name in names:
        numbered.setdefault(name, len(numbered))
    return numbered
