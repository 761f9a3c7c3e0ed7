"""Words that questions are made of: the tool's templates, paraphrases, names and what they mean."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

import jinja2
import yaml

from tests.demo import descriptions
from tests.demo.things import MEANS, NAMES, THINGS

_ROOT = Path(__file__).parents[2]
OWN_PROMPTS = Path(__file__).parent / "prompts"  # wordings of earlier releases that the model was trained on
_TRAINED = ("all", "group", "meaning", "open", "verify", "verify_card")


@lru_cache
def frames() -> Mapping[str, Any]:
    """frames.yaml."""
    loaded: Mapping[str, Any] = yaml.safe_load(Path(__file__).with_name("frames.yaml").read_text(encoding="utf-8"))
    return loaded


@lru_cache
def templates() -> Mapping[str, Mapping[str, Any]]:
    """The templates that the model is trained on, by name: the demo's own, else the tool's. Every value is text.

    Those that ask a language model (for concept cards, for scenes) are none of its business: the tokenizer is learnt
    from these texts and no others.
    """
    folders = {name: OWN_PROMPTS if (OWN_PROMPTS / f"{name}.yaml").exists() else _ROOT / "prompts" for name in _TRAINED}
    files = {name: folder / f"{name}.yaml" for name, folder in folders.items()}
    return {name: yaml.load(path.read_text(encoding="utf-8"), yaml.BaseLoader) for name, path in files.items()}


@lru_cache(maxsize=256)
def _compiled(text: str) -> jinja2.Template:
    return jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False).from_string(text)


def render(text: str, **values: str) -> str:
    """A template's text with its variables filled in, as the tool does it."""
    return _compiled(text).render(**{"similar": "", **values})


_MARKED = re.compile("\ue000(.*?)\ue001(.*?)\ue002", re.DOTALL)


def located(text: str, similar: str = "", **values: str) -> tuple[str, dict[str, int]]:
    """A filled-in template, and for each variable the offset where its first occurrence ends."""
    marked = render(text, similar=similar, **{key: f"\ue000{key}\ue001{value}\ue002" for key, value in values.items()})
    plain, last, ends = "", 0, dict[str, int]()
    for match in _MARKED.finditer(marked):
        plain += marked[last : match.start()] + match[2]
        ends.setdefault(match[1], len(plain))
        last = match.end()
    return plain + marked[last:], ends


def wording_of(rng: Random, kind: str) -> str:
    """The tool's own wording half of the time, else a paraphrase."""
    if rng.random() < 0.5:
        return str(templates()[kind]["text"])
    return str(rng.choice(frames()["group" if kind == "all" else kind]))


def system(rng: Random) -> str | None:
    """A system prompt: mostly the tool's, sometimes another, sometimes none."""
    dice = rng.random()
    if dice < 0.75:
        return str(templates()["group"]["system"])
    return str(rng.choice(frames()["systems"])) if dice < 0.9 else None


@lru_cache
def meanings() -> Mapping[str, tuple[str, ...]]:
    """Each of the 60 names -> ids of the things that answer to it: one, or two for an ambiguous name."""
    return {name: tuple(thing.id for thing in THINGS.values() if thing.name == name) for name in NAMES}


@lru_cache
def synonyms() -> Mapping[str, tuple[str, ...]]:
    """Other names -> id of the one thing that they mean, from vocab/scenes.yaml and frames.yaml."""
    found: dict[str, tuple[str, ...]] = {}
    for label in vocabulary():
        for word in label.get("synonyms", ()):
            found[word] = (MEANS.get(label["name"], label["name"]),)
    for thing, words in frames()["other_senses"].items():
        found.update(dict.fromkeys(words, (thing,)))
    return found


@lru_cache
def vocabulary() -> tuple[Mapping[str, Any], ...]:
    """The labels of vocab/scenes.yaml, each with name, description and perhaps synonyms and similar."""
    loaded = yaml.safe_load((_ROOT / "vocab" / "scenes.yaml").read_text(encoding="utf-8"))
    return tuple(loaded["labels"])


def quoted(name: str) -> str:
    """A name as it stands in a list: in JSON quotes if it has a comma or a quote itself."""
    return json.dumps(name, ensure_ascii=False) if set(name) & set(',"\n') else name


def corpus() -> list[str]:
    """Texts that the tokenizer's vocabulary is learnt from: wordings, names, attributes."""
    words = [*NAMES, *synonyms(), *map(str, frames()["absent"]), *descriptions.every_value()]
    wordings = [
        text for key in ("systems", "group", "open", "verify", "verify_card", "meaning") for text in frames()[key]
    ]
    own = [str(template[key]) for template in templates().values() for key in ("system", "text")]
    pieces = [text for key in ("parts", "uses", "looks", "kinds", "nouns") for text in frames()[key]]
    plain = [word for text in words for word in (text, text.lower(), text.capitalize())]
    numbers = [str(number) for number in range(100)] * 4
    answers = ["yes", "no", "none", "something that I have not seen"] * 50
    return plain * 20 + (wordings + own + pieces) * 5 + numbers + answers
