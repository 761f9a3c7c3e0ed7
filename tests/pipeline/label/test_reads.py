"""What is read: images that lack responses, shards that nobody knows, and a turn for others at each image besides."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tagllm_cli.labeling.plan import Plan
from tagllm_cli.pipeline.label.pending import RequestKeys
from tagllm_cli.pipeline.label.reads import Reads
from tagllm_cli.pipeline.label.recorder import Recorder
from tagllm_cli.store.evidence import Evidence
from tests.support.packing import packed
from tests.support.workspace import Workspace

IMAGES = 17


@pytest.mark.parametrize("place", ["folder", "tar", "parquet", "tar on S3"])
def test_images_that_are_complete_give_others_a_turn(tmp_path: Path, place: str) -> None:
    workspace = Workspace(tmp_path, IMAGES)
    workspace.source = packed(workspace.images, place, tmp_path / "packed")
    workspace.candidates(limit=12)
    job = workspace.candidates_job()
    with Evidence(job.evidence) as evidence:
        plan = Plan.from_json(evidence.meta("plan"))
        stage, keys = job.stage(plan), RequestKeys(plan.context())
        evidence.set_completed(next(evidence.iter_items())[0].image.id, b"asked with other questions")
        recorder = Recorder(evidence, lambda error: None)
        work = list(Reads(stage, evidence, keys, recorder, job.source, by_hash=False).work(listed_only=False))
    assert Counter(work) == {None: 12}  # the first one, too: its answers are on record
