"""An estimate asks about a few images, keeps their answers, and is right about the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tagllm_cli.errors import InterruptedRunError, StoppedRunError, TooManyFailedError, UsageError
from tagllm_cli.evaluation.cost import Prices
from tagllm_cli.pipeline.label.budget import Limits
from tagllm_cli.pipeline.label.estimate import Estimate, estimate
from tagllm_cli.pipeline.label.job import RunOptions
from tagllm_cli.pipeline.label.jobs import follow_up_job
from tagllm_cli.pipeline.label.listing import Part
from tagllm_cli.pipeline.progress import Silent
from tests.pipeline.label.test_one_pass import Signalling
from tests.support.packing import packed
from tests.support.workspace import LABELS, MODEL, Workspace

IMAGES = 120
EACH = 4  # requests about an image in the first stage
PROMPT, LISTED = 60, 5  # tokens of each request and list, see rule_engine


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path, IMAGES)


def estimated(
    workspace: Workspace,
    images: int,
    *,
    both: bool = False,
    prices: Prices = Prices(),  # noqa: B008 (frozen)
    **chosen: Any,
) -> Estimate:
    options = RunOptions(**chosen)
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
    (stage,) = estimated(workspace, 10, prices=Prices(million_in=1.0)).stages
    assert stage.money is not None  # that of tokens needs no hours
    assert stage.money[1] == pytest.approx(stage.prompt_tokens[1] / 1e6)
    assert estimated(workspace, 10, prices=Prices(gpu_hour=1.0)).stages[0].money is None


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


@pytest.mark.parametrize("change", ["candidates alone were asked", "cards changed"])
def test_what_is_left_about_known_candidates_is_counted(tmp_path: Path, change: str) -> None:
    workspace = Workspace(tmp_path, 30)
    if change == "cards changed":
        workspace.both()
        workspace.write_vocabulary([{"name": label, "description": f"one {label} at least"} for label in LABELS])
    else:
        workspace.candidates()
    first, second = estimated(workspace, 8, both=True).stages
    assert (first.images, first.requests[1]) == (0, 0)
    _, rest = workspace.both()
    assert rest is not None
    assert second.requests == (rest.stats.asked,) * 3
    assert second.images == rest.stats.images > 0


def test_images_that_fail_are_told_beside_the_estimate(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, 6)
    for number in range(6):
        (workspace.images / f"broken{number}.png").write_bytes(b"no image")
    found = estimated(workspace, 10, both=True)
    assert isinstance(found.error, TooManyFailedError)
    assert [stage.command for stage in found.stages] == ["candidates", "disambiguate"]
    assert found.to_json()["error"]["kind"] == "TooManyFailedError"


def test_a_run_that_ends_early_is_no_estimate(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, 30)
    ends = {
        StoppedRunError: estimated(workspace, 20, both=True, limits=Limits(requests=10)),
        InterruptedRunError: estimated(interrupted(workspace), 20, both=True),
    }
    for kind, found in ends.items():
        assert isinstance(found.error, kind)
        assert (found.stages, "too early" in "".join(found.lines())) == ((), True)
        assert found.asked < 20


def interrupted(workspace: Workspace) -> Workspace:
    workspace.engine = Signalling(capacity=8, pause=0.001)
    return workspace


def test_images_that_are_looked_at_again_are_not_left(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, 12)
    workspace.candidates()
    (stage,) = estimated(workspace, 4, by_hash=True).stages
    assert (stage.images, stage.requests[1]) == (0, 0)


@pytest.mark.parametrize("place", ["folder", "tar on S3"])
def test_an_estimate_of_a_part_is_about_the_part(tmp_path: Path, place: str) -> None:
    workspace = Workspace(tmp_path, 40)
    workspace.source = packed(workspace.images, place, tmp_path / "packed")
    part = Part(0, 2)
    first, _ = estimated(workspace, 5, both=True, part=part).stages
    rest, _ = workspace.both(part=part)
    assert first.requests[1] == rest.stats.asked
