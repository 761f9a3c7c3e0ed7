"""A workspace for concept cards: images whose content is coded in their pixels, and a VLM that answers by rule.

Two names are ambiguous: the dataset means the animals, the model takes "mouse" for the device too and "bat" for the
thing to hit with. A card helps where it says what is meant, and hurts where it says something else.
"""

from __future__ import annotations

import csv
import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image as Pixels

from tagllm_cli.cli.console import Console
from tagllm_cli.engines.http.engine import EndpointEngine
from tagllm_cli.pipeline.concepts import ConceptSettings, ConceptSummary, Model, write_concepts
from tagllm_cli.records import DecodedImage, LabelEntry, Request, Response, Row, SourceInfo, Status
from tagllm_cli.store.table import TableInfo, write_table
from tagllm_cli.vocabulary.load import load_vocabulary
from tests.support.asking import settings as patience
from tests.support.rule_engine import RuleEngine
from tests.support.scripted_llm import ScriptedLLM, card

LABELS = {"mouse": "animal", "bat": "animal", "cat": "animal", "keyboard": "device", "cup": "kitchenware"}
THINGS = ("mouse/animal", "mouse/device", "bat/animal", "bat/club", "cat", "keyboard", "cup")
WORDS = {
    "mouse": ("rodent",),
    "bat": ("wings",),
    "cat": ("purrs",),
    "keyboard": ("keys",),
    "cup": ("drinking",),
}
RODENT = "the small grey rodent that has round ears"
DEVICE = "the small rodent-shaped device that moves a pointer"  # leads to the label, and is wrong all the same
HALF = "the small grey rodent beside which things may lie"
WINGED = "the flying animal with leathery wings"
GOOD = {"mouse": [card("mouse", RODENT, ["cat"])], "bat": [card("bat", WINGED)]}
# A word of a description, and what a picture must then show.
SENSES = {"device": "mouse/device", "rodent": "mouse/animal", "wings": "bat/animal", "purrs": "cat"}


def things_in(number: int) -> frozenset[str]:
    """What the image of this number shows: each thing in some of the images, in no order."""
    return frozenset(thing for place, thing in enumerate(THINGS) if (number * 2654435761 >> (place * 3 + 7)) % 3 == 0)


def labels_in(number: int) -> list[str]:
    """What people say of it: the animals are meant."""
    meant = {"mouse": "mouse/animal", "bat": "bat/animal"}
    return [name for name in LABELS if meant.get(name, name) in things_in(number)]


def seen_in(picture: DecodedImage) -> frozenset[str]:
    """What a picture shows, read from its first row of pixels."""
    row = np.asarray(picture.pixels)[0, : len(THINGS), 0]
    return frozenset(thing for thing, value in zip(THINGS, row, strict=True) if value > 127)


def see(picture: DecodedImage | None, request: Request) -> Response:
    """The VLM: any sense of a bare name, the sense of a card."""
    name = re.search(r"Category: (.+?)\.", request.text)
    assert name, request.text
    if picture is None:
        return Response(f"what {name[1]} looks like to me", prompt_tokens=20, output_tokens=6)
    card = re.search(r"Here it means (.+?)\. ?(?:Not to be|\n|$)", request.text)
    shown = seen_in(picture)
    plan_options = {thing for thing in THINGS if thing.partition("/")[0] == name[1]}
    if card:
        plan_options = next(({thing} for word, thing in SENSES.items() if word in card[1]), plan_options)
    if card and "beside" in card[1] and "cup" in shown:  # helps in some images only
        plan_options = plan_options | {"mouse/device"}
    yes = bool(plan_options & shown) or bool(card and "whatever" in card[1])
    if card and "unheard-of" in card[1]:
        yes = False
    return Response("yes" if yes else "no", first_logprobs={"yes" if yes else "no": math.log(0.95)}, prompt_tokens=60)


