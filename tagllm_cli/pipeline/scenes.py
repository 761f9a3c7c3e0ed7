"""`tagllm vocab scenes`: an LLM names scenes and the labels often seen in them; grouping reads the file.

Long vocabularies are asked about in parts, with labels assigned round-robin, so that each part has some of every scene.
Requests after the first list the scenes found by it, and scenes of the same name are merged. An unusable response, a
refusal or a failed request is left out with its reason.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tagllm_cli.engines.base import Engine, ask_all
from tagllm_cli.errors import UsageError
from tagllm_cli.labeling.answers.parse_json import UnusableAnswerError, read_json
from tagllm_cli.labeling.answers.parse_list import Lexicon, render_names
from tagllm_cli.labeling.groups.cooccurrence import Scene
from tagllm_cli.labeling.templates import Template, load_templates
from tagllm_cli.records import Request, Response
from tagllm_cli.store.atomic import replacing
from tagllm_cli.text import shortened
from tagllm_cli.vocabulary.forms import folded
from tagllm_cli.vocabulary.load import load_vocabulary
from tagllm_cli.vocabulary.model import Vocabulary

LABELS_PER_QUESTION = 100
MAX_NAME = 80  # characters of a scene's name

_HEAD = "# Labels that are often seen together. Edit it freely; `tagllm candidates --cooccurrence` groups by it.\n"


@dataclass(frozen=True, slots=True)
class SceneReport:
    """What was written: the number of scenes, and of the vocabulary's labels in them; `notes` are sentences."""

    vocabulary: str
    out: Path
    scenes: int
    placed: int
    labels: int
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain JSON values."""
        return {
            "vocabulary": self.vocabulary,
            "out": str(self.out),
            "scenes": self.scenes,
            "placed": self.placed,
            "labels": self.labels,
            "notes": list(self.notes),
        }

    def lines(self) -> list[str]:
        """Return the result in one line, and the command to run next."""
        words = ["tagllm", "candidates", "SOURCE", "--vocab", self.vocabulary, "--cooccurrence", str(self.out)]
        return [
            f"{self.out}: {self.scenes:,} scenes with {self.placed:,} of {self.labels:,} labels of {self.vocabulary}",
            f"next: {shlex.join(words)} --out TABLE",
        ]


def scenes_file(
    vocabulary_name: str, out: Path, engine_factory: Callable[[], Engine], prompts: Path | None, author: str = ""
) -> SceneReport:
    """Ask a model for the scenes of a vocabulary and write them to `out`, which must not exist: it may be edited.

    Args:
        vocabulary_name: name of a built-in vocabulary, or path of a file.
        out: YAML file to write.
        engine_factory: makes the engine, not started; it is closed in any case.
        prompts: folder of templates that replace built-in ones.
        author: the model's name, for the file; empty: the engine's version.

    Raises:
        UsageError: an unusable file, or no scene was found.
        EndpointError, ModelError: the model cannot be reached or loaded.
    """
    vocabulary, templates = load_vocabulary(vocabulary_name), load_templates(prompts)
    check_new_yaml(out, "a file of scenes", "scenes.yaml")
    engine = engine_factory()
    scenes, notes = asyncio.run(_ask(engine, vocabulary, templates))
    if not scenes:
        raise UsageError(
            f"no scene was found: {notes[0]}", f"Ask another model, or write {out.name} by hand: `scenes:` is a list."
        )
    write_scenes(out, vocabulary, scenes, author or engine.version)
    placed = {name for scene in scenes for name in scene.labels}
    return SceneReport(
        vocabulary_name, out, len(scenes), len(placed), len(vocabulary.names), (*vocabulary.notes, *notes)
    )


def check_new_yaml(out: Path, what: str, example: str) -> None:
    """Raise UsageError where `out` is no YAML file, exists (it may have been edited), or has no folder."""
    if out.suffix.lower() not in (".yaml", ".yml"):
        raise UsageError(f"{out} is no name for {what}", f"Name a YAML file, such as {example}.")
    if out.exists():
        raise UsageError(f"{out} exists already", "It may have been edited: choose another --out, or delete it.")
    if not out.parent.is_dir():
        raise UsageError(f"there is no folder {out.parent}", "Make it first, or choose another --out.")


async def _ask(
    engine: Engine, vocabulary: Vocabulary, templates: Mapping[str, Template]
) -> tuple[tuple[Scene, ...], tuple[str, ...]]:
    try:
        await engine.start()
        return await propose_scenes(engine, vocabulary, templates)
    finally:
        await engine.close()


async def propose_scenes(
    engine: Engine, vocabulary: Vocabulary, templates: Mapping[str, Template]
) -> tuple[tuple[Scene, ...], tuple[str, ...]]:
    """Return the scenes that a model names, their labels in the vocabulary's order, and sentences on what is missing.

    `engine` was started. A label may be in several scenes; the order of the scenes does not depend on timing. Raises
    EndpointError or EngineDiedError where the engine ends.
    """
    count = -(-len(vocabulary.names) // LABELS_PER_QUESTION)
    parts = [vocabulary.names[start::count] for start in range(count)]
    found = _Scenes(vocabulary)

    def question(part: Sequence[str]) -> Request:
        known = render_names(found.names)
        return templates["scenes"].request(labels=render_names(part), about=vocabulary.about, scenes=known)

    responses = await ask_all(engine, None, [question(parts[0])])
    found.add(f"question 1 of {count}", responses[0])
    others = await ask_all(engine, None, [question(part) for part in parts[1:]]) if count > 1 else []
    for number, response in enumerate(others, 2):
        found.add(f"question {number} of {count}", response)
    return found.scenes(), found.notes()


class _Scenes:
    """The scenes of all responses so far, merged by name."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._lexicon = Lexicon(vocabulary)
        self._names: dict[str, str] = {}  # as first written, by folded name
        self._labels: dict[str, set[str]] = {}
        self._foreign: dict[str, None] = {}  # a set in order
        self._failed: list[str] = []

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._names.values())

    def add(self, where: str, response: Response) -> None:
        """Add the scenes of a response, or why it has none."""
        try:
            scenes = _read_scenes(response)
        except UnusableAnswerError as error:
            self._failed.append(f"{where} failed: {error}")
            return
        for scene in scenes:
            labels = {each: self._lexicon.find(each) for each in scene.labels}
            self._foreign.update(dict.fromkeys(each for each, name in labels.items() if name is None))
            known = {name for name in labels.values() if name is not None}
            if known:
                key = folded(scene.name)
                self._names.setdefault(key, scene.name)
                self._labels.setdefault(key, set()).update(known)

    def scenes(self) -> tuple[Scene, ...]:
        return tuple(Scene(name, self._lexicon.ordered(self._labels[key])) for key, name in self._names.items())

    def notes(self) -> tuple[str, ...]:
        placed = {name for labels in self._labels.values() for name in labels}
        lacking = [name for name in self._lexicon.position if name not in placed]
        notes = list(self._failed)
        if self._foreign:
            notes.append(f"out-of-vocabulary names were left out: {shortened(list(self._foreign))}")
        if lacking:
            notes.append(f"in no scene: {shortened(lacking)}")
        return tuple(notes)


