"""Trains the demo model from nothing: `python -m tests.demo.train`. Interrupted, the same command goes on."""

from __future__ import annotations

import argparse
import math
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor, nn

from tests.demo import modelling, pool, reading, vision, wordings
from tests.demo.things import THINGS

CHECKPOINT_SECONDS = 120
SEEN, ROWS = 64, 12  # pictures in a step of the tower, rows in a step of the text model


@dataclass(frozen=True, slots=True)
class Stage:
    """One stretch of training with its own learning-rate curve."""

    part: str
    """"vision": the tower under its heads. "text": the text model on a frozen tower. "joint": both."""
    share: float
    """Share of the whole time, 0 to 1."""
    rate: float
    """Highest learning rate of AdamW."""


# Short rounds first, so that a rough model exists early; each later stage goes on from what the earlier ones left.
PLAN = (
    Stage("vision", 0.074, 1e-3),
    Stage("text", 0.025, 1e-3),
    Stage("vision", 0.197, 1e-3),
    Stage("text", 0.154, 1e-3),
    Stage("joint", 0.166, 5e-4),
    Stage("vision", 0.143, 8e-4),
    Stage("text", 0.066, 8e-4),
    Stage("joint", 0.175, 5e-4),
)


class Run:
    """A training run: what it learns, how far it is, and its checkpoint in `work`."""

    def __init__(self, work: Path, minutes: float) -> None:
        """Starts afresh, or where the checkpoint in `work` ends."""
        self.work, self.seconds = work, minutes * 60
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.manual_seed(0)
        self.tokenizer: Any = self._tokenizer()
        self.model: Any = modelling.build_model(self.tokenizer).to(self.device)
        self.heads = vision.Heads().to(self.device)
        self.readers = reading.Readers().to(self.device)
        self.stage, self.elapsed, self.total = 0, 0.0, 0.0
        self.counts = {"pictures": 0, "questions": 0}
        self.optimiser: torch.optim.Optimizer | None = None
        self._optimiser_state: dict[str, Any] | None = None
        self._load()

    def _tokenizer(self) -> Any:
        # Kept with the checkpoint: built anew after a wording has changed, it would no longer fit the embeddings.
        kept = self.work / "tokenizer"
        if not kept.exists():
            fresh = modelling.build_tokenizer(wordings.corpus())
            fresh.save_pretrained(self.work / ".tokenizer")
            (self.work / ".tokenizer").rename(kept)
        return modelling.load_tokenizer(kept)

    def _load(self) -> None:
        path = self.work / "state.pt"
        if path.exists():
            state = torch.load(path, map_location=self.device, weights_only=True)
            self.model.load_state_dict(state["model"])
            self.heads.load_state_dict(state["heads"])
            self.readers.load_state_dict(state["readers"])
            self.stage, self.elapsed, self.total = state["stage"], state["elapsed"], state["total"]
            self.counts, self._optimiser_state = state["counts"], state["optimiser"]

    def save(self) -> None:
        """Writes the checkpoint; a reader sees the old one or the new one, never half of one."""
        fresh = self.work / ".state.pt"
        state = {
            "model": self.model.state_dict(), "heads": self.heads.state_dict(), "readers": self.readers.state_dict(),
            "counts": self.counts, "stage": self.stage, "elapsed": self.elapsed, "total": self.total,
            "optimiser": self.optimiser.state_dict() if self.optimiser else None,
        }  # fmt: skip
        with fresh.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        fresh.rename(self.work / "state.pt")

    def begin(self, stage: Stage) -> torch.optim.Optimizer:
        """The optimiser of a stage; with its moments when the stage goes on after an interruption."""
        trained = self._trained(stage.part)
        for parameter in [*self.model.parameters(), *self.heads.parameters(), *self.readers.parameters()]:
            parameter.requires_grad_(False)
        for parameter in trained:
            parameter.requires_grad_(True)
        matrices = [p for p in trained if p.ndim > 1]
        others = [p for p in trained if p.ndim <= 1]
        groups = [{"params": matrices, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
        self.optimiser = torch.optim.AdamW(groups, lr=stage.rate, betas=(0.9, 0.98), fused=True)
        if self._optimiser_state is not None:
            self.optimiser.load_state_dict(self._optimiser_state)
            self._optimiser_state = None
        return self.optimiser

    def _trained(self, part: str) -> list[nn.Parameter]:
        inner = self.model.model
        tower = [*inner.vision_model.parameters(), *inner.connector.parameters(), *self.heads.parameters()]
        text = [*inner.text_model.parameters(), *self.readers.parameters()]
        return {"vision": tower, "text": text, "joint": tower + text}[part]


def rate_at(progress: float) -> float:
    """Learning rate as a share of the highest: a short warm-up, then a cosine down to 2%. `progress` is 0 to 1."""
    return min(1.0, progress / 0.03 + 0.02) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0))))


