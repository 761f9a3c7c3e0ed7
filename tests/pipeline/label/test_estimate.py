"""An estimate asks about a few images, keeps their answers, and is right about the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from tagllm_cli.errors import UsageError
from tagllm_cli.evaluation.cost import Prices
from tagllm_cli.pipeline.label.estimate import Estimate, estimate
from tagllm_cli.pipeline.label.job import RunOptions
from tagllm_cli.pipeline.label.jobs import follow_up_job
from tagllm_cli.pipeline.progress import Silent
from tests.support.packing import packed
from tests.support.workspace import MODEL, Workspace

IMAGES = 120
EACH = 4  # requests about an image in the first stage
PROMPT, LISTED = 60, 5  # tokens of each request and list, see rule_engine


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path, IMAGES)


def estimated(workspace: Workspace, images: int, *, both: bool = False, prices: Prices = Prices()) -> Estimate:  # noqa: B008 (frozen)
    options = RunOptions()
    job = workspace.candidates_job(options)
    labels = workspace._with_engine(follow_up_job(job, workspace.labels_out, MODEL, options)) if both else None
    return estimate(job, labels, options, Silent(), prices, images)


@pytest.mark.parametrize("place", ["folder", "tar", "tar on S3"])
def test_requests_of_candidates_are_counted_and_their_tokens_extrapolated(
    workspace: Workspace, tmp_path: Path, place: str
) -> None:
    workspace.source = packed(workspace.images, place, tmp_path / "packed")
    found = estimated(workspace, 10)
    (stage,) = found.stages
    assert (found.asked, len(workspace.engine.asked)) == (10, 10 * EACH)
    rest = (IMAGES - 10) * EACH
    assert (stage.images, stage.requests) == (IMAGES - 10, (rest, rest, rest))
    assert stage.prompt_tokens == (rest * PROMPT, rest * PROMPT, rest * PROMPT)
    assert stage.output_tokens[1] == rest * LISTED
    assert stage.hours is not None
    assert stage.money is None
    assert workspace.candidates().stats.asked == rest  # the answers of the estimate are kept


def test_the_second_stage_is_extrapolated_within_its_interval(workspace: Workspace) -> None:
    found = estimated(workspace, 60, both=True, prices=Prices(million_in=1.0))
    _, second = found.stages
    low, expected, high = second.requests
    assert low < expected < high
    assert second.money is not None
    assert second.money[1] == pytest.approx(second.prompt_tokens[1] / 1e6, rel=1e-3)
    _, rest = workspace.both()
    assert rest is not None
    assert low <= rest.stats.asked <= high


def test_the_same_images_again_cost_nothing(workspace: Workspace) -> None:
    estimated(workspace, 10)
    asked = len(workspace.engine.asked)
    again = estimated(workspace, 10)
    assert len(workspace.engine.asked) == asked
    assert again.stages[0].hours is None
    assert "unknown" in "\n".join(again.lines())


def test_money_needs_hours_or_tokens(workspace: Workspace) -> None:
    (stage,) = estimated(workspace, 10, prices=Prices(gpu_hour=3600.0, million_in=2.0, million_out=4.0)).stages
    assert stage.hours is not None
    assert stage.money is not None
    tokens = (stage.prompt_tokens[1] * 2.0 + stage.output_tokens[1] * 4.0) / 1e6
    assert stage.money[1] == pytest.approx(stage.hours[1] * 3600.0 + tokens, rel=1e-3)


def test_options_that_choose_images_are_refused(workspace: Workspace) -> None:
    for options in (RunOptions(limit=3), RunOptions(sample=3), RunOptions(offline=True), RunOptions(dry_run=True)):
        with pytest.raises(UsageError, match="--estimate draws the images itself"):
            estimate(workspace.candidates_job(RunOptions()), None, options, Silent(), Prices(), 5)
