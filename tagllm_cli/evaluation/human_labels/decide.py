"""What a file says, as decisions about the images of a table; what is on record already is left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tagllm_cli.evaluation.human_labels.base import NO, UNKNOWN, WITHDRAWN, CheckedImage, HumanLabels, Statement
from tagllm_cli.evaluation.human_labels.match import Match, Target, fingerprint_of
from tagllm_cli.evaluation.human_labels.options import ImportOptions
from tagllm_cli.store.evidence_layout import storable
from tagllm_cli.store.human_labels import HumanDecision, latest
from tagllm_cli.text import one_line

# What a table says about an image, by label; None where it says nothing. A label that is not there is no.
Said = Callable[[str], Mapping[str, str] | None]
About = Callable[[bytes], Sequence[HumanDecision]]

_WHO_LENGTH = 100


@dataclass(frozen=True, slots=True)
class Origin:
    """Where decisions come from, for their record.

    Args:
        path: the file.
        name: what people are told: the file's name and form.
        digest: 16 bytes, the hash of the content.
        began: microseconds since the epoch, from which undated statements are numbered: the first import of it.
        now: microseconds since the epoch, of this import.
    """

    path: Path
    name: str
    digest: bytes
    began: int
    now: int


@dataclass(slots=True)
class FileDecisions:
    """What a file says about a table.

    `contradictions`: pairs of image and label of which one person says two things in the file. `unchanged`: what
    the table says already, left out by `only_changes`. `left_out`: statements about labels that were not chosen.
    `statements`: decisions about single labels, and about all others of an image that was gone through. `in_future`:
    those whose time is later than that of the import, which they get instead: nothing could overrule them otherwise.
    """

    decisions: list[HumanDecision] = field(default_factory=list)
    statements: int = 0
    images: set[bytes] = field(default_factory=set)
    contradictions: int = 0
    unchanged: int = 0
    left_out: int = 0
    in_future: int = 0


def decisions_of(
    found: HumanLabels, match: Match, origin: Origin, options: ImportOptions, names: Sequence[str], said: Said | None
) -> FileDecisions:
    """Return what a file says as decisions; `names` are the table's labels, `said` is needed for `only_changes`."""
    taken = FileDecisions()
    chosen = None if options.labels is None else frozenset(options.labels)
    pairs: dict[tuple[bytes, str, str], tuple[int | None, str, int]] = {}
    singles: list[HumanDecision | None] = []
    kept = found.kept if options.complete else ()  # the person agrees with what was left as it was proposed
    for number, each in enumerate([*found.statements, *kept], 1):
        target = _target(each, match, origin)
        label = match.labels.get(each.label)
        if target is None or label is None:
            continue
        if chosen is not None and label not in chosen:
            taken.left_out += 1
            continue
        decision = _decision(each, target, label, origin, options, number)
        taken.statements += 1
        taken.images.add(target.fingerprint)
        taken.in_future += _is_in_future(each, origin)
        pair = (target.fingerprint, label, decision.who)
        if pair in pairs:
            when, before, place = pairs[pair]
            taken.contradictions += before != each.decision
            if when is None and each.when is None:
                singles[place] = None  # of what is said twice without a time, the later one is recorded
        pairs[pair] = (each.when, each.decision, len(singles))
        singles.append(decision)
    whole = list(_scopes(found, match, origin, options, names, chosen, taken)) if options.complete else []
    ordered = [*whole, *(each for each in singles if each is not None)]
    holds_unknown = any(each.decision == UNKNOWN for each in (*found.statements, *found.kept))
    taken.decisions = ordered if said is None else list(_changes(ordered, said, taken, holds_unknown))
    return taken


def _target(each: Statement | CheckedImage, match: Match, origin: Origin) -> Target | None:
    """Return the image that a statement is about, None where the table has none of which it can be told.

    Where other bytes were seen than the table's, that is the image with those bytes, which may be gone.
    """
    seen = fingerprint_of(origin.path, each.fingerprint) if each.fingerprint else b""
    if seen and (known := match.by_content.get(seen)) is not None:
        named = match.images.get(each.image)
        return named if named is not None and named.fingerprint == seen else known
    named = match.images.get(each.image)
    if named is None:
        return None
    return Target(named.image, seen or named.fingerprint) if seen or named.fingerprint else None


def _decision(
    each: Statement, target: Target, label: str, origin: Origin, options: ImportOptions, number: int
) -> HumanDecision:
    when = origin.began + number if each.when is None or _is_in_future(each, origin) else each.when
    return HumanDecision(
        *(target.image, target.fingerprint, label, each.decision, who_of(each.who, options), when),
        *(origin.name, origin.digest, origin.now),
    )


def _is_in_future(each: Statement | CheckedImage, origin: Origin) -> bool:
    return each.when is not None and each.when > origin.now


def who_of(who: str, options: ImportOptions) -> str:
    """Return who decided, as it is recorded."""
    return storable(one_line(who or options.who, _WHO_LENGTH))