def run_stage(run: Run, stage: Stage, step: Callable[[], Tensor]) -> None:
    """Trains one stage until its share of the time is used up."""
    optimiser, budget = run.begin(stage), stage.share * run.seconds
    saved = spoken = time.monotonic()
    mean = 0.0
    while run.elapsed < budget:
        started = time.monotonic()
        for group in optimiser.param_groups:
            group["lr"] = stage.rate * rate_at(run.elapsed / budget)
        loss = step()
        loss.backward()
        nn.utils.clip_grad_norm_([p for group in optimiser.param_groups for p in group["params"]], 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        mean = 0.98 * mean + 0.02 * float(loss.detach()) if mean else float(loss.detach())
        now = time.monotonic()
        run.elapsed += now - started
        run.total += now - started
        if now - spoken > 30:
            where = f"stage {run.stage + 1}/{len(PLAN)} {stage.part} {run.elapsed / 60:.1f} min"
            say(f"{where}, loss {mean:.3f}, {run.counts}")
            spoken = now
        if now - saved > CHECKPOINT_SECONDS:
            run.save()
            saved = now


class Steps:
    """What one step of each kind of stage does: draws data, runs the model, returns the loss."""

    def __init__(self, run: Run, compiled: bool) -> None:
        """`compiled`: run the text model through torch.compile, which needs a C++ compiler and pays after a minute."""
        self.run = run
        seed = int(run.total)
        self.pictures = vision.Pictures(run.work / "pool", seed)
        self.packer, self.rng = reading.Packer(run.tokenizer), Random(seed)
        self.run_text = torch.compile(reading.run_text, dynamic=False) if compiled else reading.run_text
        self.ahead: queue.Queue[tuple[Any, Any, list[reading.Row]]] = queue.Queue(4)
        self.packing: threading.Thread | None = None

    def vision(self) -> Tensor:
        """The tower alone."""
        pixels, cells = self.pictures.draw(SEEN)
        self.run.counts["pictures"] += len(pixels)
        with vision.mixed_precision(self.run.device):
            return vision.loss(self.run.heads, vision.tokens(self.run.model, pixels, self.run.device), cells)

    def text(self) -> Tensor:
        """The text model over a frozen tower."""
        return self._read(joint=False)

    def joint(self) -> Tensor:
        """Everything, the tower's own loss included."""
        return self._read(joint=True)

    def _pack(self) -> None:
        while True:
            pixels, cells = self.pictures.draw(ROWS)
            rows = [self.packer.row(self.rng, shown) for shown in shown_in(cells)]
            self.ahead.put((pixels, cells, rows))

    def _read(self, joint: bool) -> Tensor:
        if self.packing is None:
            self.packing = threading.Thread(target=self._pack, daemon=True)
            self.packing.start()
        pixels, cells, rows = self.ahead.get()
        self.run.counts["pictures"] += len(rows)
        self.run.counts["questions"] += sum(len(row.kinds) for row in rows)
        with vision.mixed_precision(self.run.device):
            with torch.set_grad_enabled(joint):
                seen = vision.tokens(self.run.model, pixels, self.run.device)
            data, states = self._states(rows, seen)
            loss = reading.loss(self.run.model, self.run.readers, states, data)
            return loss + 0.05 * vision.loss(self.run.heads, seen, cells) if joint else loss

    def _states(self, rows: list[reading.Row], seen: Tensor) -> tuple[reading.Batch, tuple[Tensor, Tensor, Tensor]]:
        data = reading.batch(rows, self.run.tokenizer.pad_token_id, self.run.device)
        embedded = reading.embed(self.run.model, data, seen, self.packer.image)
        mask = reading.visible(data.owner)
        return data, self.run_text(self.run.model.model.text_model, embedded, mask, data.positions)

    def exact(self, batches: int = 12) -> dict[str, float]:
        """Share of questions that a greedy answer gets exactly right, by kind, on pictures kept out of training."""
        pixels, cells = self.pictures.watched(batches * ROWS)
        rng, found = Random(1), dict[str, list[bool]]()
        for start in range(0, len(pixels), ROWS):
            part = slice(start, start + ROWS)
            rows = [self.packer.row(rng, shown) for shown in shown_in(cells[part])]
            with torch.no_grad(), vision.mixed_precision(self.run.device):
                data, states = self._states(rows, vision.tokens(self.run.model, pixels[part], self.run.device))
                for kind, good in reading.right(self.run.model, states, data, rows):
                    found.setdefault(kind, []).append(good)
        return {kind: round(sum(good) / len(good), 4) for kind, good in sorted(found.items())}


def shown_in(cells: Any) -> list[frozenset[str]]:
    """Ids of the things in each picture, from cells [batch, 49, things]."""
    ids = list(THINGS)
    return [frozenset(ids[index] for index in row.nonzero()[0]) for row in cells.max(1) > 0]


def train(out: Path, work: Path, minutes: float, chunks: int, compiled: bool) -> None:
    """Runs what is left of the plan and writes the model to `out` after every stage that trains the text model."""
    work.mkdir(parents=True, exist_ok=True)
    drawing = pool.fill(work / "pool", chunks, workers=1)
    run = Run(work, minutes)
    while len(pool.ready(work / "pool")) < vision.Pictures.held_back + 2:
        time.sleep(1)
    steps = Steps(run, compiled)
    try:
        while run.stage < len(PLAN):
            stage = PLAN[run.stage]
            if stage.part != "vision" and not run.counts["questions"]:
                reading.seed_embeddings(run.model, run.heads, run.tokenizer)
            run_stage(run, stage, getattr(steps, stage.part))
            say(f"F1 of what the tower sees: {vision.f1_seen(run.model, run.heads, steps.pictures, run.device):.4f}")
            if stage.part != "vision":
                say(f"exactly right: {steps.exact()}")
                modelling.save(run.model, run.tokenizer, out)
            run.stage, run.elapsed, run.optimiser = run.stage + 1, 0.0, None
            run.save()
        say(f"done in {run.total / 60:.1f} minutes of training, {run.counts}; {out}")
    except KeyboardInterrupt:
        run.save()
        say("interrupted; the same command goes on from here")
    finally:
        for process in drawing:
            process.terminate()


def say(text: str) -> None:
    """A line of progress, with the time."""
    print(time.strftime("%H:%M:%S"), text, file=sys.stderr, flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("tests/demo/model"))
    parser.add_argument("--work", type=Path, default=Path("runs/demo-model"), help="pool and checkpoint")
    parser.add_argument("--minutes", type=float, default=182, help="training time, drawing the first pictures apart")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--chunks", type=int, default=280, help=f"training pictures, in chunks of {pool.CHUNK}")
    parser.add_argument("--compile", action="store_true", help="torch.compile the text model; needs a C++ compiler")
    arguments = parser.parse_args()
    # Started in the background, a process ignores the interrupt; and a polite kill should cost nothing either.
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, signal.default_int_handler)
    torch.set_num_threads(arguments.threads)
    train(arguments.out, arguments.work, arguments.minutes, arguments.chunks, arguments.compile)


if __name__ == "__main__":
    main()
