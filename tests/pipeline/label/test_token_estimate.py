"""What a dry run says about tokens: sums over the pending requests, with sizes from the record or from headers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Pixels

from tagllm_cli.engines.local.image_tokens import Size, TokenCounter
from tagllm_cli.errors import ModelError
from tagllm_cli.pipeline.label.job import RunOptions
from tagllm_cli.pipeline.label.run import run_job
from tagllm_cli.pipeline.label.summary import DryRun
from tagllm_cli.pipeline.label.token_estimate import SAMPLE, EvenSample, TokenEstimate
from tagllm_cli.pipeline.progress import Silent
from tagllm_cli.records import Image, Request
from tests.families.registry import built
from tests.support.command_line import tagllm
from tests.support.workspace import LABELS, Workspace

EACH = 4
IMAGES = 12
AREA = 8 * 8
DRY = RunOptions(dry_run=True)


class AreaCounter:
    """A token per pixel, and one per letter of the text; images thinner than 1:10 are refused."""

    def __init__(self, per_pixel: float = 1.0, cheaper: TokenCounter | None = None) -> None:
        self.per_pixel = per_pixel
        self.cheaper = cheaper

    def image(self, size: Size) -> int:
        if max(size) > 10 * min(size):
            raise ModelError("an image of this shape is refused")
        return round(size[0] * size[1] * self.per_pixel)

    def text(self, request: Request) -> int:
        return len(request.text)

    def bound(self) -> tuple[Mapping[str, Any], TokenCounter] | None:
        return None if self.cheaper is None else ({"max_patches": 4}, self.cheaper)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path, IMAGES)


def dry_run(workspace: Workspace, counter: TokenCounter | ModelError | None = None, **settings: Any) -> DryRun:
    """Run `candidates --dry-run` with a counter; an error is what the model's options raise."""

    def count() -> TokenCounter:
        if isinstance(counter, ModelError):
            raise counter
        return counter or AreaCounter()

    report = run_job(replace(workspace.candidates_job(DRY, **settings), counter=count), DRY, Silent())
    assert isinstance(report, DryRun)
    return report


def estimate(workspace: Workspace, counter: TokenCounter | None = None) -> TokenEstimate:
    tokens = dry_run(workspace, counter).tokens
    assert isinstance(tokens, TokenEstimate)
    return tokens


def add(workspace: Workspace, name: str, size: Size) -> None:
    Pixels.new("RGB", size).save(workspace.images / name)


def test_an_image_counts_with_each_of_its_requests_and_once_where_it_is_shared(workspace: Workspace) -> None:
    found = estimate(workspace)
    texts = round(found.per_text * IMAGES * EACH)
    assert (found.measured, found.per_image, found.least, found.most) == (IMAGES, AREA, AREA, AREA)
    assert found.prompt == texts + IMAGES * EACH * AREA
    assert found.computed == texts + IMAGES * AREA
    asked = workspace.candidates().stats.asked
    assert asked == IMAGES * EACH
    assert texts == sum(len(text) for _, text in workspace.engine.asked)


