"""Questions about images that show nothing: what is asked, recorded, subtracted, and kept only where it helps."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import yaml

from tagllm_cli.engines.factory import ModelOptions
from tagllm_cli.errors import UsageError
from tagllm_cli.evaluation.thresholds import counts as counts_of_thresholds
from tagllm_cli.evaluation.thresholds.counts import count, grid_of
from tagllm_cli.evaluation.thresholds.crossfit import cross_fit
from tagllm_cli.evaluation.thresholds.figures import held_out, is_predicted
from tagllm_cli.evaluation.thresholds.fit import expit
from tagllm_cli.evaluation.thresholds.metric import Metric
from tagllm_cli.labeling.threshold_file import decided_by, load_thresholds
from tagllm_cli.pipeline.label.job import RunOptions
from tagllm_cli.pipeline.label.jobs import candidates_job, disambiguate_job
from tagllm_cli.pipeline.label.run import run_job
from tagllm_cli.pipeline.label_bias import (
    SIDE,
    TILES,
    LabelBias,
    blank_images,
    calibrate_by_bias,
    evidence_of,
    measure_bias,
    shuffled,
)
from tagllm_cli.pipeline.progress import Silent
from tagllm_cli.records import DecodedImage, Failure, Request, Response
from tagllm_cli.store.table import open_table
from tests.evaluation.judged import comparison_of
from tests.support.live import IMAGES, LiveEngine
from tests.support.live import MODEL as DEMO_MODEL
from tests.support.rule_engine import RuleEngine
from tests.support.workspace import LABELS, MODEL, Workspace

READY = dict(zip(LABELS, (2.0, 1.0, 0.0, -1.0, -2.0, 0.5, -0.5, 0.0), strict=True))


def biased(picture: DecodedImage | None, request: Request) -> Response:
    """An answer whose logit is the label's bias, less 3 where the image shows nothing: all images here."""
    name = next(name for name in LABELS if re.search(rf"\b{name}\b", request.text))
    yes = 1 / (1 + math.exp(3 - READY[name]))
    return Response("no", first_logprobs={"yes": math.log(yes), "no": math.log(1 - yes)})


@pytest.fixture
def done(tmp_path: Path) -> Workspace:
    workspace = Workspace(tmp_path, 12)
    workspace.candidates()
    workspace.disambiguate()
    workspace.engine = RuleEngine(answer=biased)
    return workspace


def measured(
    workspace: Workspace, images: int = 3, concepts: str | None = None, model: ModelOptions = MODEL
) -> LabelBias:
    evidence = evidence_of(workspace.out.with_name("thresholds.yaml"))
    return measure_bias(workspace.labels_out, evidence, concepts, model, images, engine=lambda plan: workspace.engine)


def test_every_question_is_asked_about_blank_and_shuffled_images_once(done: Workspace) -> None:
    found = measured(done)
    assert found.asked == len(done.engine.asked) == 2 * 3 * len(LABELS)
    assert len({text for _, text in done.engine.asked}) == len(LABELS)
    assert len({picture for picture, _ in done.engine.asked}) == 6
    for kind in (found.blank, found.shuffled):
        assert kind == pytest.approx({name: each - 3 for name, each in READY.items()}, abs=1e-6)
    mean = sum(READY.values()) / len(READY)
    assert found.offsets() == pytest.approx({name: each - mean for name, each in READY.items()}, abs=1e-6)


def test_what_was_answered_is_never_asked_again(done: Workspace) -> None:
    first = measured(done)
    done.engine = RuleEngine(answer=lambda picture, request: Response("yes", first_logprobs={"yes": -0.1}))
    again = measured(done)
    assert (again.asked, done.engine.started) == (0, 0)
    assert again.offsets() == first.offsets()
    assert measured(done, 4).asked == 2 * len(LABELS)


def test_what_failed_is_counted_and_asked_again(done: Workspace) -> None:
    done.engine = RuleEngine(
        answer=biased,
        fault=lambda picture, request: Failure("timeout", "slow") if re.search(r"\bcat\b", request.text) else None,
    )
    found = measured(done)
    assert found.failed == 6
    assert "cat" not in found.blank
    done.engine = RuleEngine(answer=biased)
    assert (measured(done).asked, measured(done).failed) == (6, 0)


def test_other_cards_and_another_model_are_refused_before_anything_is_asked(done: Workspace, tmp_path: Path) -> None:
    cards = tmp_path / "cards.yaml"
    cards.write_text("cards:\n- {name: cat, description: a small furry pet}\n")
    with pytest.raises(UsageError, match=r"asked about 1 labels in other words \(cat\)"):
        measured(done, concepts=str(cards))
    with pytest.raises(UsageError, match="the table is of the model rules"):
        measured(done, model=ModelOptions(replay=Path("nothing"), model_id="other"))
    assert done.engine.asked == []


