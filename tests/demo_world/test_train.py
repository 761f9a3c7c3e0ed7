"""Training the demo model: interrupted, it goes on from its checkpoint; finished, it leaves files that load."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests.demo import modelling, pool, reading, train
from tests.demo.train import Run, Stage, Steps

pytestmark = pytest.mark.slow

MINUTES = 9 / 60


@pytest.fixture(name="work")
def fixture_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A work folder with a tiny pool, and a plan of a few steps."""
    monkeypatch.setattr(pool, "CHUNK", 8)
    monkeypatch.setattr(train, "SEEN", 8)
    monkeypatch.setattr(train, "ROWS", 4)
    monkeypatch.setattr(reading, "LENGTH", 192)
    # Each look at the clock is a second later: a stage is three steps, however slow the machine.
    seconds = itertools.count()
    clock = SimpleNamespace(monotonic=lambda: float(next(seconds)), sleep=time.sleep, strftime=time.strftime)
    monkeypatch.setattr(train, "time", clock)
    monkeypatch.setattr(train, "PLAN", tuple(Stage(part, 1 / 3, 1e-3) for part in ("vision", "text", "joint")))
    folder = tmp_path / "work"
    (folder / "pool").mkdir(parents=True)
    for number in range(4):
        pool.write_chunk(folder / "pool", number)
    return folder


def _weights(run: Run) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in run.model.parameters()])


def test_interrupted_training_goes_on_and_ends_with_a_model(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the text stage loses nothing: weights, moments and counts are those of the moment."""
    reached: list[torch.Tensor] = []
    untouched = Steps.text

    def interrupted(self: Steps) -> torch.Tensor:
        if self.run.counts["questions"]:
            reached.append(_weights(self.run))
            raise KeyboardInterrupt
        return untouched(self)

    monkeypatch.setattr(Steps, "text", interrupted)
    out = work.parent / "model"
    train.train(out, work, minutes=MINUTES, chunks=4, compiled=False)
    assert not out.exists()
    resumed = Run(work, minutes=MINUTES)
    assert resumed.stage == 1
    assert resumed.elapsed == 1
    torch.testing.assert_close(_weights(resumed), reached[0], rtol=0, atol=0)
    counts = dict(resumed.counts)
    assert resumed.begin(train.PLAN[1]).state_dict()["state"]

    monkeypatch.setattr(Steps, "text", untouched)
    train.train(out, work, minutes=MINUTES, chunks=4, compiled=False)
    ended = Run(work, minutes=MINUTES)
    assert ended.stage == 3
    assert ended.counts["questions"] > counts["questions"]
    assert ended.counts["pictures"] == 3 * 8 + 2 * 3 * 4
    assert not torch.equal(_weights(ended), reached[0])
    _loads(out, ended)


def _loads(out: Path, run: Run) -> None:
    """The files hold the weights in bfloat16, and the tokenizer with its chat template."""
    from transformers import AutoTokenizer, Idefics3ForConditionalGeneration

    model = Idefics3ForConditionalGeneration.from_pretrained(out)
    assert model.dtype == torch.bfloat16
    kept = run.model.model.connector.modality_projection.proj.weight.to(torch.bfloat16)
    torch.testing.assert_close(model.model.connector.modality_projection.proj.weight, kept, rtol=0, atol=0)
    assert AutoTokenizer.from_pretrained(out).chat_template == modelling.CHAT_TEMPLATE


def test_a_checkpoint_that_broke_off_is_not_read(work: Path) -> None:
    """Killed between write and rename, the run goes on from the checkpoint before."""
    run = Run(work, minutes=1)
    run.counts["pictures"] = 7
    run.save()
    (work / ".state.pt").write_bytes(b"half of one")
    assert Run(work, minutes=1).counts["pictures"] == 7


def test_a_chunk_that_broke_off_is_not_ready(work: Path) -> None:
    """A chunk counts from the moment its second file has its name."""
    folder = work / "pool"
    (folder / "00003.cells.npy").unlink()
    (folder / ".00003.cells.1").write_bytes(b"half")
    assert pool.ready(folder) == [0, 1, 2]
    pool.write_chunk(folder, 3)
    assert pool.ready(folder) == [0, 1, 2, 3]


def test_the_learning_rate_rises_and_falls() -> None:
    """A warm-up from 2%, the highest rate early, 2% at the end."""
    rates = [train.rate_at(step / 1000) for step in range(1001)]
    assert max(rates) > 0.99
    assert rates.index(max(rates)) < 50
    assert rates[0] < 0.03
    assert rates[-1] == pytest.approx(0.02)
