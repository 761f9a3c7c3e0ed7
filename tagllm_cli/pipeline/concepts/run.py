"""`tagllm concepts` from its settings to its summary: open what there is, do the rounds, let a person decide."""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import tagllm_cli
from tagllm_cli.errors import TooManyFailedError, UsageError
from tagllm_cli.labeling.templates import Template, load_templates
from tagllm_cli.pipeline.concepts.cached_model import Respondent
from tagllm_cli.pipeline.concepts.calibrate_label import Circle
from tagllm_cli.pipeline.concepts.card_store import CardBook
from tagllm_cli.pipeline.concepts.review import review
from tagllm_cli.pipeline.concepts.rounds import Rounds
from tagllm_cli.pipeline.concepts.settings import ConceptSettings, Model
from tagllm_cli.pipeline.concepts.summary import ConceptSummary
from tagllm_cli.pipeline.concepts.validation import TryOut
from tagllm_cli.pipeline.concepts.validation_set import Gallery, open_gallery
from tagllm_cli.pipeline.progress import Dialog
from tagllm_cli.store.evidence import Evidence
from tagllm_cli.vocabulary.load import load_vocabulary
from tagllm_cli.vocabulary.model import Vocabulary
from tagllm_cli.vocabulary.serialize import vocabulary_to_json


def write_concepts(settings: ConceptSettings, llm: Model, seer: Model | None, dialog: Dialog) -> ConceptSummary:
    """Write and revise concept cards.

    Args:
        settings: what for, and how hard to try.
        llm: whom to ask about names; it may be `seer` itself, and is then loaded once.
        seer: the multimodal model, for its reading of bare names and the try-out; None: cards are judged by their text.
        dialog: told what happens, and where a person is asked.

    Raises:
        UsageError: input that cannot be used; nothing was asked or written.
        EndpointError, ModelError, EngineDiedError: a model cannot be reached or died; what was answered is kept.
    """
    began = time.monotonic()
    settings.check(sees=seer is not None, is_terminal=dialog.is_interactive)
    vocabulary, templates = load_vocabulary(settings.vocabulary), load_templates(settings.prompts)
    book, gallery = CardBook(settings.out, vocabulary), _gallery(settings, vocabulary)
    with Evidence(settings.evidence) as evidence:
        first = _first_round(evidence, book, _inputs(settings, vocabulary, templates, llm, seer))
        evidence.start_run("concepts", tagllm_cli.__version__)
        people = [Respondent(each, evidence, settings.max_pixels) for each in dict.fromkeys((llm, seer)) if each]
        circle = _circle(settings, vocabulary, templates, gallery, people[0], people[-1] if seer else None)
        rounds = Rounds(circle, book, dialog, only=settings.labels, waits=settings.review)
        count = asyncio.run(_go_through(rounds, first, settings.rounds, people))
        book.save()  # also where nothing was found: the next command names this file
        evidence.commit()  # a review may be interrupted
        if settings.review:
            folder = None if gallery is None else Path(gallery.source.describe().uri)
            review(book, vocabulary, dialog, first + count - 1, folder)
        summary = ConceptSummary.of(
            settings.out,
            vocabulary,
            book,
            rounds=count,
            asked=dict(zip(("llm", "model"), (each.asked for each in people), strict=False)),
            seconds=time.monotonic() - began,
            error=_verdict(rounds),
        )
        evidence.end_run(summary.to_json())
        return summary


def _gallery(settings: ConceptSettings, vocabulary: Vocabulary) -> Gallery | None:
    """Return the pictures, if there are any; raises UsageError where the settings do not fit the vocabulary or them."""
    if strange := [name for name in settings.labels if name not in vocabulary.names]:
        raise UsageError(f"{strange[0]!r} is no label of {vocabulary.name}", "`tagllm vocab show` lists the labels.")
    if not settings.has_pictures:
        return None
    return open_gallery(vocabulary, settings.table, settings.images, settings.truth, settings.pictures, settings.seed)


async def _go_through(rounds: Rounds, first: int, most: int, people: Sequence[Respondent]) -> int:
    try:
        return await rounds.run(first, most)
    finally:
        for each in people:
            await each.close()


def _circle(
    settings: ConceptSettings,
    vocabulary: Vocabulary,
    templates: Mapping[str, Template],
    gallery: Gallery | None,
    llm: Respondent,
    seer: Respondent | None,
) -> Circle:
    tryout = None
    if gallery is not None and seer is not None:
        tryout = TryOut(gallery, seer, templates, settings.max_pixels)
    confusions = {} if gallery is None else gallery.confusions
    today = datetime.date.today().isoformat()
    return Circle(vocabulary, templates, llm, seer, tryout, confusions, today)


def _first_round(evidence: Evidence, book: CardBook, inputs: str) -> int:
    """Return the number of the first round: that of the run that goes on, or the one after all that the file has seen.

    A run goes on where the same was asked for; with other pictures, say, the labels are looked at again.
    """
    known = evidence.meta("concepts")
    if known is None or known["inputs"] != inputs:
        known = {"inputs": inputs, "first": book.last_round + 1}
        evidence.set_meta("concepts", known)
    return int(known["first"])


def _inputs(
    settings: ConceptSettings,
    vocabulary: Vocabulary,
    templates: Mapping[str, Template],
    llm: Model,
    seer: Model | None,
) -> str:
    """Return a hash of everything that decides what is asked, as far as it can be known beforehand."""
    values: list[Any] = [
        vocabulary_to_json(vocabulary),
        {name: asdict(template) for name, template in templates.items()},
        llm.digest.hex(),
        None if seer is None else seer.digest.hex(),
        [_stamp(path) for path in (settings.images, settings.table, settings.truth)],
        [settings.labels, settings.pictures, settings.seed, settings.max_pixels],
    ]
    return hashlib.blake2b(json.dumps(values, sort_keys=True).encode(), digest_size=16).hexdigest()


def _stamp(path: Path | None) -> list[Any] | None:
    if path is None or not path.exists():
        return None
    found = path.stat()
    return [str(path.absolute()), *([found.st_size, found.st_mtime_ns] if path.is_file() else [])]


def _verdict(rounds: Rounds) -> TooManyFailedError | None:
    silent = rounds.unanswered if rounds.tried else rounds.unsearched
    if not silent or rounds.tried - silent:
        return None
    return TooManyFailedError(
        f"no question about {len(silent):,} labels was answered",
        "The card file has the reasons; the same command asks again.",
    )