class ConceptWorkspace:
    """Everything lies below `root`; the LLM is a scripted server on loopback."""

    def __init__(self, root: Path, pictures: int = 60) -> None:
        self.root, self.out = root, root / "cards.yaml"
        self.images, self.table, self.truth = root / "images", root / "candidates.parquet", root / "truth.csv"
        self.vocabulary = root / "vocabulary.yaml"
        self.engine = RuleEngine(answer=see)
        self.images.mkdir(parents=True)
        self.describe({})
        self.names = [f"{number:03d}.png" for number in range(pictures)]
        for number, name in enumerate(self.names):
            self._paint(self.images / name, number)
        self._write_truth()
        self._write_table()

    def describe(self, descriptions: Mapping[str, str]) -> None:
        """Write the vocabulary, some of its labels with a description."""
        labels = [
            {"name": name, "parent": parent, **({"description": descriptions[name]} if name in descriptions else {})}
            for name, parent in LABELS.items()
        ]
        parents = list(dict.fromkeys(LABELS.values()))
        content = {"name": "workspace", "parents": parents, "labels": labels}
        self.vocabulary.write_text(yaml.safe_dump(content), encoding="utf-8")

    def _paint(self, path: Path, number: int) -> None:
        pixels = np.full((8, 8, 3), number, dtype=np.uint8)
        pixels[0] = 0
        for place, thing in enumerate(THINGS):
            pixels[0, place] = 255 if thing in things_in(number) else 0
        Pixels.fromarray(pixels).save(path)

    def _write_truth(self) -> None:
        with self.truth.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["image", "labels"])
            writer.writerows([name, "|".join(labels_in(number))] for number, name in enumerate(self.names))

    def _write_table(self) -> None:
        """A candidate table: every name is proposed in any sense."""
        rows = []
        for number, name in enumerate(self.names):
            said = {thing.partition("/")[0] for thing in things_in(number)}
            entries = tuple(LabelEntry(label, score=1.0, arms=("disjoint",)) for label in LABELS if label in said)
            fingerprint = hashlib.blake2b((self.images / name).read_bytes(), digest_size=16).digest()
            rows.append(Row(name, name, fingerprint, 8, 8, Status.OK, None, entries, ()))
        vocabulary = load_vocabulary(str(self.vocabulary))
        write_table(self.table, TableInfo("candidates", SourceInfo("folder", str(self.images)), vocabulary), rows)

    def settings(self, **options: Any) -> ConceptSettings:
        """The settings of a run with a table and people's labels, unless `options` say otherwise."""
        chosen = {"table": self.table, "truth": self.truth, "examples": 24, **options}
        return ConceptSettings(vocabulary=str(self.vocabulary), out=self.out, **chosen)

    def write(
        self, server: ScriptedLLM, *, sees: bool = True, patient: Mapping[str, Any] | None = None, **options: Any
    ) -> ConceptSummary:
        """Write cards with this LLM. `patient` are settings of the endpoint engine."""
        return write_concepts(self.settings(**options), *self.models(server, sees, patient or {}), Console(quiet=True))

    def models(
        self, server: ScriptedLLM, sees: bool = True, patient: Mapping[str, Any] | None = None
    ) -> tuple[Model, Model | None]:
        """The LLM behind the server, and the VLM."""
        llm = Model("scripted-llm", b"l" * 16, lambda: EndpointEngine(patience(server, **(patient or {}))))
        return llm, Model("rules", b"s" * 16, lambda: self.engine) if sees else None

    def file(self) -> dict[str, dict[str, Any]]:
        """The card file as YAML, each section by label name."""
        content = yaml.safe_load(self.out.read_text(encoding="utf-8"))
        return {section: {entry["name"]: entry for entry in content.get(section, [])} for section in SECTIONS}


SECTIONS: Sequence[str] = ("cards", "proposed", "unwritten")


def reasons(workspace: ConceptWorkspace, name: str) -> list[str]:
    """Why each attempt at a label ended as it did, oldest first."""
    entries = [section[name] for section in workspace.file().values() if name in section]
    return [attempt["why"] for attempt in entries[0].get("history", [])]
