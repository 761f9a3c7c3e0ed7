"""What tables suggest for their vocabulary: names to add, synonyms, labels that never occur, pairs, collisions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tagllm_cli.errors import UsageError
from tagllm_cli.evaluation.suggest.count import Texts, count_images, count_texts
from tagllm_cli.evaluation.suggest.fold import Known, Name, fold
from tagllm_cli.evaluation.suggest.labels import Implied, collisions, implications
from tagllm_cli.labeling.answers.parse_list import Lexicon
from tagllm_cli.labeling.groups.cooccurrence import PairCounts, count_pairs
from tagllm_cli.store.table import Table, open_table
from tagllm_cli.vocabulary.model import Label, Vocabulary

MOST_NAMES = 2_000  # that are looked at, the most frequent ones
DEFAULT_IMAGES = 3
DEFAULT_LIMIT = 100


@dataclass(frozen=True, slots=True)
class SuggestOptions:
    """`min_images` must say a name; at most `limit` names are suggested, the most frequent ones."""

    min_images: int = DEFAULT_IMAGES
    limit: int = DEFAULT_LIMIT


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A name that `images` images were said to show; `examples` are some of them, `forms` all ways it was written.

    `same_as` is the label that it is another form of, `broader` the label that its last words name, `parent` its
    category; "" where there is none.
    """

    name: str
    forms: tuple[str, ...]
    images: int
    share: float
    examples: tuple[str, ...]
    same_as: str = ""
    broader: str = ""
    parent: str = ""

    def label(self) -> Label:
        """Return it as a label, with its other forms that no ending explains as synonyms."""
        spelled = [form for form in self.forms if form.replace(" ", "") == self.name.replace(" ", "")]
        return Label(self.name, self.parent or None, tuple(form for form in spelled if form != self.name))

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        told = {"name": self.name, "images": self.images, "share": round(self.share, 6), "forms": list(self.forms)}
        relations = {key: getattr(self, key) or None for key in ("same_as", "broader", "parent")}
        return {**told, **relations, "examples": list(self.examples)}


@dataclass(frozen=True)
class Suggestions:
    """What one or several tables of a vocabulary suggest.

    `images` have an answer. `labels` are names to add, `synonyms` other forms of labels. `junk` counts texts that are
    no names by what they are, with `samples`; `described` texts were a label with an adjective; `rare` names were said
    of too few images, `more` ones are beyond the limit. `never` are labels that no image has. `notes` are sentences.
    """

    vocabulary: Vocabulary
    tables: Sequence[Path]
    images: int
    labels: Sequence[Suggestion]
    synonyms: Sequence[Suggestion]
    junk: Mapping[str, int]
    samples: Mapping[str, str]
    described: int
    rare: int
    more: int
    never: Sequence[str]
    implied: Sequence[Implied]
    collisions: Sequence[str]
    notes: Sequence[str] = field(default_factory=tuple)


def suggest(paths: Sequence[Path], options: SuggestOptions = SuggestOptions()) -> Suggestions:
    """Look through tables of one vocabulary.

    An image that several tables have counts once. Pairs of labels are counted in the first table. Raises TableError for
    a table that cannot be read, UsageError for tables of different vocabularies.
    """
    tables = [open_table(path) for path in paths]
    vocabulary = _common_vocabulary(tables)
    texts = count_texts(tables)
    names, described = fold(texts.names, Lexicon(vocabulary))
    frequent = [each for each in names if each.count >= options.min_images]
    looked_at = frequent[:MOST_NAMES]
    found = _counted(tables, looked_at, vocabulary, max(texts.answered, default=0))
    enough = [each for each in found if each.images >= options.min_images]
    new = [each for each in enough if not each.same_as]
    counts = [count_pairs(table) for table in tables]
    return Suggestions(
        vocabulary,
        tuple(paths),
        max(texts.answered, default=0),
        new[: options.limit],
        [each for each in enough if each.same_as],
        dict(texts.junk.most_common()),
        texts.samples,
        described.total(),
        len(names) - len(frequent) + len(looked_at) - len(enough),
        len(frequent) - len(looked_at) + len(new) - len(new[: options.limit]),
        _never(counts, vocabulary),
        implications(counts[0], vocabulary, texts.answered[0]),
        collisions(vocabulary),
        _notes(texts, described, tables),
    )


def _common_vocabulary(tables: Sequence[Table]) -> Vocabulary:
    first = tables[0].info.vocabulary
    for table in tables[1:]:
        if table.info.vocabulary.names != first.names:
            raise UsageError(
                f"{tables[0].path} and {table.path} have different labels",
                "Give tables of one vocabulary; run the older one's command with the new vocabulary first.",
            )
    return first


def _counted(tables: Sequence[Table], names: Sequence[Name], vocabulary: Vocabulary, images: int) -> list[Suggestion]:
    """Return the names with their images, the most frequent first, and what they are to the labels."""
    known, parents = Known(vocabulary), {label.name: label.parent or "" for label in vocabulary.labels}
    number_of = {form: number for number, name in enumerate(names) for form in name.forms}
    found = []
    for name, said in zip(names, count_images(tables, number_of, len(names)), strict=True):
        same = known.same(name) or ""
        broader = "" if same else known.broader(name) or ""
        share = said.images / max(1, images)
        parent = parents.get(broader, "")
        found.append(Suggestion(name.name, name.forms, said.images, share, said.examples, same, broader, parent))
    return sorted(found, key=lambda each: (-each.images, each.name))


def _never(counts: Sequence[PairCounts], vocabulary: Vocabulary) -> list[str]:
    total = np.sum([each.alone for each in counts], axis=0)
    return [name for name, count in zip(vocabulary.names, total.tolist(), strict=True) if not count]


def _notes(texts: Texts, described: Counter[str], tables: Sequence[Table]) -> list[str]:
    notes = []
    if not texts.names and not texts.junk:
        notes.append(
            "no answer names anything outside the vocabulary: `tagllm candidates --strategy open` asks without a list"
        )
    if texts.forgotten:
        notes.append("so many different texts that the rarest were forgotten: counts of rare names are too low")
    if len(tables) > 1:
        notes.append(f"pairs of labels are counted in {tables[0].path}")
    return notes