def _scopes(
    found: HumanLabels,
    match: Match,
    origin: Origin,
    options: ImportOptions,
    names: Sequence[str],
    chosen: frozenset[str] | None,
    taken: FileDecisions,
) -> Iterator[HumanDecision]:
    """Yield, for each image that was gone through, that every label is no: before what is said about single ones."""
    could = set(names) if found.names is None else {match.labels[name] for name in found.names if name in match.labels}
    scope = tuple(name for name in names if name in could and (chosen is None or name in chosen))
    if not scope:
        return
    for each in found.checked:
        target = _target(each, match, origin)
        if target is None:
            continue
        taken.images.add(target.fingerprint)
        taken.statements += not options.only_changes  # else each change counts
        taken.in_future += _is_in_future(each, origin)
        when = origin.began if each.when is None or _is_in_future(each, origin) else each.when
        yield HumanDecision(
            *(target.image, target.fingerprint, "", NO, who_of(each.who, options), when),
            *(origin.name, origin.digest, origin.now, scope),
        )


def _changes(
    decisions: Iterable[HumanDecision], said: Said, taken: FileDecisions, holds_unknown: bool
) -> Iterator[HumanDecision]:
    """Yield the decisions that differ from the table; of a set of labels, those that do.

    A file that `holds_unknown` nowhere (COCO) lists no label that is unknown in the table: that is no change. Where one
    of several statements about a pair differs, all of them are yielded: an earlier one alone would count as the latest.
    """
    decisions = list(decisions)
    stated = {(each.fingerprint, each.who, each.label) for each in decisions if each.label}
    changed = set(_changed_pairs(decisions, said, stated, (NO,) if holds_unknown else (NO, UNKNOWN)))
    for each in decisions:
        if said(each.image) is None:
            taken.statements += not each.label
            yield each
        elif each.label:
            if (each.fingerprint, each.label) in changed:
                yield each
            else:
                taken.unchanged += 1
        else:
            for label in each.scope:
                if (each.fingerprint, each.who, label) not in stated and (each.fingerprint, label) in changed:
                    taken.statements += 1
                    yield replace(each, label=label, scope=())


def _changed_pairs(
    decisions: Iterable[HumanDecision], said: Said, stated: set[tuple[bytes, str, str]], not_listed: Sequence[str]
) -> Iterator[tuple[bytes, str]]:
    """Yield the pairs of image and label of which something is said that differs from the table.

    `not_listed` is what a label may be in the table that a file does not list.
    """
    for each in decisions:
        table = said(each.image)
        if table is None:
            continue
        if each.label:
            if each.decision == WITHDRAWN or table.get(each.label, NO) != each.decision:
                yield each.fingerprint, each.label
            continue
        for label in each.scope:
            if (each.fingerprint, each.who, label) not in stated and table.get(label, NO) not in not_listed:
                yield each.fingerprint, label


def not_on_record(
    decisions: Sequence[HumanDecision], about: About, is_undated: Callable[[HumanDecision], bool]
) -> Iterator[HumanDecision]:
    """Yield what has to be recorded of a file's decisions.

    What a person says again without a time is left out where it is the last that this person said; what was taken
    back comes back a microsecond later.
    """
    by_image: dict[bytes, list[HumanDecision]] = {}
    for each in decisions:
        by_image.setdefault(each.fingerprint, []).append(each)
    for fingerprint, some in by_image.items():
        known = about(fingerprint)
        if not known:
            yield from some
            continue
        stated = {(each.who, each.label) for each in some if each.label}
        now: dict[tuple[str, str], str] = {
            (who, label): last.decision for label, by_person in latest(known).items() for who, last in by_person.items()
        }
        taken_back: dict[tuple[Any, ...], set[str]] = {}
        for each in known:
            if each.decision == WITHDRAWN:
                taken_back.setdefault(_moment(each), set()).update(_labels(each))
        for each in some:
            labels = _labels(each)
            open_ = [name for name in labels if each.label or (each.who, name) not in stated]
            if is_undated(each) and _repeats(each, open_, now):
                continue
            decision = each
            while decision.decision != WITHDRAWN and not taken_back.get(_moment(decision), set()).isdisjoint(labels):
                decision = replace(decision, decided=decision.decided + 1)
            yield decision
            for name in labels:
                now[each.who, name] = each.decision


def _repeats(each: HumanDecision, labels: Iterable[str], now: Mapping[tuple[str, str], str]) -> bool:
    if each.decision == WITHDRAWN:
        return all((each.who, label) not in now for label in labels)
    return all(now.get((each.who, label)) == each.decision for label in labels)


def _labels(each: HumanDecision) -> tuple[str, ...]:
    return (each.label,) if each.label else each.scope


def _moment(each: HumanDecision) -> tuple[Any, ...]:
    return (each.image, each.label != "", each.who, each.decided)


def _place(each: HumanDecision) -> tuple[Any, ...]:
    return (each.image, each.label, each.scope, each.who, each.decided)


def withdrawals(decisions: Iterable[HumanDecision], about: About, origin: Origin) -> Iterator[HumanDecision]:
    """Yield what takes back decisions that are on record, each at its own time, so that it takes back no other one."""
    for each in decisions:
        place = _place(each)
        known = about(each.fingerprint)
        if not any(_place(other) == place and other.decision == WITHDRAWN for other in known):
            yield replace(each, decision=WITHDRAWN, recorded=origin.now, origin=origin.name, file=origin.digest)
