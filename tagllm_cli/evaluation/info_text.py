"""The report of `tagllm info` for people: facts as (name, text), runs and costs as (column names, rows)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from tagllm_cli.evaluation.cost import HUMAN_PRICE, LABELS_PER_UNIT, PAPERS_RATIO, Cost, Prices, per_1000
from tagllm_cli.evaluation.label_counts import TableCounts
from tagllm_cli.evaluation.sections import Cells
from tagllm_cli.evaluation.table_info import InfoReport, TableReport
from tagllm_cli.labeling.strategies import DEFAULT_STRATEGY
from tagllm_cli.labeling.templates import Template, load_templates
from tagllm_cli.records import Status
from tagllm_cli.store.people import named, time_of
from tagllm_cli.text import one_line

Facts = list[tuple[str, str]]

_EXTREMES = 6  # labels shown of each kind
_UNKNOWN = "-"


def title(report: TableReport) -> str:
    """Return which table it is, in a line."""
    if report.counts is None:
        return f"{report.path}: {report.stage}, not written yet"
    return f"{report.path}: {report.stage} of {report.counts.rows.total():,} images"


def facts(report: TableReport) -> Facts:
    """Return what a table holds and how it was made."""
    found: Facts = []
    if report.counts is not None:
        found += _contents(report, report.counts)
    return [*found, *_plan(report), *_places(report), *_people(report)]


def _contents(report: TableReport, counts: TableCounts) -> Iterator[tuple[str, str]]:
    yield "rows", ", ".join(f"{counts.rows[each]:,} {each.value}" for each in Status if counts.rows[each]) or "none"
    what = "candidates" if report.stage == "candidates" else "labels"
    others = {
        "no": counts.no,
        "unknown": counts.unknown,
        "decided by people": counts.human,
        "answers outside the vocabulary": counts.unmatched,
    }
    mean = counts.labels.total() / max(1, counts.labeled)
    more = "".join(f"; {count:,} {name}" for name, count in others.items() if count)
    yield "labels", f"{counts.labels.total():,} {what}, {mean:.2f} per image{more}"
    ordered = counts.labels.most_common()
    if ordered:
        yield "  most often", _counted(ordered[:_EXTREMES])
    if rarest := ordered[_EXTREMES:][::-1][:_EXTREMES]:
        yield "  least often", _counted(rarest)
    if never := [name for name in report.info.vocabulary.names if not counts.labels[name]]:
        more = f" and {len(never) - _EXTREMES:,} more" if len(never) > _EXTREMES else ""
        of = f"{len(never):,} of {len(report.info.vocabulary.labels):,}"
        yield "  never", f"{of}: {', '.join(never[:_EXTREMES])}{more}"


def _counted(labels: Sequence[tuple[str, int]]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in labels)


def _plan(report: TableReport) -> Iterator[tuple[str, str]]:
    plan, vocabulary = report.info.plan, report.info.vocabulary
    if report.stage == "candidates":
        yield "strategy", _strategy(plan)
    yield "model", f"{plan.get('model', _UNKNOWN)}, images of up to {plan.get('max_pixels', 0):,} pixels"
    yield "vocabulary", f"{vocabulary.name}, {len(vocabulary.labels):,} labels"
    yield "prompts", _prompts(plan.get("templates", {})) + (", with concept cards" * _has_cards(plan))
    settings = {"min_votes": "--min-votes", "threshold": "--threshold", "min_mass": "--min-mass"}
    if report.stage == "candidates":  # one of them has no effect
        del settings["min_votes" if plan.get("strategy") == "binary" else "threshold"]
    if given := [f"{option} {plan[key]:g}" for key, option in settings.items() if key in plan]:
        own = plan.get("label_thresholds")
        yield (
            "thresholds",
            ", ".join([*given, *([] if own is None else [f"{_many(len(own), 'label')} with their own"])]),
        )


def _strategy(plan: Mapping[str, Any]) -> str:
    strategy = plan.get("strategy", DEFAULT_STRATEGY)
    if strategy != DEFAULT_STRATEGY:
        return str(strategy)
    arms = ", ".join(f"{arm} ({_many(len(groups), 'group')})" for arm, groups in plan.get("arms", {}).items())
    return f"{strategy} of up to {plan.get('group_size', 0):,} labels: {arms}"


def _prompts(templates: Mapping[str, Any]) -> str:
    built_in = load_templates()
    named = {name: Template.from_json(template) == built_in.get(name) for name, template in sorted(templates.items())}
    return ", ".join(name if is_same else f"{name} (not the built-in one)" for name, is_same in named.items())


def _has_cards(plan: Mapping[str, Any]) -> bool:
    return str(plan.get("cards", "none")) != "none"


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' * (count != 1)}"


def _places(report: TableReport) -> Iterator[tuple[str, str]]:
    source, evidence = report.info.source, report.evidence
    chosen = ", ".join(f"{key}={value}" for key, value in source.options.items() if value)
    yield "source", f"{source.kind} {source.uri}{f' ({chosen})' if chosen else ''}"
    if evidence is None:
        return
    if part := evidence.meta.get("part"):
        yield "part", str(part)
    if evidence.merged_tables:
        yield "merged", f"from {evidence.merged_tables:,} tables, whose runs are listed"
    unread = evidence.meta.get("unread")
    more = f"; {unread:,} shards are not read yet" if unread else ""
    state = "; a run is under way" if evidence.is_being_written else ""
    done = "" if evidence.completed is None else f", {evidence.completed:,} done"
    if len(answering := engines(report)) == 1:
        yield "engine", answering[0]
    yield "evidence", f"{evidence.path}, {_size(evidence.bytes)}, {evidence.images:,} images{done}{more}{state}"


def _people(report: TableReport) -> Iterator[tuple[str, str]]:
    """Yield what people decided: how much, who, from which files, where they disagree, and what applies to nothing."""
    people = report.evidence.people if report.evidence else None
    if people is None:
        return
    count = f"{_many(people.decisions, 'decision')} on record about {_many(people.images, 'image')}"
    yield "people", f"{count}, {time_of(people.first)[:10]} to {time_of(people.last)[:10]}"
    yield "  who", _counted([(named(who), count) for who, count in people.who.items()][:_EXTREMES])
    for number, (origin, count_, recorded) in enumerate(people.files[-_EXTREMES:]):
        yield "  from" if not number else "", f"{origin}: {count_:,}, imported {time_of(recorded)[:16]}"
    if people.conflicts:
        first = one_line(people.conflicts[0], 200)
        yield "  conflicts", f"{_many(len(people.conflicts), 'pair')} of image and label (first: {first})"
    for problem in people.problems(report.info.vocabulary.names):
        yield "  not applied", problem


def runs(report: TableReport, prices: Prices) -> Cells | None:
    """Return all runs on record, None without any. A + marks the seconds of a run without an end.

    What is the same of all runs (no failures, one engine, one table) has no column, so that 80 characters are enough.
    """
    if not report.runs:
        return None
    spent = [Cost.of(run) for run in report.runs]
    columns = {
        "started": [datetime.fromtimestamp(run.started).strftime("%Y-%m-%d %H:%M") for run in report.runs],
        "ended": [report.ended(run) for run in report.runs],
        "seconds": [_seconds(cost) for cost in spent],
        "asked": [_short(cost.requests) for cost in spent],
    }
    if any(cost.failed_requests for cost in spent):
        columns["failed"] = [_short(cost.failed_requests) for cost in spent]
    columns |= {name: [_tokens(cost)[name] for cost in spent] for name in _tokens(Cost())}
    if prices.are_known:
        columns["cost"] = [_money(prices.of(cost)) for cost in spent]
    if len(engines(report)) > 1:
        columns["engine"] = [run.engine or _UNKNOWN for run in report.runs]
    if report.evidence and report.evidence.merged_tables:
        columns["table"] = [str(run.report.get("table", _UNKNOWN)).rpartition("/")[2] for run in report.runs]
    return tuple(columns), list(zip(*columns.values(), strict=True))


def engines(report: TableReport) -> list[str]:
    """Return the engines that answered, in order."""
    return list(dict.fromkeys(run.engine for run in report.runs if run.engine))


def costs(report: InfoReport) -> Cells:
    """Return what each stage cost, and all of them together where there are several."""
    rows = [
        _cost_row(name, cost, images, report.prices, per_1000(report.prices.of(cost), images))
        for name, (cost, images) in report.stages.items()
    ]
    if len(rows) > 1:
        most = max(images for _, images in report.stages.values())
        rows.append(_cost_row("together", report.together, most, report.prices, report.per_1000_images))
    return tuple(rows[0]), [tuple(row.values()) for row in rows]


def _cost_row(name: str, cost: Cost, images: int, prices: Prices, price: float | None) -> dict[str, str]:
    hours = _three(cost.gpu_seconds / 3600)
    row = {"stage": name, "images": f"{images:,}", "hours": hours, **_tokens(cost)}
    return {**row, "cost": _money(prices.of(cost)), "per 1,000": _money(price)} if prices.are_known else row


def human(report: InfoReport) -> Facts:
    """Return what people would cost, the ratio, and what the figures leave out."""
    people, together, stages = report.human, report.together, list(report.stages)
    units = f"{_many(people.units_per_image, 'unit')} per image (one person, up to {LABELS_PER_UNIT} labels)"
    found = [
        ("people", f"{_money(people.per_1000_images)} per 1,000 images: {units}, {people.price:g} for 1,000 units")
    ]
    if people.price == HUMAN_PRICE:
        found.append(("", "list price of Google's data labeling service in US dollars; --human-price is yours"))
    if (ratio := report.ratio) is not None:
        share = f"1/{1 / ratio:,.0f}" if ratio <= 0.1 else f"{ratio:.2g} times"
        said = "" if len(stages) > 1 else f"; {stages[0]} alone: name the tables of both stages for the whole"
        found.append(("ratio", f"{share} of that (the paper says 1/{1 / PAPERS_RATIO:,.0f}){said}"))
    elif not report.prices.are_known:
        found.append(("ratio", "needs --gpu-price, or --price-in and --price-out"))
    notes = list(_notes(together, report.prices))
    return [*found, *(("note" if not number else "", note) for number, note in enumerate(notes))]


def _notes(cost: Cost, prices: Prices) -> Iterator[str]:
    if cost.without_seconds:
        yield f"runs whose seconds are not known count as 0 s: {cost.without_seconds:,}"
    if cost.without_end > cost.without_seconds:
        yield f"runs without an end, counted until their last answer (+): {cost.without_end - cost.without_seconds:,}"
    if prices.gpu_hour and cost.without_gpus and cost.gpu_seconds:
        yield "the runs do not say how many GPUs they had: --gpu-price is taken as the price of all of them"


def _tokens(cost: Cost) -> dict[str, str]:
    share = cost.cached_share
    cached = _UNKNOWN if share is None else f"{share:.0%}"
    return {"prompt": _short(cost.prompt_tokens), "cached": cached, "output": _short(cost.output_tokens)}


def _seconds(cost: Cost) -> str:
    if cost.without_seconds:
        return _UNKNOWN
    return f"{cost.seconds:,.1f}{'+' * cost.without_end}"


def _money(money: float | None) -> str:
    return _UNKNOWN if money is None else _three(money)


def _three(number: float) -> str:
    """Return a number with two digits behind the point, small ones with three that matter.

    >>> _three(1234.5), _three(0.01234), _three(0.0), _three(0.0000004321)
    ('1,234.50', '0.0123', '0.00', '0.000000432')
    """
    if number == 0 or abs(number) >= 1:
        return f"{number:,.2f}"
    digits = 2
    while digits < 15 and abs(number) * 10**digits < 100:
        digits += 1
    return f"{number:.{digits}f}"


def _short(count: int) -> str:
    """Return a count of tokens.

    >>> _short(9_999), _short(12_345), _short(2_345_678), _short(12_345_678_901)
    ('9,999', '12.3k', '2.35M', '12.3G')
    """
    for unit, name in ((10**9, "G"), (10**6, "M"), (10**4, "k")):
        if count >= unit:
            return f"{count / (1000 if name == 'k' else unit):.3g}{name}"
    return f"{count:,}"


def _size(count: int) -> str:
    """Return a number of bytes.

    >>> _size(999), _size(123_456), _size(4_500_000)
    ('999 bytes', '123 kB', '4.5 MB')
    """
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return f"{count:,} bytes"
