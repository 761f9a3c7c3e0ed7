"""Second half of the demo model's training: questions, packed so that each picture is paid for once.

A row is one picture and as many questions about it as fit. All questions see the picture (and the system prompt before
it), none sees another question, and each one's positions start again where the picture ends: what vLLM's prefix cache
does when the tool asks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.demo import questions, wordings
from tests.demo.modelling import ASSISTANT, END, IMAGE, IMAGE_TEXT, SYSTEM, USER, WIDTH
from tests.demo.questions import Question
from tests.demo.things import THINGS
from tests.demo.vision import Heads, attribute_words

LENGTH = 512
_ORDER = {thing: index for index, thing in enumerate(THINGS)}
_NO_PICTURE = 1 / 24  # share of rows that ask what names mean, without a picture


class Readers(nn.Module):
    """What tells the text model in training where to keep what it knows; thrown away afterwards.

    `named`: after layer 2, at the end of a name, is the thing there? `meant`: after layer 2, at the end of a
    description, which thing is that? `described`: after layer 3, at the same place, is it there?
    """

    def __init__(self) -> None:
        """Creates linear heads."""
        super().__init__()
        self.named, self.described, self.meant = nn.Linear(WIDTH, 1), nn.Linear(WIDTH, 1), nn.Linear(WIDTH, len(THINGS))


@dataclass(slots=True)
class Row:
    """Packed token ids and, for each, its position, question number (0 for the prefix), target and weight."""

    ids: list[int]
    positions: list[int]
    owner: list[int]
    targets: list[int]
    weights: list[float]
    pictured: bool
    kinds: list[str] = field(default_factory=list)
    names: list[tuple[int, float]] = field(default_factory=list)
    described: list[tuple[int, tuple[int, ...], float]] = field(default_factory=list)


class Packer:
    """Turns questions into rows of `LENGTH` tokens."""

    def __init__(self, tokenizer: Any) -> None:
        """Takes the model's tokenizer."""
        self.tokenizer = tokenizer
        self.image = tokenizer.convert_tokens_to_ids(IMAGE)

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def start(self, system: str | None, pictured: bool) -> Row:
        """A row with its prefix: system prompt and picture."""
        text = (SYSTEM + system + END if system else "") + USER + (IMAGE_TEXT if pictured else "")
        ids = self._ids(text)
        size = len(ids)
        return Row(ids, list(range(size)), [0] * size, [-100] * size, [0.0] * size, pictured)

    def add(self, row: Row, question: Question, shown: frozenset[str]) -> bool:
        """Appends a question and its answer; False, and nothing done, if there is no room."""
        asked = self.tokenizer(question.text, add_special_tokens=False)
        head = [*asked["input_ids"], *self._ids(END + ASSISTANT)]
        answer = self._ids(question.answer + END)
        size, base = len(head) + len(answer), len(row.ids)
        if base + size > LENGTH:
            return False
        first = row.owner.count(0)
        row.ids += head + answer
        row.positions += range(first, first + size)
        row.kinds.append(question.kind)
        row.owner += [len(row.kinds)] * size
        row.targets += [-100] * (len(head) - 1) + answer + [-100]
        row.weights += (
            [0.0] * (len(head) - 1) + [2.0 if question.kind.startswith("verify") else 1.0] + [1.0] * len(answer)
        )
        for mention in question.mentions:
            at = base + asked.char_to_token(mention.end - 1)
            there = float(bool(shown.intersection(mention.things)))
            if mention.described:
                row.described.append((at, tuple(_ORDER[thing] for thing in mention.things), there))
            else:
                row.names.append((at, there))
        return True

    def row(self, rng: Random, shown: frozenset[str]) -> Row:
        """A full row of random questions about a picture, or about names if the picture is left out."""
        pictured = rng.random() >= _NO_PICTURE
        row = self.start(wordings.system(rng), pictured)
        misses = 0
        while misses < 3:
            question = questions.about(rng, shown) if pictured else questions.meaning(rng)
            misses += not self.add(row, question, shown)
        return row


@dataclass(slots=True)
class Batch:
    """Rows as tensors: ids, positions, owner, targets int64 and weights float32, each [rows, LENGTH].

    Owner -1 is padding. `names` are (row, position) int64 [n, 2], `named` whether that thing is there, float32 [n];
    `places` and `described` the same for m descriptions, with `meant`, the things described, float32 [m, things].
    """

    ids: Tensor
    positions: Tensor
    owner: Tensor
    targets: Tensor
    weights: Tensor
    pictured: Tensor
    names: Tensor
    named: Tensor
    places: Tensor
    described: Tensor
    meant: Tensor


