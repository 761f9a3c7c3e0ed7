"""`tagllm concepts` from its settings to its summary: open the inputs, run the rounds, review."""

from __future__ import annotations

import asyncio
import datetime
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import tagllm_cli
from tagllm_cli.errors import TooManyFailedError, UsageError
from tagllm_cli.labeling.templates import Template, load_templates
from tagllm_cli.pipeline.concepts.cached_model import CachedModel
from tagllm_cli.pipeline.concepts.calibrate_label import CalibrationContext
from tagllm_cli.pipeline.concepts.card_store import CardStore
from tagllm_cli.pipeline.concepts.review import review
from tagllm_cli.pipeline.concepts.rounds import Rounds
from tagllm_cli.pipeline.concepts.settings import ConceptSettings, Model
from tagllm_cli.pipeline.concepts.summary import ConceptSummary
from tagllm_cli.pipeline.concepts.validation import Validator
from tagllm_cli.pipeline.concepts.validation_set import ValidationSet, open_validation_set
from tagllm_cli.pipeline.progress import Dialog
from tagllm_cli.records import digest16
from tagllm_cli.store.atomic import file_state
from tagllm_cli.store.evidence import Evidence
from tagllm_cli.vocabulary.load import load_vocabulary
from tagllm_cli.vocabulary.model import Vocabulary
from tagllm_cli.vocabulary.serialize import vocabulary_to_json


def write_concepts(settings: ConceptSettings, llm: Model, vlm: Model | None, dialog: Dialog) -> ConceptSummary:
    """Write and revise concept cards.

    Args:
        settings: vocabulary, card file, validation images and limits.
        llm: drafts and compares; it may be `vlm` itself, and is then loaded once.
        vlm: the multimodal model, for its reading of bare names and for validation; None: cards are judged by text.
        dialog: progress, messages and the review.

    Raises:
        UsageError: unusable input; nothing was asked or written.
        EndpointError, ModelError, EngineDiedError: a model cannot be reached or died; responses so far are kept.
    """
    began = time.monotonic()
    settings.check(has_vlm=vlm is not None, is_terminal=dialog.is_interactive)
    vocabulary, templates = load_vocabulary(settings.vocabulary), load_templates(settings.prompts)
    for note in vocabulary.notes:
        dialog.warn(note)
    store, validation_set = CardStore(settings.out, vocabulary), _validation_set(settings, vocabulary)
    with Evidence(settings.evidence) as evidence:
        first = _first_round(evidence, store, _inputs(settings, vocabulary, templates, llm, vlm))
        evidence.start_run("concepts", tagllm_cli.__version__)
        models = [CachedModel(each, evidence, settings.max_pixels) for each in dict.fromkeys((llm, vlm)) if each]
        context = _context(settings, vocabulary, templates, validation_set, models[0], models[-1] if vlm else None)
        rounds = Rounds(context, store, dialog, only=settings.labels, waits=settings.review)
        count = asyncio.run(_run_rounds(rounds, first, settings.rounds, models))
        store.save()  # also without cards: the next command names this file
        evidence.commit()  # a review may be interrupted
        if settings.review:
            folder = None if validation_set is None else Path(validation_set.source.describe().uri)
            review(store, vocabulary, dialog, first + count - 1, folder)
        summary = ConceptSummary.of(
            settings.out,
            vocabulary,
            store,
            rounds=count,
            asked=dict(zip(("llm", "model"), (each.asked for each in models), strict=False)),
            seconds=time.monotonic() - began,
            error=_failure(rounds),
        )
        evidence.end_run(summary.to_json())
        return summary


def _validation_set(settings: ConceptSettings, vocabulary: Vocabulary) -> ValidationSet | None:
    """Return the validation images, None without any. Raises UsageError where the settings do not fit them."""
    if strange := [name for name in settings.labels if name not in vocabulary.names]:
        raise UsageError(f"{strange[0]!r} is no label of {vocabulary.name}", "`tagllm vocab show` lists the labels.")
    if not settings.has_images:
        return None
    return open_validation_set(
        vocabulary,
        settings.table,
        settings.images,
        settings.truth,
        settings.examples,
        settings.seed,
        source_options=settings.source_options,
        source_format=settings.source_format,
        truth_options=settings.truth_options,
    )


async def _run_rounds(rounds: Rounds, first: int, limit: int, models: Sequence[CachedModel]) -> int:
    try:
        return await rounds.run(first, limit)
    finally:
        for each in models:
            await each.close()


def _context(
    settings: ConceptSettings,
    vocabulary: Vocabulary,
    templates: Mapping[str, Template],
    validation_set: ValidationSet | None,
    llm: CachedModel,
    vlm: CachedModel | None,
) -> CalibrationContext:
    validator = None
    if validation_set is not None and vlm is not None:
        validator = Validator(validation_set, vlm, templates, settings.max_pixels)
    confusions = {} if validation_set is None else validation_set.confusions
    today = datetime.date.today().isoformat()
    return CalibrationContext(vocabulary, templates, llm, vlm, validator, confusions, today)


def _first_round(evidence: Evidence, store: CardStore, inputs: str) -> int:
    """Return the number of the first round: that of the run that continues, or the one after the file's last round.

    A run continues where its inputs are the same; with other images, say, the labels are calibrated again.
    """
    known = evidence.meta("concepts")
    if known is None or known["inputs"] != inputs:
        known = {"inputs": inputs, "first": store.last_round + 1}
        evidence.set_meta("concepts", known)
    return int(known["first"])


def _inputs(
    settings: ConceptSettings,
    vocabulary: Vocabulary,
    templates: Mapping[str, Template],
    llm: Model,
    vlm: Model | None,
) -> str:
    """Return a hash of everything that decides what is asked, as far as it is known beforehand."""
    values: list[Any] = [
        vocabulary_to_json(vocabulary),
        {name: asdict(template) for name, template in templates.items()},
        llm.digest.hex(),
        None if vlm is None else vlm.digest.hex(),
        [
            None if path is None else [str(path.absolute()), *(file_state(path) or ())] if path.exists() else str(path)
            for path in (Path(settings.images) if settings.images else None, settings.table, settings.truth)
        ],
        [settings.labels, settings.examples, settings.seed, settings.max_pixels],
    ]
    return digest16(json.dumps(values, sort_keys=True).encode()).hex()


def _failure(rounds: Rounds) -> TooManyFailedError | None:
    silent = rounds.unanswered if rounds.calibrated else rounds.unsearched
    if not silent or rounds.calibrated - silent:
        return None
    return TooManyFailedError(
        f"no question about {len(silent):,} labels was answered",
        "The card file has the reasons; the same command asks again.",
    )