def _read_scenes(response: Response) -> list[Scene]:
    """Return the scenes of a response with the labels as written; entries of another form are left out."""
    value = read_json(response)
    if isinstance(value, dict):  # some models wrap a list in an object
        value = next((each for each in value.values() if isinstance(each, list)), [])
    scenes = []
    for entry in value if isinstance(value, list) else []:
        name, labels = (entry.get("scene"), entry.get("labels")) if isinstance(entry, dict) else (None, None)
        name = " ".join(name.split())[:MAX_NAME].strip() if isinstance(name, str) else ""
        if name and isinstance(labels, list):
            scenes.append(Scene(name, tuple(label for label in labels if isinstance(label, str))))
    if not scenes:
        raise UnusableAnswerError("the answer names no scene")
    return scenes


def write_scenes(path: Path, vocabulary: Vocabulary, scenes: Sequence[Scene], author: str) -> None:
    """Write a file of scenes by one rename. Raises UsageError where it cannot be written."""
    import yaml

    entries = [{"name": scene.name, "labels": list(scene.labels)} for scene in scenes]
    content = {"vocabulary": vocabulary.name, "author": author, "scenes": entries}
    text = yaml.safe_dump(content, allow_unicode=True, sort_keys=False, width=120)
    with replacing(path) as new:
        new.write_text(_HEAD + text, encoding="utf-8")