def batch(rows: Sequence[Row], pad: int, device: torch.device) -> Batch:
    """Pads rows and gathers their mentions."""

    def full(name: str, fill: float) -> Tensor:
        values = [getattr(row, name) + [fill] * (LENGTH - len(row.ids)) for row in rows]
        return torch.tensor(values, device=device)

    names = [(index, at, there) for index, row in enumerate(rows) for at, there in row.names]
    described = [(index, at, things, there) for index, row in enumerate(rows) for at, things, there in row.described]
    meant = torch.zeros(len(described), len(THINGS))
    for index, (_, _, things, _) in enumerate(described):
        meant[index, list(things)] = 1 / max(len(things), 1)
    return Batch(
        full("ids", pad), full("positions", 0), full("owner", -1), full("targets", -100), full("weights", 0.0),
        torch.tensor([row.pictured for row in rows], device=device),
        torch.tensor([n[:2] for n in names], dtype=torch.long, device=device).view(-1, 2),
        torch.tensor([n[2] for n in names], device=device),
        torch.tensor([d[:2] for d in described], dtype=torch.long, device=device).view(-1, 2),
        torch.tensor([d[3] for d in described], device=device), meant.to(device),
    )  # fmt: skip


def visible(owner: Tensor) -> Tensor:
    """Which token sees which: bool [rows, 1, LENGTH, LENGTH] from owner [rows, LENGTH]."""
    length = owner.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=owner.device).tril()
    same = owner[:, :, None] == owner[:, None, :]
    prefix = owner[:, None, :] == 0
    return ((same | prefix) & causal)[:, None]


def run_text(text_model: Any, embedded: Tensor, mask: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """States after layer 2, after layer 3 and at the end, each [rows, LENGTH, 256]."""
    out = text_model(
        inputs_embeds=embedded, attention_mask=mask, position_ids=positions, output_hidden_states=True, use_cache=False
    )
    return out.hidden_states[2], out.hidden_states[3], out.last_hidden_state


def embed(model: Any, data: Batch, seen: Tensor, image: int) -> Tensor:
    """Token embeddings with image tokens `seen` [rows, 49, 256] put in place: [rows, LENGTH, 256]."""
    embedded = model.model.text_model.embed_tokens(data.ids)
    slots = (data.ids == image)[..., None]
    return embedded.masked_scatter(slots, seen[data.pictured].to(embedded.dtype).reshape(-1, WIDTH))


def loss(model: Any, readers: Readers, states: tuple[Tensor, Tensor, Tensor], data: Batch) -> Tensor:
    """Next-token loss of the answers, plus what the readers miss."""
    second, third, last = (state.float() for state in states)
    asked = data.targets >= 0
    logits = last[asked] @ model.model.text_model.embed_tokens.weight.float().T
    weights = data.weights[asked]
    total = (F.cross_entropy(logits, data.targets[asked], reduction="none") * weights).sum() / weights.sum()
    if len(data.names):
        at = second[data.names[:, 0], data.names[:, 1]]
        total = total + F.binary_cross_entropy_with_logits(readers.named(at).squeeze(-1), data.named)
    if len(data.places):
        early, late = (state[data.places[:, 0], data.places[:, 1]] for state in (second, third))
        total = total + F.binary_cross_entropy_with_logits(readers.described(late).squeeze(-1), data.described)
        total = total + 0.3 * F.cross_entropy(readers.meant(early), data.meant)
    return total


def right(
    model: Any, states: tuple[Tensor, Tensor, Tensor], data: Batch, rows: Sequence[Row]
) -> Iterator[tuple[str, bool]]:
    """For each question its kind and whether a greedy answer would be exactly right."""
    logits = states[2].float() @ model.model.text_model.embed_tokens.weight.float().T
    wrong = (logits.argmax(-1) != data.targets) & (data.targets >= 0)
    for index, row in enumerate(rows):
        missed = {row.owner[at] for at in wrong[index].nonzero().flatten().tolist()}
        yield from ((kind, number not in missed) for number, kind in enumerate(row.kinds, 1))


def seed_embeddings(model: Any, heads: Heads, tokenizer: Any) -> None:
    """Starts the embeddings of the words of names and attributes near the directions in which the tower shows them."""
    weights = heads.cells.weight.detach()
    rows: dict[str, list[Tensor]] = {}
    texts = [*(thing.name for thing in THINGS.values()), *attribute_words()]
    for text, row in zip(texts, weights, strict=True):
        for word in set(text.replace(",", " ").split()) - _SMALL:
            rows.setdefault(word, []).append(F.normalize(row, dim=0))
    table = model.model.text_model.embed_tokens.weight.data
    for word, found in rows.items():
        direction = F.normalize(torch.stack(found).mean(0), dim=0)
        for form in (word, word.capitalize()):
            ids = tokenizer(form, add_special_tokens=False)["input_ids"]
            if len(ids) == 1:
                table[ids[0]] = 0.5 * table[ids[0]] + 0.3 * direction


_SMALL = frozenset(
    [
        "a",
        "an",
        "the",
        "and",
        "is",
        "are",
        "of",
        "in",
        "on",
        "at",
        "to",
        "for",
        "with",
        "that",
        "which",
        "it",
        "its",
        "or",
        "one",
    ]
)
