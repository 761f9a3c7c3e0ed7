"""Bias of the yes/no questions, measured without labels: every question is asked about images that show nothing.

Blank images are gray or noise; shuffled images are images of the table's source, cut into tiles that are permuted. What
a model answers about them says how ready it is to say yes to a name. Sources: contextual calibration, Zhao et al., ICML
2021, arXiv 2102.09690 (content-free input); domain-context calibration, Fei et al., ACL 2023, arXiv 2305.19148 (content
of the domain in random order). Answers are evidence beside the file of thresholds: no question is paid for twice.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image

import tagllm_cli
from tagllm_cli.engines.base import Engine
from tagllm_cli.engines.factory import ModelIdentity, ModelOptions, identify, make_engine
from tagllm_cli.errors import TagllmError, UsageError
from tagllm_cli.evaluation.thresholds.as_file import of_offsets
from tagllm_cli.evaluation.thresholds.fit import logit
from tagllm_cli.labeling.plan import Plan
from tagllm_cli.labeling.threshold_file import (
    ThresholdFile,
    card_digests,
    question_digests,
    table_questions,
    write_thresholds,
)
from tagllm_cli.labeling.yes_no import YesNoQuestion, ask_yes_no
from tagllm_cli.pipeline.concepts.cached_model import CachedModel
from tagllm_cli.pipeline.concepts.settings import Model
from tagllm_cli.pipeline.label.jobs import cards_for
from tagllm_cli.records import Response, Status
from tagllm_cli.sources.base import ReadFailure, Source, recall
from tagllm_cli.sources.decode import decode
from tagllm_cli.sources.registry import reopen
from tagllm_cli.store.evidence import Evidence
from tagllm_cli.store.table import Table, open_table
from tagllm_cli.text import shortened
from tagllm_cli.vocabulary.cards import Card

Array = npt.NDArray[Any]

SIDE = 448
TILES = 4  # along each side
_ROWS = 65_536


@dataclass(frozen=True, slots=True)
class LabelBias:
    """Mean logits of yes about blank and shuffled images, by label, and how many requests were `asked` and `failed`."""

    blank: Mapping[str, float]
    shuffled: Mapping[str, float]
    asked: int
    failed: int

    def offsets(self) -> dict[str, float]:
        """Return by how many logits each label is readier for a yes than the mean label; the mean of both kinds.

        An image that shows nothing should be a no: only what differs between labels is bias.
        """
        found = {}
        means = [float(np.mean(list(kind.values()))) for kind in (self.blank, self.shuffled) if kind]
        kinds = [kind for kind in (self.blank, self.shuffled) if kind]
        for name in self.blank:
            apart = [kind[name] - mean for kind, mean in zip(kinds, means, strict=True) if name in kind]
            found[name] = float(np.mean(apart))
        return found

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, rounded to four digits."""
        kinds = {"blank": self.blank, "shuffled": self.shuffled, "offset": self.offsets()}
        rounded = {kind: {name: round(value, 4) for name, value in each.items()} for kind, each in kinds.items()}
        return {**rounded, "asked": self.asked, "failed": self.failed}


def measure_bias(
    path: Path,
    evidence: Path,
    concepts: str | None,
    model: ModelOptions,
    images: int,
    *,
    root: str | None = None,
    seed: int = 0,
    engine: Callable[[Plan], Engine] | None = None,
) -> LabelBias:
    """Ask every question of a label table about so many blank and as many shuffled images.

    `concepts` is what the command that made the table was given, `evidence` the file where answers are recorded;
    `engine` makes the engine in place of the one that `model` names. Raises UsageError where the cards or the model are
    not those of the table.
    """
    table = open_table(path)
    plan, questions = table_questions(table)
    cards = cards_for(concepts, plan.vocabulary)
    _check(plan, questions, cards, model)
    pinned = ModelIdentity(plan.model, plan.model_digest)
    log = evidence.with_suffix(".vllm.log")
    make = engine or (lambda plan: make_engine(replace(model, max_pixels=plan.max_pixels), log, pinned))
    asked = [ask_yes_no(plan.templates, name, cards.get(name)) for name in plan.vocabulary.names]
    kinds = (list(blank_images(images)), list(_shuffled_images(table, root, images, seed)))
    with Evidence(evidence) as store:
        store.start_run("calibrate", tagllm_cli.__version__)
        vlm = CachedModel(Model(plan.model, plan.model_digest, lambda: make(plan)), store, plan.max_pixels)
        answers = asyncio.run(_ask(vlm, asked, kinds, plan.max_pixels))
        store.end_run({"asked": vlm.asked})
    found = [_logits(asked, plan.vocabulary.names, kind) for kind in answers]
    failed = sum(each.failure is not None for kind in answers for responses in kind for each in responses)
    if not found[0]:
        raise TagllmError("no question about a blank image was answered", "The same command asks again.")
    return LabelBias(found[0], found[1], vlm.asked, failed)


