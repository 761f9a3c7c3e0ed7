"""`evaluate --downstream`: the same classifier on every label set, with several seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from tagllm_cli.evaluation.downstream.backbone import Backbone, load_backbone
from tagllm_cli.evaluation.downstream.gap import Gap
from tagllm_cli.evaluation.downstream.inputs import Count, stored
from tagllm_cli.evaluation.downstream.label_sets import CERTAIN, UNJUDGED, LabelSets, load_label_sets
from tagllm_cli.evaluation.downstream.options import DownstreamOptions
from tagllm_cli.evaluation.downstream.result import Downstream, SetResult
from tagllm_cli.evaluation.downstream.scores import Draws, Figures, average_precisions, figures, mean_ap
from tagllm_cli.evaluation.downstream.train import Fitted, Recipe, Split, device, fit
from tagllm_cli.evaluation.entries import Array
from tagllm_cli.evaluation.truth import TruthOptions


def compare_downstream(
    table: Path,
    truth: Path,
    options: DownstreamOptions,
    count: Count,
    truth_options: TruthOptions = TruthOptions(),  # noqa: B008 (frozen)
) -> Downstream:
    """Train on each label set and test on the truth; `count` is told what is done, how much, and of how much.

    Raises UsageError, SourceError or ModelError for what cannot be used, before anything is trained.
    """
    options.check()
    sets = load_label_sets(table, truth, options, truth_options)
    backbone = load_backbone(options)
    encode, dtype = _encoder(options, backbone)
    with stored(sets, options.root, backbone.prepare, encode, dtype, count) as inputs:
        sets = sets.restricted(inputs.kept, inputs.left_out)
        sets.check()
        held = sets.is_validation if options.early_stopping else np.zeros_like(sets.is_test)
        split = Split(inputs, *(np.flatnonzero(each) for each in (~sets.is_test & ~held, held, sets.is_test)))
        found = _fit_all(sets, split, options, backbone, count)
        if options.plot is not None:
            from tagllm_cli.evaluation.downstream.plot import draw

            draw(found, options.plot)
        return found


def _encoder(options: DownstreamOptions, backbone: Backbone) -> tuple[Callable[[Array], Array], type]:
    """Return what makes of pixels what is stored: features, or the pixels themselves in half precision."""
    if options.trains_backbone:
        return (lambda pixels: pixels), np.float16
    import torch

    model = backbone.make().eval().to(device())

    def encode(pixels: Array) -> Array:
        with torch.no_grad():
            return np.asarray(model(torch.from_numpy(pixels).to(device())).cpu().numpy())

    return encode, np.float32


def _fit_all(sets: LabelSets, split: Split, options: DownstreamOptions, backbone: Backbone, count: Count) -> Downstream:
    epochs, total = options.passes, options.passes * options.seeds * len(sets.sets)
    recipe = Recipe(
        epochs,
        backbone.make if options.trains_backbone else None,
        options.trains_backbone and not options.is_scratch,
        options.early_stopping,
    )
    true = sets.sets[-1].targets[split.test]
    draws = Draws.of(len(split.test), options.seeds)
    results, by_name = [], dict[str, Figures]()
    for number, each in enumerate(sets.sets):
        fits = []
        for seed in range(options.seeds):
            before = epochs * (options.seeds * number + seed)
            done = iter(range(before + 1, before + epochs + 1))
            what = f"training on {each.name}, seed {seed + 1} of {options.seeds}, epochs"

            def after(scores: Array) -> float:
                count(what, next(done), total)  # noqa: B023 (called in this turn)
                return mean_ap(scores, true)

            fits.append(fit(split, each.targets, recipe, seed, after))
        by_name[each.name] = figures([one.scores for one in fits], true, draws)
        results.append(_result(each.name, each.targets[~sets.is_test], fits, by_name[each.name], true, draws))
    ours, *plain, truth = (each.name for each in sets.sets)
    return Downstream(
        *(backbone.name, options, device(), len(split.training), len(split.validation), len(split.test)),
        labels=sets.names,
        tested_labels=int((true == CERTAIN).any(0).sum()),
        sets=tuple(results),
        gaps=tuple(Gap.of(name, by_name, ours, truth, draws) for name in plain),
        left_out=sets.left_out,
        labels_left_out=sets.labels_left_out,
    )


def _result(name: str, targets: Array, fits: Sequence[Fitted], found: Figures, true: Array, draws: Draws) -> SetResult:
    by_label = np.mean([average_precisions(each.scores, true) for each in fits], axis=0)
    sums = [float(np.where(some == UNJUDGED, 0, some).sum()) / CERTAIN for some in np.array_split(targets, 16)]
    return SetResult(
        name,
        sum(sums) / max(1, len(targets)),
        found.interval(draws),
        tuple(found.maps.tolist()),
        tuple(each.kept for each in fits),
        tuple(each.curve for each in fits),
        tuple(None if np.isnan(each) else float(each) for each in by_label),
    )
