"""The concept cards that the ablation compares, each variant a card file: two real ones and three negative controls."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from random import Random

import yaml

from tagllm_cli.vocabulary.model import Vocabulary
from tests.ablation.design import DESCRIPTION, PLACEBO, REPEATED, SHUFFLED, SIMILAR

_SEED = 0
# Words that the demo model reads and that say nothing about a thing.
_CLAUSES = (
    "that can be seen in the picture",
    "that can be seen in the same picture",
    "that can also be seen in the same picture",
)
_TAILS = ("in any form", "at any time", "from any side", "with other things")


def write_cards(folder: Path, vocabulary: Vocabulary) -> Mapping[str, Path]:
    """Write every variant of the vocabulary's own cards as a card file; return the files by the column's name.

    `description` and `similar` are what the vocabulary says, without and with what a label must be told apart from.
    `shuffled`: each label gets another's description. `placebo`: each gets as many words as its own has, about nothing.
    `repeated`: the same about the label's name, which says no more than the bare question but is a card to look at.
    """
    described = {label.name: label for label in vocabulary.labels if label.description}
    own = {name: label.description for name, label in described.items()}
    variants: dict[str, dict[str, str]] = {
        DESCRIPTION.name: own,
        SIMILAR.name: own,
        SHUFFLED.name: shuffled(own),
        PLACEBO.name: {name: about_nothing("something", len(text.split())) for name, text in own.items()},
        REPEATED.name: {name: about_nothing(f"any {name}", len(text.split())) for name, text in own.items()},
    }
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for variant, descriptions in variants.items():
        cards: list[dict[str, object]] = [{"name": name, "description": text} for name, text in descriptions.items()]
        if variant == SIMILAR.name:
            for card in cards:
                card["similar"] = list(described[str(card["name"])].similar)
        files[variant] = folder / f"{variant}.yaml"
        text = yaml.safe_dump({"cards": cards}, sort_keys=False, allow_unicode=True, width=120)
        files[variant].write_text(text, encoding="utf-8")
    return files


def shuffled(descriptions: Mapping[str, str]) -> dict[str, str]:
    """Return the descriptions so dealt out that no label keeps its own; the same ones for the same labels.

    >>> sorted(shuffled({"cat": "it purrs", "dog": "it barks", "cow": "it moos"}).values())
    ['it barks', 'it moos', 'it purrs']
    """
    order = list(descriptions)
    Random(_SEED).shuffle(order)
    # Each label takes from the next one in a random circle, so none can meet itself.
    givers = dict(zip(order, [*order[1:], *order[:1]], strict=True))
    return {name: descriptions[givers[name]] for name in descriptions}


def about_nothing(start: str, words: int) -> str:
    """Return a description of so many words that begins with `start` and fits everything that `start` names.

    >>> about_nothing("something", 9)
    'something that can be seen in the same picture'
    >>> about_nothing("any traffic light", 13)
    'any traffic light that can be seen in the picture, in any form'
    """
    left = words - len(start.split())
    shortest = len(_CLAUSES[0].split())
    if left < shortest:
        return " ".join([*start.split(), *_CLAUSES[0].split()][:words])
    tails, extra = divmod(left - shortest, 3)
    chosen = [_TAILS[number % len(_TAILS)] for number in range(tails)]
    return ", ".join([f"{start} {_CLAUSES[extra]}", *chosen])