def test_sizes_on_record_are_not_read_again(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    add(workspace, "large.png", (100, 50))
    workspace.candidates()
    workspace.write_vocabulary([*LABELS, "bowl"])
    monkeypatch.setattr("tagllm_cli.sources.folder.Folder.read", None)
    found = estimate(workspace)
    assert (found.measured, found.least, found.most) == (IMAGES + 1, AREA, 5000)
    assert found.per_image == pytest.approx((IMAGES * AREA + 5000) / (IMAGES + 1))


def test_a_sample_stands_for_a_large_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tagllm_cli.pipeline.label.token_estimate.SAMPLE", 4)
    workspace = Workspace(tmp_path, 60)
    found = estimate(workspace)
    assert 4 <= found.measured < 8
    assert found.prompt - round(found.per_text * 60 * EACH) == 60 * EACH * AREA


@pytest.mark.parametrize("count", [1, SAMPLE, 2 * SAMPLE, 1000, 12_345])
def test_the_sample_lies_evenly(count: int) -> None:
    sample = EvenSample()
    for number in range(count):
        sample.add(Image(f"{number}", f"{number}"))
    numbers = [int(image.id) for image in sample.images]
    assert min(count, SAMPLE) <= len(numbers) < 2 * SAMPLE
    assert len({later - earlier for earlier, later in pairwise(numbers)}) <= 1
    assert numbers[0] == 0
    assert numbers[-1] >= count - count // SAMPLE - 1


def test_images_count_in_the_size_that_the_model_gets(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    add(workspace, "large.png", (3000, 2000))
    found = estimate(workspace)
    assert 990_000 < found.per_image <= 1_003_520
    assert found.cheaper is not None
    assert found.cheaper.option == "--max-pixels 501760"
    assert 490_000 < found.cheaper.per_image <= 501_760


def test_what_bounds_the_tiles_is_named_where_it_helps(workspace: Workspace) -> None:
    found = dry_run(workspace, AreaCounter(cheaper=AreaCounter(0.25))).lines()
    named = "  --engine-arg 'mm_processor_kwargs={\"max_patches\": 4}': about 16 tokens per image"
    assert [line for line in found if line.startswith(named)]
    assert estimate(workspace, AreaCounter(cheaper=AreaCounter(0.95))).cheaper is None
    assert estimate(workspace).cheaper is None  # no image is larger than half the pixel budget


def test_images_that_the_processor_refuses_are_left_out(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    add(workspace, "thin.png", (100, 2))
    assert dry_run(workspace).tokens == "tokens are not counted: an image of this shape is refused"
    add(workspace, "square.png", (10, 10))
    assert estimate(workspace).per_image == 100


def test_files_that_are_no_images_are_left_out(workspace: Workspace) -> None:
    (workspace.images / "broken.png").write_bytes(b"no picture")
    found = estimate(workspace)
    assert (found.per_image, found.measured) == (AREA, IMAGES)
    for path in workspace.images.iterdir():
        path.write_bytes(b"no picture")
    assert dry_run(workspace).tokens == "tokens are not counted: the size of no image is known"


def test_very_many_sizes_are_sampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tagllm_cli.pipeline.label.token_estimate._MOST_SIZES", 5)
    workspace = Workspace(tmp_path)
    for side in range(20, 40):
        add(workspace, f"{side}.png", (side, side))
    found = estimate(workspace)
    assert (found.least, found.most < 40 * 40) == (400, True)
    assert found.per_image == pytest.approx(sum(side * side for side in range(20, 40)) / 20, rel=0.15)


def test_a_dry_run_without_anything_to_ask_counts_nothing(workspace: Workspace) -> None:
    workspace.candidates()
    report = dry_run(workspace, ModelError("counted all the same"))
    assert (report.tokens, report.to_json()["tokens"], report.to_json()["tokens_note"]) == (None, None, None)


def test_why_tokens_are_not_counted_is_told(workspace: Workspace) -> None:
    report = workspace.dry_run()
    note = "tokens are not counted: the answers come from a recording"
    assert note in report.lines()
    assert (report.to_json()["tokens"], report.to_json()["tokens_note"]) == (None, note)


def test_a_model_that_would_be_loaded_here_is_counted_without_loading_it(workspace: Workspace) -> None:
    add(workspace, "large.png", (640, 480))
    line = f"candidates {workspace.images} --vocab {workspace.vocabulary} --out {workspace.out} --group-size 5"
    done = tagllm(f"{line} --model {built('internvl')} --engine-arg load_format=dummy --dry-run --json")
    assert done.exit_code == 0, done.output
    tokens = json.loads(done.stdout)["tokens"]
    assert (tokens["per_image"]["least"], tokens["per_image"]["most"]) == (258, 3330)
    assert tokens["per_image"]["mean"] == pytest.approx((IMAGES * 258 + 3330) / (IMAGES + 1), abs=0.1)
    option = "--engine-arg 'mm_processor_kwargs={\"max_patches\": 4}'"
    assert tokens["cheaper"] == {"option": option, "per_image": 258.0}
    assert 0 < tokens["computed"] < tokens["prompt"]
    assert not workspace.out.exists()