def test_bias_alone_shifts_the_thresholds_as_logits(done: Workspace) -> None:
    bias = measured(done)
    out = done.out.with_name("thresholds.yaml")
    calibrate_by_bias(done.labels_out, out, bias)
    offsets = bias.offsets()
    assert decided_by(out)[0].per_label == pytest.approx(
        {name: float(expit(np.array(offsets[name]))) for name in LABELS}
    )
    assert load_thresholds(out).metric == "bias"
    limits, file = decided_by(out)
    assert done.disambiguate({"thresholds": limits, "threshold_file": file}).stats.asked == 0
    assert open_table(done.labels_out).info.plan["label_thresholds"] == dict(limits.per_label)


@pytest.mark.live
def test_a_real_model_is_asked_once_and_its_bias_moves_the_thresholds(live_engine: LiveEngine, tmp_path: Path) -> None:
    table, names = tmp_path / "labels.parquet", ("cat", "dog", "cup", "boat")
    model, options = ModelOptions(model=str(DEMO_MODEL)), RunOptions(limit=3)
    job = candidates_job(str(IMAGES), _few(tmp_path, names), tmp_path / "c.parquet", model, options)
    run_job(replace(job, engine=lambda plan: live_engine.handle()), options, Silent())
    job = disambiguate_job(tmp_path / "c.parquet", table, model, RunOptions())
    run_job(replace(job, engine=lambda plan: live_engine.handle()), RunOptions(), Silent())
    out = tmp_path / "thresholds.yaml"

    def ask() -> LabelBias:
        return measure_bias(table, evidence_of(out), None, model, 1, engine=lambda plan: live_engine.handle())

    found = ask()
    assert (found.asked, found.failed, set(found.blank)) == (2 * len(names), 0, set(names))
    assert all(-14 <= each <= 14 for kind in (found.blank, found.shuffled) for each in kind.values())
    assert len(set(found.blank.values())) > 1
    assert sum(found.offsets().values()) == pytest.approx(0, abs=1e-6)
    again = ask()
    assert (again.asked, again.offsets()) == (0, found.offsets())
    thresholds = calibrate_by_bias(table, out, found).limits().per_label
    order = sorted(names, key=lambda name: found.offsets()[name])
    assert sorted(names, key=lambda name: thresholds[name]) == order


def _few(folder: Path, names: Sequence[str]) -> str:
    path = folder / "few.yaml"
    path.write_text(yaml.safe_dump({"name": "few", "labels": list(names)}))
    return str(path)


def test_shuffled_images_have_the_same_tiles_in_another_order() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4 * 9 + 3, 4 * 7 + 1, 3), dtype=np.uint8)
    result = np.asarray(shuffled(PIL.Image.fromarray(pixels)))
    assert result.shape == (36, 28, 3)

    def tiles(image: np.ndarray) -> list[bytes]:
        return [image[9 * y : 9 * y + 9, 7 * x : 7 * x + 7].tobytes() for y in range(TILES) for x in range(TILES)]

    assert sorted(tiles(result)) == sorted(tiles(pixels))
    assert tiles(result) != tiles(pixels)


def test_blank_images_are_gray_and_noise_and_the_same_each_time() -> None:
    files = list(blank_images(3))
    assert files == list(blank_images(3))
    first, second, _ = (np.asarray(PIL.Image.open(io.BytesIO(each))) for each in files)
    assert first.shape == (SIDE, SIDE, 3)
    assert set(np.unique(first)) == {128}
    assert second.std() > 50


def with_offsets(offsets: np.ndarray, seed: int) -> tuple[bool, float, float]:
    """Whether offsets are used, and the held-out mean F1 without and with them: 24 labels with a bias, few examples."""
    random = np.random.default_rng(seed)
    bias = np.random.default_rng(5).normal(0, 1.5, 24)
    present = random.random((100, 24)) < 0.1
    logits = np.where(present, 1.6, -2.6) + random.normal(0, 1.2, present.shape) + bias
    probability = expit(logits).astype(np.float32)
    comparison, folds = comparison_of(probability, present), random.permutation(100) % 3
    grid = grid_of(probability.ravel(), 24, 0.5)
    counts = count(comparison, folds, grid)
    values = []
    for each in (None, offsets * bias if offsets.size == 1 else offsets):
        found = cross_fit(counts, Metric("f1"), seed, each)
        values.append(
            held_out(comparison, is_predicted(comparison, grid, found.held_out, folds)).after["mean F1"].value
        )
    return found.chosen.with_offsets, values[0], values[1]


@pytest.fixture
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """A grid of fewer thresholds: faster, and close enough."""
    monkeypatch.setattr(counts_of_thresholds, "GRID", 96)


@pytest.mark.usefixtures("coarse")
def test_true_bias_helps_labels_with_few_examples_and_is_used() -> None:
    results = [with_offsets(np.array([1.0]), seed) for seed in range(3)]
    assert sum(used for used, _, _ in results) >= 2
    assert min(after - before for _, before, after in results) > 0.02


@pytest.mark.usefixtures("coarse")
def test_bias_that_is_noise_does_no_harm() -> None:
    noise = np.random.default_rng(9).normal(0, 1.5, 24)
    results = [with_offsets(noise, seed) for seed in range(3)]
    assert np.mean([after - before for _, before, after in results]) > -0.02
