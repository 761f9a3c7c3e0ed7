"""From the arguments of a command to the `Job` that `run` executes: input is checked before anything is written."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tagllm_cli.engines.base import Engine
from tagllm_cli.engines.factory import (
    ModelIdentity,
    ModelOptions,
    identify,
    identify_served,
    make_engine,
    token_counter,
)
from tagllm_cli.engines.http.address import parse_address
from tagllm_cli.errors import TableError, UsageError
from tagllm_cli.labeling.binary import Binary
from tagllm_cli.labeling.candidates import Candidates
from tagllm_cli.labeling.disambiguate import Disambiguate
from tagllm_cli.labeling.groups.cooccurrence import load_cooccurrence
from tagllm_cli.labeling.plan import Plan, PlanOptions
from tagllm_cli.labeling.rows import proposals
from tagllm_cli.labeling.stage import Stage
from tagllm_cli.labeling.templates import load_templates
from tagllm_cli.labeling.threshold_file import ThresholdFile, card_digests, question_digests
from tagllm_cli.labeling.thresholds import Thresholds
from tagllm_cli.pipeline.label.job import Job, RunOptions
from tagllm_cli.records import Failure, ImageInfo, Item, Status
from tagllm_cli.sources.base import Source, SourceOptions, recall
from tagllm_cli.sources.registry import open_source, reopen
from tagllm_cli.store.atomic import check_writable_path
from tagllm_cli.store.table import Table, label_table_of, open_table
from tagllm_cli.vocabulary.cards import Card, cards_of, load_cards
from tagllm_cli.vocabulary.load import load_vocabulary
from tagllm_cli.vocabulary.model import Vocabulary
from tagllm_cli.vocabulary.serialize import vocabulary_from_json, vocabulary_to_json


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
    strategy: str | None = None,
    cooccurrence: Path | None = None,
    threshold: float = 0.5,
    source_options: SourceOptions = SourceOptions(),  # noqa: B008 (frozen)
    source_format: str | None = None,
) -> Job:
    """Return the job of `tagllm candidates`. Raises UsageError for anything that cannot be used.

    `source_format` is one of sources.registry.KINDS (None: found out), `strategy` one of plan.STRATEGIES (None: as
    pinned, else groups), `cooccurrence` a table or a file of scenes that groups are made by, `threshold` in [0, 1] the
    probability above which `binary` proposes a label.
    """
    check_writable_path(out, TableError)
    images = open_source(source, source_options, source_format, offline=options.offline)
    known = load_vocabulary(vocabulary)
    counted = None if cooccurrence is None else load_cooccurrence(cooccurrence, known)
    plan_options = _plan_options("candidates", known, model, options)
    plan_options = replace(plan_options, strategy=strategy, arms=arms, group_size=group_size, cooccurrence=counted)
    return Job(
        command="candidates",
        out=out,
        plan_options=plan_options,
        source=images,
        items=None,
        stage=lambda plan: _candidate_stage(plan, min_votes, threshold),
        engine=lambda plan: _engine(plan, model, out),
        served=lambda: identify_served(model),
        counter=lambda: token_counter(model),
        next_command=_disambiguation(out, model),
        derivation={"min_votes": min_votes, "threshold": threshold},
    )


def _candidate_stage(plan: Plan, min_votes: int, threshold: float) -> Stage:
    if min_votes > len(plan.arms):
        arms = ", ".join(plan.arms)
        raise UsageError(
            f"--min-votes {min_votes} asks for more arms than the table has ({arms})",
            f"Ask for at most {len(plan.arms)}; more --arms are a new plan, with --replan.",
        )
    return Binary(plan, Thresholds(threshold)) if plan.strategy == "binary" else Candidates(plan, min_votes)


def disambiguate_job(
    table: Path,
    out: Path,
    model: ModelOptions,
    options: RunOptions,
    *,
    concepts: str | None = None,
    root: str | None = None,
    thresholds: Thresholds = Thresholds(),  # noqa: B008 (frozen)
    threshold_file: ThresholdFile | None = None,
) -> Job:
    """Return the job of `tagllm disambiguate`. Raises UsageError for anything that cannot be used.

    `concepts` is a card file, which comes before the vocabulary's own descriptions, or "none" for bare questions.
    `threshold_file` is where the `thresholds` of single labels come from: one of another plan is refused.
    """
    check_writable_path(out, TableError)
    candidates = open_table(table)
    if candidates.info.stage != "candidates":
        raise TableError(f"{table} is a label table already", "Give the table that `tagllm candidates` wrote.")
    if out.exists() and out.samefile(table):
        raise TableError("--out is the candidate table itself", "Choose another --out.")
    images = reopen(candidates.info.source, root, offline=options.offline)
    return _labels_job(
        table, candidates.info.vocabulary, images, out, model, options, concepts, thresholds, threshold_file
    )


def follow_up_job(
    candidates: Job,
    out: Path,
    model: ModelOptions,
    options: RunOptions,
    *,
    concepts: str | None = None,
    thresholds: Thresholds = Thresholds(),  # noqa: B008 (frozen)
    threshold_file: ThresholdFile | None = None,
) -> Job:
    """Return the job that `disambiguate_job` returns for the table of `candidates`, which may not be written yet."""
    check_writable_path(out, TableError)
    if out.absolute() == candidates.out.absolute():
        raise TableError("both tables would be written to the same file", "Choose another --out.")
    vocabulary = vocabulary_from_json(vocabulary_to_json(candidates.plan_options.vocabulary))  # as in the table
    return _labels_job(
        candidates.out, vocabulary, candidates.source, out, model, options, concepts, thresholds, threshold_file
    )


def _labels_job(
    table: Path,
    vocabulary: Vocabulary,
    source: Source,
    out: Path,
    model: ModelOptions,
    options: RunOptions,
    concepts: str | None,
    thresholds: Thresholds,
    file: ThresholdFile | None,
) -> Job:
    cards = cards_for(concepts, vocabulary)
    return Job(
        command="disambiguate",
        out=out,
        plan_options=_plan_options("labels", vocabulary, model, options),
        source=source,
        items=lambda: _items(open_table(table), source),
        stage=lambda plan: _label_stage(plan, cards, thresholds, file),
        engine=lambda plan: _engine(plan, model, out),
        served=lambda: identify_served(model),
        counter=lambda: token_counter(model),
        next_command=f"tagllm evaluate {shlex.quote(str(out))} --truth TRUTH",
        derivation=_derivation(cards, thresholds, file),
        notes=() if file is None else file.notes(vocabulary.names),
        expects_same_bytes=True,
        earlier=table,
    )


def _label_stage(
    plan: Plan, cards: Mapping[str, Card], thresholds: Thresholds, file: ThresholdFile | None
) -> Disambiguate:
    if file is not None:
        file.check(plan, question_digests(plan, card_digests(cards)))
    return Disambiguate(plan, cards, thresholds)


def _derivation(cards: Mapping[str, Card], thresholds: Thresholds, file: ThresholdFile | None) -> Mapping[str, Any]:
    """Return what makes labels of answers; `label_cards` and `label_thresholds` by label."""
    found: dict[str, Any] = {
        "threshold": thresholds.threshold,
        "min_mass": thresholds.min_mass,
        "cards": _digest(cards),
    }
    if cards:
        found["label_cards"] = card_digests(cards)
    if file is not None:
        found |= {"thresholds": file.digest(), "label_thresholds": dict(thresholds.per_label)}
    return found


def _engine(plan: Plan, model: ModelOptions, out: Path) -> Engine:
    options = replace(model, max_pixels=plan.max_pixels)
    return make_engine(options, out.with_suffix(".vllm.log"), _pinned(plan))


def _disambiguation(out: Path, model: ModelOptions) -> str:
    """Return the command that goes on from a candidate table, with the model that made it."""
    words = ["tagllm", "disambiguate", str(out), "--out", str(label_table_of(out))]
    words += ["--model", model.model] if model.model else []
    words += [word for url in model.endpoints for word in ("--endpoint", parse_address(url).shown)]
    return shlex.join(words)


def _items(candidates: Table, source: Source) -> Iterator[Item]:
    """Yield the items of candidate rows; a failed row stays failed, a pending one has nothing to ask about yet."""
    for row in candidates.rows():
        image = recall(source, row.image_id, row.uri)
        failure = None
        if row.status is Status.FAILED:
            kind, _, message = (row.error or "failed").partition(": ")
            failure = Failure(kind, message)
        info = ImageInfo(row.fingerprint, row.width, row.height, failure) if row.fingerprint or failure else None
        yield Item(image, info, proposals(row))


def cards_for(concepts: str | None, vocabulary: Vocabulary) -> Mapping[str, Card]:
    """Return the cards of a card file before the vocabulary's own descriptions; none where `concepts` is "none"."""
    if concepts == "none":
        return {}
    own = cards_of(vocabulary)
    return own if concepts is None else {**own, **load_cards(Path(concepts), vocabulary)}


def _digest(cards: Mapping[str, Card]) -> str:
    """Return a hex digest of what the cards say, whatever their order; `none` where there is none."""
    if not cards:
        return "none"
    said = [(card.name, card.description, card.similar) for _, card in sorted(cards.items())]
    return hashlib.blake2b(json.dumps(said).encode(), digest_size=16).hexdigest()


def _pinned(plan: Plan) -> ModelIdentity:
    return ModelIdentity(plan.model, plan.model_digest)


def _plan_options(stage: str, vocabulary: Vocabulary, model: ModelOptions, options: RunOptions) -> PlanOptions:
    identity = None if options.offline else identify(model)
    return PlanOptions(
        stage=stage,
        vocabulary=vocabulary,
        templates=load_templates(model.prompts),
        model=None if identity is None else identity.name,
        model_digest=None if identity is None else identity.digest,
        own_templates=model.prompts is not None,
        max_pixels=model.max_pixels,
    )