def _check(plan: Plan, questions: Mapping[str, str], cards: Mapping[str, Card], model: ModelOptions) -> None:
    ours = question_digests(plan, card_digests(cards))
    if other := [name for name, question in questions.items() if ours[name] != question]:
        raise UsageError(
            f"the table asked about {len(other):,} labels in other words ({shortened(other)})",
            "Give the --concepts of the command that made the table.",
        )
    identity = identify(model)
    if identity is not None and identity.digest != plan.model_digest:
        raise UsageError(
            f"the table is of the model {plan.model}, and its bias is asked of {identity.name}",
            "Name the model that made the table.",
        )


async def _ask(
    vlm: CachedModel, asked: Sequence[YesNoQuestion], kinds: Sequence[Sequence[bytes]], max_pixels: int
) -> list[list[list[Response]]]:
    requests = [question.request for question in asked]
    found = []
    try:
        for kind in kinds:
            answers = []
            for data in kind:
                info, decoded = decode(data, max_pixels)
                assert decoded is not None  # made here
                answers.append(await vlm.ask_all(requests, decoded, info.fingerprint))
            found.append(answers)
    finally:
        await vlm.close()
    return found


def _logits(
    asked: Sequence[YesNoQuestion], names: Sequence[str], answers: Sequence[Sequence[Response]]
) -> dict[str, float]:
    """Return the mean logit of yes by label; a label without any answer has none."""
    found = {}
    for number, name in enumerate(names):
        verdicts = [asked[number].verdict(each[number], min_mass=0) for each in answers if each[number].failure is None]
        known = [verdict.probability for verdict in verdicts if verdict.probability is not None]
        if known:
            found[name] = float(logit(np.array(known)).mean())
    return found


def blank_images(count: int) -> Iterator[bytes]:
    """Yield PNG files of SIDE x SIDE pixels: one of middle gray, the others of uniform noise."""
    for number in range(count):
        pixels = np.full((SIDE, SIDE, 3), 128, np.uint8)
        if number:
            pixels = np.random.default_rng(number).integers(0, 256, pixels.shape, dtype=np.uint8)
        yield _png(PIL.Image.fromarray(pixels))


def _shuffled_images(table: Table, root: str | None, count: int, seed: int) -> Iterator[bytes]:
    """Yield shuffled images of a table's source, drawn by `seed`; fewer where they cannot be read."""
    source = reopen(table.info.source, root)
    made = 0
    for image_id, uri in _drawn(table, 2 * count, seed):
        if made < count and (data := _read(source, image_id, uri)) is not None:
            made += 1
            yield data


def _drawn(table: Table, count: int, seed: int) -> list[tuple[str, str]]:
    """Return ids and uris of answered images, in an order drawn at random."""
    places = np.random.default_rng(seed).permutation(len(table))[:count]
    order = {int(place): number for number, place in enumerate(places)}
    found, start = {}, 0
    for batch in table.batches(_ROWS, ["image_id", "uri", "status"]):
        for place in places[(places >= start) & (places < start + len(batch))].tolist():
            row = {name: batch[name][place - start].as_py() for name in ("image_id", "uri", "status")}
            if row["status"] in (Status.OK, Status.PARTIAL):
                found[order[place]] = row["image_id"], row["uri"]
        start += len(batch)
    return [found[number] for number in sorted(found)]


def _read(source: Source, image_id: str, uri: str) -> bytes | None:
    try:
        data = source.read(recall(source, image_id, uri))
    except ReadFailure:
        return None
    _, decoded = decode(data, SIDE * SIDE)
    return None if decoded is None else _png(shuffled(decoded.pixels))


def shuffled(image: PIL.Image.Image) -> PIL.Image.Image:
    """Return an image whose TILES x TILES tiles are permuted, at most a few pixels smaller; the same for each call."""
    tile = max(1, image.width // TILES), max(1, image.height // TILES)
    boxes = [(x * tile[0], y * tile[1]) for y in range(TILES) for x in range(TILES)]
    result = PIL.Image.new("RGB", (tile[0] * TILES, tile[1] * TILES))
    for target, place in zip(boxes, np.random.default_rng(0).permutation(len(boxes)), strict=True):
        x, y = boxes[place]
        result.paste(image.crop((x, y, x + tile[0], y + tile[1])), target)
    return result


def _png(image: PIL.Image.Image) -> bytes:
    """Return a PNG file without compression: its bytes, which identify it, depend on no library."""
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=0)
    return file.getvalue()


def evidence_of(thresholds: Path) -> Path:
    """Return where the answers are recorded: beside the file of thresholds."""
    return thresholds.with_name(f"{thresholds.name}.evidence")


def calibrate_by_bias(path: Path, out: Path, bias: LabelBias) -> ThresholdFile:
    """Write the thresholds that follow from measured bias alone."""
    file = of_offsets(open_table(path), out, bias.offsets())
    write_thresholds(file)
    return file
