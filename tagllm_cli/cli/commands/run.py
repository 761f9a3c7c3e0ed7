"""`tagllm run`."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tagllm_cli.cli.option_groups import (
    ColumnGroup,
    EngineGroup,
    MethodGroup,
    ModelGroup,
    OutputGroup,
    RecordingGroup,
    SourceGroup,
)
from tagllm_cli.cli.options.base import RECIPE_KEY
from tagllm_cli.cli.options.labeling import (
    CandidateThreshold,
    ChangedBy,
    ChangeDetection,
    Concepts,
    ExportTo,
    GateTruth,
    LabelsOut,
    MinMass,
    SourceOrPipeline,
    Threshold,
    ThresholdFile,
    Vocab,
)
from tagllm_cli.cli.options.measuring import FailUnder, MinOverlap
from tagllm_cli.cli.options.shared import Config, MaxPixels, Prompts
from tagllm_cli.cli.run_groups import BudgetGroup, RayGroup, RunGroup
from tagllm_cli.errors import UsageError

if TYPE_CHECKING:
    from tagllm_cli.evaluation.cost import Prices
    from tagllm_cli.pipeline.recipe.file import Recipe
    from tagllm_cli.pipeline.recipe.steps import ExportStep, GateStep, ReportStep


def run(
    source: SourceOrPipeline,
    *,
    vocab: Vocab,
    out: LabelsOut,
    model: ModelGroup,
    method: MethodGroup,
    candidate_threshold: CandidateThreshold = 0.5,
    concepts: Concepts = None,
    thresholds: ThresholdFile = None,
    threshold: Threshold = None,
    min_mass: MinMass = 0.5,
    truth: GateTruth = None,
    fail_under: FailUnder = None,
    min_overlap: MinOverlap = 0.9,
    export: ExportTo = None,
    listing: SourceGroup,
    columns: ColumnGroup,
    config: Config = None,
    prompts: Prompts = None,
    max_pixels: MaxPixels = None,
    engine: EngineGroup,
    recording: RecordingGroup,
    options: RunGroup,
    ray: RayGroup,
    budget: BudgetGroup,
    changed_by: ChangedBy = ChangeDetection.stat,
    output: OutputGroup,
) -> None:
    """Label images: candidates, labels, gates and exports in one command. Only what changed is done again.

    [dim]tagllm run photos/ --vocab coco --model MODEL --out labels.parquet
    tagllm run photos/ --vocab coco --model MODEL --out labels.parquet --export coco=labels.json
    tagllm run pipeline.yaml --quiet[/]

    A pipeline file holds the same options, and paths relative to itself:
        source: photos/
        vocab: coco
        model: MODEL
        out: labels.parquet
        gates: {truth: truth.csv, fail_under: {of1: 0.8}}
        exports:
          - {format: coco, out: labels.json}
        report: report.html
    """
    from tagllm_cli.cli.outcome import show
    from tagllm_cli.cli.redact import redact
    from tagllm_cli.errors import TableError
    from tagllm_cli.evaluation.frontier import candidates_of
    from tagllm_cli.labeling.threshold_file import decided_by
    from tagllm_cli.pipeline.label.jobs import candidates_job, follow_up_job
    from tagllm_cli.pipeline.recipe.run import Work, dry_run, run_work
    from tagllm_cli.store.atomic import check_writable_path
    from tagllm_cli.store.run_lock import run_lock

    recipe: Recipe | None = model.context.meta.get(RECIPE_KEY)
    console = output.console(None if options.dry_run else out)
    run_options = options.run_options(budget.limits(), by_hash=changed_by is ChangeDetection.hash)
    models = engine.model_options(
        model, console, verbose=output.verbose, prompts=prompts, max_pixels=max_pixels, recording=recording
    )
    run_options, models = ray.place(run_options, models)
    check_writable_path(out, TableError)
    with contextlib.nullcontext() if options.dry_run else run_lock(out):
        first = candidates_job(
            source,
            vocab,
            candidates_of(out),
            models,
            run_options,
            **method.job_options(candidate_threshold),
            source_options=listing.source_options(columns.image_column, columns.id_column),
            source_format=listing.source_format,
        )
        limits, file = decided_by(thresholds, threshold, min_mass)
        second = follow_up_job(
            first, out, models, run_options, concepts=concepts, thresholds=limits, threshold_file=file
        )
        if budget.estimate is not None:
            from tagllm_cli.pipeline.label.estimate import estimate

            show(estimate(first, second, run_options, console, budget.prices(), budget.estimate), console)
            return
        gates, exports = _gates(truth, fail_under or (), min_overlap, recipe), _exports(export or (), recipe)
        page = _page(recipe, gates, budget.prices())
        work = Work(first, second, run_options, gates, exports, page)
        show(dry_run(work, console) if options.dry_run else run_work(work, console, redact), console)


def _gates(truth: Path | None, specs: Sequence[str], min_overlap: float, recipe: Recipe | None) -> GateStep | None:
    """Return what is measured; how a truth is read stands in a pipeline file, for the truth that it names."""
    from tagllm_cli.evaluation.truth import TruthOptions
    from tagllm_cli.pipeline.recipe.steps import GateStep

    if truth is None:
        if specs:
            raise UsageError("--fail-under needs a truth", "Add --truth FILE, human labels of some of the images.")
        return None
    file = recipe.gates if recipe is not None and recipe.gates and Path(recipe.gates.truth) == truth else None
    if file is None:
        return GateStep(truth, tuple(specs), min_overlap)
    reading = TruthOptions(file.image_column, file.label_column, file.separator)
    return GateStep(truth, tuple(specs), min_overlap, file.include_human, reading)


def _page(recipe: Recipe | None, gates: GateStep | None, prices: Prices) -> ReportStep | None:
    """Return the HTML report that a pipeline file wants."""
    from tagllm_cli.pipeline.recipe.steps import ReportStep

    return ReportStep(Path(recipe.report), gates, prices) if recipe is not None and recipe.report else None


def _exports(typed: Sequence[str], recipe: Recipe | None) -> list[ExportStep]:
    """Return the exports that are typed, else those of the pipeline file."""
    from tagllm_cli.pipeline.recipe.steps import ExportStep

    steps = []
    for each in typed:
        name, _, path = each.partition("=")
        if not path:
            raise UsageError(f"--export takes FORMAT=PATH, not {each!r}", "For example --export coco=labels.json.")
        steps.append(ExportStep(name, Path(path)))
    if steps or recipe is None:
        return steps
    return [ExportStep(each.format, Path(each.out), each.settings()) for each in recipe.exports]
