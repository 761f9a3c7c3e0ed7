"""From what a user typed to the job that `labelling` runs: files are read and checked before anything is written."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tagllm_cli.cards import Card, cards_of, load_cards
from tagllm_cli.engines import Engine
from tagllm_cli.errors import ModelError, TableError
from tagllm_cli.labelling import Job, RunOptions
from tagllm_cli.plan import Plan, Wanted
from tagllm_cli.prompts import load_templates
from tagllm_cli.schema import Failure, Image, Seen, Status, Subject, Vocabulary
from tagllm_cli.sources import Folder, open_source
from tagllm_cli.stages.candidates import Candidates
from tagllm_cli.stages.disambiguate import Disambiguate, Thresholds
from tagllm_cli.tables import Table, open_table
from tagllm_cli.vocab import load_vocabulary

if TYPE_CHECKING:
    from tagllm_cli.engines.endpoint import EndpointSettings


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """Which model answers: one that vLLM loads here, running servers, or a recording. All None: as the plan says."""

    model: str | None = None
    endpoints: tuple[str, ...] = ()
    model_id: str | None = None
    api_key: str | None = field(default=None, repr=False)
    engine_args: Mapping[str, str] = field(default_factory=dict)
    prompts: Path | None = None
    max_pixels: int | None = None
    replay: Path | None = None
    record: Path | None = None
    verbose: bool = False


@dataclass(frozen=True, slots=True)
class Identity:
    """The model's name for people and the 16-byte digest that requests are identified by; None: not named."""

    name: str | None
    digest: bytes | None


def candidates_job(
    source: str,
    vocabulary: str,
    out: Path,
    model: ModelOptions,
    options: RunOptions,
    *,
    arms: tuple[str, ...] | None = None,
    group_size: int | None = None,
    min_votes: int = 1,
) -> Job:
    """Return the job of `tagllm candidates`. Raises UsageError for anything that cannot be used."""
    folder = Folder.rooted(Path(source)) if options.offline else open_source(source)
    wanted = _wanted("candidates", load_vocabulary(vocabulary), model, options, arms=arms, group_size=group_size)
    return Job(
        command="candidates",
        out=out,
        root=str(folder.root),
        wanted=wanted,
        source=folder,
        subjects=lambda: map(Subject, folder.images()),
        stage=lambda plan: Candidates(plan, min_votes),
        engine=lambda plan: make_engine(model, plan, out.with_suffix(".vllm.log")),
        next_command=_disambiguation(out, model),
        derivation={"min_votes": min_votes},
    )


def disambiguate_job(
    table: Path,
    out: Path,
    model: ModelOptions,
    options: RunOptions,
    *,
    concepts: str | None = None,
    root: Path | None = None,
    thresholds: Thresholds = Thresholds(),  # noqa: B008 (frozen)
) -> Job:
    """Return the job of `tagllm disambiguate`. Raises UsageError for anything that cannot be used."""
    candidates = open_table(table)
    if candidates.info.stage != "candidates":
        raise TableError(f"{table} is a label table already", "Give the table that `tagllm candidates` wrote.")
    if out.exists() and out.samefile(table):
        raise TableError("--out is the candidate table itself", "Choose another --out.")
    vocabulary = candidates.info.vocabulary
    cards = _cards(concepts, vocabulary)
    folder = Folder.rooted(root or Path(candidates.info.root))
    if not options.offline and not folder.root.is_dir():
        raise TableError(
            f"the images of {table} are not at {folder.root} any more", "Say where they are now with --root."
        )
    return Job(
        command="disambiguate",
        out=out,
        root=str(folder.root),
        wanted=_wanted("labels", vocabulary, model, options),
        source=folder,
        subjects=lambda: _subjects(candidates),
        stage=lambda plan: Disambiguate(plan, cards, thresholds),
        engine=lambda plan: make_engine(model, plan, out.with_suffix(".vllm.log")),
        next_command=f"tagllm evaluate {shlex.quote(str(out))} --truth TRUTH",
        derivation={"threshold": thresholds.threshold, "min_mass": thresholds.min_mass},
        expects_same_bytes=True,
    )


