"""What `tagllm run` does with a label table: measure it against gates, show it in a report, export it.

A step whose table, options and output are as the last run left them is not done again; its result is the last one's.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import tagllm_cli
from tagllm_cli.errors import UsageError
from tagllm_cli.evaluation.cost import Prices
from tagllm_cli.evaluation.gates import MIN_OVERLAP, parse_gates
from tagllm_cli.evaluation.truth.base import TruthOptions
from tagllm_cli.export.base import ExportSettings
from tagllm_cli.export.registry import check_export, check_format, export_table, outputs
from tagllm_cli.labeling.threshold_file import decided_by
from tagllm_cli.pipeline.recipe.report import output_state
from tagllm_cli.store.atomic import file_state

_FIGURES = ("OP", "OR", "OF1", "CP", "CR", "CF1", "mAP")


@dataclass(frozen=True, slots=True)
class GateStep:
    """Human labels, and the least values of metrics, as `evaluate` takes them; without `specs` it only measures."""

    truth: Path
    specs: tuple[str, ...] = ()
    min_overlap: float = MIN_OVERLAP
    include_human: bool = False
    truth_options: TruthOptions = TruthOptions()  # noqa: RUF009 (frozen)


@dataclass(frozen=True, slots=True)
class ExportStep:
    """A format of export.registry.FORMATS, and where it goes."""

    format: str
    out: Path
    settings: ExportSettings = ExportSettings()  # noqa: RUF009 (frozen)


@dataclass(frozen=True, slots=True)
class ReportStep:
    """Where an HTML report of the label table goes; its figures are against the truth of `gates`, if there are any."""

    out: Path
    gates: GateStep | None = None
    prices: Prices = Prices()  # noqa: RUF009 (frozen)


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a step came to: `value` for the report, `lines` for people; `done` is False where nothing was to do."""

    value: Mapping[str, Any]
    lines: Sequence[str]
    done: bool
    missed: Sequence[str] = ()

    @property
    def warnings(self) -> Sequence[str]:
        """What makes the figures or the page doubtful."""
        return tuple(self.value.get("warnings", ()))


def check_steps(
    gates: GateStep | None, exports: Sequence[ExportStep], report: ReportStep | None, taken: Sequence[Path]
) -> None:
    """Raise UsageError for what could not be done after a night of labeling; no output may be one of `taken`."""
    if gates is not None:
        parse_gates(gates.specs)
        if not gates.truth.exists():
            raise UsageError(f"there is no truth file at {gates.truth}", "Correct --truth; nothing was asked.")
        taken = [*taken, gates.truth]
    used = {os.path.realpath(path): path for path in taken}
    for each in exports:
        check_format(each.format, each.settings)
        decided_by(each.settings.thresholds)
        for out in outputs(each.format, each.out, each.settings).values():
            if (place := os.path.realpath(out)) in used:
                raise UsageError(f"the export {out} would overwrite {used[place]}", "Choose another place for it.")
            used[place] = out
        check_export(each.format, each.out, each.settings)
    if report is not None:
        from tagllm_cli.evaluation.html.page import check_page

        check_page(report.out)
        if (place := os.path.realpath(report.out)) in used:
            raise UsageError(f"the report {report.out} would overwrite {used[place]}", "Choose another place for it.")


def check_gates(table: Path, step: GateStep, last: Mapping[str, Any] | None) -> StepResult:
    """Measure the label table, unless the `last` run's result still holds; gates are missed in that case, too.

    Raises UsageError for a truth file that cannot be used.
    """
    made_from = {
        "tagllm": tagllm_cli.__version__,
        "table": file_state(table),
        "truth": [os.path.abspath(step.truth), output_state(step.truth)],
        "fail_under": list(step.specs),
        "min_overlap": step.min_overlap,
        "include_human": step.include_human,
        "options": asdict(step.truth_options),
    }
    if last is not None and last.get("made_from") == made_from:
        value = {**last, "done": False}
        return StepResult(value, [_gates_line(value, "as the last run measured")], False, value["missed_gates"])
    from tagllm_cli.evaluation.summary import EvaluateOptions, evaluate_table

    report = evaluate_table(
        table,
        step.truth,
        gates=step.specs,
        truth_options=step.truth_options,
        min_overlap=step.min_overlap,
        options=EvaluateOptions(include_human=step.include_human),
    )
    value = {"done": True, **report.to_json(), "gates": list(step.specs), "warnings": report.warnings}
    value["made_from"] = made_from
    return StepResult(value, [_gates_line(value)], True, report.missed)


def _gates_line(value: Mapping[str, Any], how: str = "") -> str:
    found = ((name, value.get(name.lower())) for name in _FIGURES)
    figures = ", ".join(f"{name} {figure:.4f}" for name, figure in found if figure is not None)
    verdict = "" if not value["gates"] else "; gates missed" if value["missed_gates"] else "; all gates passed"
    return f"{value['truth']['path']}: {figures}{f' ({how})' if how else ''}{verdict}"


def write_page(table: Path, step: ReportStep, last: Mapping[str, Any] | None) -> StepResult:
    """Write the HTML report, unless what the `last` run wrote still stands. Raises UsageError as the gates do."""
    gates = step.gates
    made_from = {
        "tagllm": tagllm_cli.__version__,
        "table": file_state(table),
        "out": os.path.abspath(step.out),
        "truth": gates and [os.path.abspath(gates.truth), output_state(gates.truth), asdict(gates.truth_options)],
        "include_human": gates is not None and gates.include_human,
        "prices": step.prices.to_json(),
    }
    if last is not None and last.get("made_from") == made_from and last["left"] == file_state(step.out):
        return StepResult({**last, "done": False}, [f"{step.out}: up to date"], False)
    from tagllm_cli.evaluation.report.report import ReportOptions, write_report

    options = ReportOptions(prices=step.prices)
    if gates is not None:
        reading = gates.truth_options
        options = replace(options, truth=gates.truth, truth_options=reading, include_human=gates.include_human)
    summary = write_report(table, step.out, None, options)
    value = {"done": True, "out": str(step.out), "images": summary.images, "bytes": summary.bytes}
    value |= {"without_picture": dict(summary.reasons), "warnings": list(summary.warnings)}
    value |= {"made_from": made_from, "left": file_state(step.out)}
    return StepResult(value, summary.lines(), True)


def _state(file: Path | None) -> list[Any] | None:
    return None if file is None else [os.path.abspath(file), output_state(file)]


def export_labels(table: Path, steps: Sequence[ExportStep], last: Sequence[Any]) -> Iterator[StepResult]:
    """Write each export, unless what the `last` run wrote still stands. Raises UsageError as `export_table` does."""
    for step in steps:
        made_from = {
            "tagllm": tagllm_cli.__version__,
            "table": file_state(table),
            "format": step.format,
            "out": os.path.abspath(step.out),
            "options": {
                **json.loads(json.dumps(asdict(replace(step.settings, thresholds=None)))),  # as the report has them
                "thresholds": _state(step.settings.thresholds),
            },
        }
        outs = outputs(step.format, step.out, step.settings).values()
        before = next((each for each in last if each.get("made_from") == made_from), None)
        if before is not None and None not in before["left"] and before["left"] == [*map(output_state, outs)]:
            yield StepResult({**before, "done": False}, [f"{step.out}: up to date"], False)
            continue
        summary = export_table(table, step.format, step.out, step.settings)
        value = {"done": True, "format": step.format, "out": str(step.out), **summary.to_json()}
        value |= {"made_from": made_from, "left": [*map(output_state, outs)]}
        yield StepResult(value, summary.lines(), True)
