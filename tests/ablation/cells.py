"""Running one cell: a real job of ours with its own table and evidence, and what it cost.

A cell's files are named by what decides its answers: the plan (model, prompts, vocabulary, groups), the cards and the
candidates. Its cost file is written last and says that it is complete; until then the same command goes on in the
evidence, and what that holds is never asked again.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tagllm_cli.cli.console import Console
from tagllm_cli.engines.base import Engine
from tagllm_cli.engines.factory import ModelOptions
from tagllm_cli.errors import InterruptedRunError
from tagllm_cli.labeling.replan import new_plan
from tagllm_cli.pipeline.label.job import Job, RunOptions
from tagllm_cli.pipeline.label.jobs import candidates_job, disambiguate_job
from tagllm_cli.pipeline.label.run import run_job
from tests.ablation.design import Place
from tests.ablation.pictures import Scenes

VOCABULARY = "scenes"
# A strategy that answers badly is what is to be measured, not a reason to stop.
_OPTIONS = RunOptions(preflight=False, max_failed_rate=1.0)


@dataclass(frozen=True, slots=True)
class Cost:
    """What a cell's recorded answers took. `cached_tokens` are part of `prompt_tokens`; `seconds` are from the first
    picture to the last answer, scaled up where a killed run could not tell (`is_estimated`).
    """

    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0
    is_estimated: bool = False

    @property
    def computed_tokens(self) -> int:
        """Prompt tokens that did not come from the prefix cache."""
        return self.prompt_tokens - self.cached_tokens

    def plus(self, other: Cost) -> Cost:
        """Return the cost of both."""
        return Cost(
            self.requests + other.requests,
            self.prompt_tokens + other.prompt_tokens,
            self.cached_tokens + other.cached_tokens,
            self.output_tokens + other.output_tokens,
            self.seconds + other.seconds,
            self.is_estimated or other.is_estimated,
        )


@dataclass(frozen=True, slots=True)
class Cell:
    """A complete cell: its table, and the cost of its own questions (for label tables without the candidates')."""

    place: Place
    scenes: Scenes
    table: Path
    cost: Cost


@dataclass(frozen=True, slots=True)
class Workshop:
    """What cells are made with: the model, and the card files by column."""

    model: ModelOptions
    cards: Mapping[str, Path]

    def job(self, place: Place, scenes: Scenes, candidates: Cell | None) -> Job:
        """Return the job of a cell: over `candidates` where the place is a label table's, else over the pictures.

        Its engine is whatever the job's maker puts in; its table is named by what decides the answers.
        """
        concepts, strategy = place.concepts, place.strategy
        if candidates is None:
            job = candidates_job(
                str(scenes.images), VOCABULARY, scenes.folder / "candidates.parquet", self.model, _OPTIONS,
                strategy=strategy.strategy, arms=strategy.arms,
            )  # fmt: skip
            return _named(job, strategy.name)
        file = self.cards.get(concepts.name)
        out, cards = scenes.folder / "labels.parquet", "none" if file is None else str(file)
        job = disambiguate_job(candidates.table, out, self.model, _OPTIONS, concepts=cards)
        meaning = "" if file is None else file.read_text(encoding="utf-8")
        return _named(job, f"{strategy.name}-{concepts.name}", candidates.table.stem, meaning)


def _named(job: Job, name: str, *decisive: str) -> Job:
    plan = json.dumps(new_plan(job.plan_options).to_json(), sort_keys=True)
    digest = hashlib.blake2b("\n".join((plan, *decisive)).encode(), digest_size=4).hexdigest()
    return replace(job, out=job.out.with_name(f"{name}-{digest}.parquet"))


def recorded(place: Place, scenes: Scenes, job: Job) -> Cell | None:
    """Return the cell if it is complete."""
    done = _cost_file(job)
    if not (done.exists() and job.out.exists()):
        return None
    return Cell(place, scenes, job.out, Cost(**json.loads(done.read_text(encoding="utf-8"))))


def make(place: Place, scenes: Scenes, job: Job, engine: Callable[[], Engine], console: Console) -> Cell:
    """Ask what the cell lacks and return it. Raises InterruptedRunError and what `run_job` raises; answers are kept."""
    summary = run_job(replace(job, engine=lambda plan: engine()), _OPTIONS, console)
    if isinstance(summary.error, InterruptedRunError):
        raise summary.error
    cost, done = cost_of(job.evidence), _cost_file(job)
    fresh = done.with_suffix(".new")
    fresh.write_text(json.dumps(asdict(cost)), encoding="utf-8")
    fresh.rename(done)
    return Cell(place, scenes, job.out, cost)


def _cost_file(job: Job) -> Path:
    return job.out.with_suffix(".cost.json")


def cost_of(evidence: Path) -> Cost:
    """Return what the answers on record in an evidence file took, over all the runs that it needed."""
    with closing(sqlite3.connect(evidence)) as file:
        counts = "count(*), sum(prompt_tokens), sum(cached_tokens), sum(output_tokens)"
        requests, *tokens = (count or 0 for count in file.execute(f"SELECT {counts} FROM response").fetchone())
        told = file.execute("SELECT id, report FROM run WHERE ended IS NOT NULL").fetchall()
        by_run = dict(file.execute("SELECT run, count(*) FROM response GROUP BY run").fetchall())
    seconds = sum(json.loads(report)["seconds_asking"] for _, report in told)
    timed = sum(by_run.get(run, 0) for run, _ in told)
    # A run that was killed tells nothing: its answers are taken to have come as fast as the others'.
    scale = requests / timed if timed else 1.0
    prompt, cached, output = tokens
    return Cost(requests, prompt, cached, output, round(seconds * scale, 3), is_estimated=timed < requests)