def _disambiguation(out: Path, model: ModelOptions) -> str:
    """Return the command that goes on from a candidate table, with the model that made it."""
    labels = out.with_name("labels.parquet" if out.stem == "candidates" else f"labels-{out.stem}.parquet")
    words = ["tagllm", "disambiguate", str(out), "--out", str(labels)]
    words += ["--model", model.model] if model.model else []
    words += [word for url in model.endpoints for word in ("--endpoint", url)]
    return shlex.join(words)


def _subjects(candidates: Table) -> Iterator[Subject]:
    """Turn candidate rows into subjects; a failed row stays failed, a pending one has nothing to ask about yet."""
    for row in candidates.rows():
        image = Image(row.image_id, row.uri, 0, 0)
        failure = None
        if row.status is Status.FAILED:
            kind, _, message = (row.error or "failed").partition(": ")
            failure = Failure(kind, message)
        seen = Seen(row.fingerprint, row.width, row.height, failure) if row.fingerprint or failure else None
        yield Subject(image, seen, row.labels)


def _cards(concepts: str | None, vocabulary: Vocabulary) -> Mapping[str, Card]:
    if concepts == "none":
        return {}
    return cards_of(vocabulary) if concepts is None else load_cards(Path(concepts), vocabulary)


def _wanted(
    stage: str,
    vocabulary: Vocabulary,
    model: ModelOptions,
    options: RunOptions,
    *,
    arms: tuple[str, ...] | None = None,
    group_size: int | None = None,
) -> Wanted:
    identity = Identity(None, None) if options.offline else identify(model)
    return Wanted(
        stage=stage,
        vocabulary=vocabulary,
        templates=load_templates(model.prompts),
        model=identity.name,
        model_digest=identity.digest,
        own_templates=model.prompts is not None,
        max_pixels=model.max_pixels,
        group_size=group_size,
        arms=arms,
    )


def identify(model: ModelOptions) -> Identity:
    """Return who would answer, without loading a model; an endpoint is asked what it serves unless the user says."""
    from tagllm_cli.engines.identity import model_identity, served_identity

    if model.replay is not None:
        found = served_identity(model.model_id or "recording")
    elif model.endpoints:
        found = served_identity(model.model_id or model.model or _served(model))
    elif model.model is not None:
        found = model_identity(model.model, model.engine_args, model_id=model.model_id)
    else:
        return Identity(None, None)
    return Identity(found.name, found.digest)


def make_engine(model: ModelOptions, plan: Plan, log_file: Path) -> Engine:
    """Return the engine that the options name, not started; without any, the one that the plan remembers."""
    engine = _engine(model, plan, log_file)
    if model.record is not None:
        from tagllm_cli.engines.replay import RecordingEngine

        return RecordingEngine(engine, model.record)
    return engine


def _engine(model: ModelOptions, plan: Plan, log_file: Path) -> Engine:
    if model.replay is not None:
        from tagllm_cli.engines.replay import ReplayEngine, load_recording

        return ReplayEngine(load_recording(model.replay))
    if model.endpoints:
        from tagllm_cli.engines.endpoint import EndpointEngine

        return EndpointEngine(_endpoint_settings(model))
    from tagllm_cli.engines.inprocess import EngineSettings, InProcessEngine

    if model.model is None:
        raise ModelError(
            f"answers are missing, and no model is named to give them (the table was made with {plan.model})",
            "Give --model NAME_OR_FOLDER, or --endpoint URL of a running server.",
        )
    return InProcessEngine(EngineSettings(model.model, model.engine_args, log_file=log_file, verbose=model.verbose))


def _endpoint_settings(model: ModelOptions) -> EndpointSettings:
    from tagllm_cli.engines.endpoint import EndpointSettings

    return EndpointSettings(urls=model.endpoints, model=model.model, api_key=model.api_key)


def _served(model: ModelOptions) -> str:
    """Ask the endpoints what they serve. Raises EndpointError where none answers or several models are served."""
    import asyncio

    from tagllm_cli.engines.endpoint import EndpointEngine

    async def ask() -> str:
        engine = EndpointEngine(_endpoint_settings(model))
        try:
            await engine.start()
            return engine.model
        finally:
            await engine.close()

    return asyncio.run(ask())
