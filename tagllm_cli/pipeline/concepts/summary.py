"""The summary of `tagllm concepts`."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tagllm_cli.errors import TagllmError
from tagllm_cli.pipeline.concepts.card_store import CardStore
from tagllm_cli.text import shortened
from tagllm_cli.vocabulary.model import Vocabulary

_SHOWN = 8


@dataclass(frozen=True, slots=True)
class ConceptSummary:
    """A finished run.

    `cards` are the labels with a card in the file, `by_hand` those of them that a human wrote or changed; `described`
    have a description in the vocabulary and need none; `waiting` are proposed and undecided; `unwritten` maps a label
    to the reason why it has no card. `asked` counts the requests to the `llm` and, where it is another one, to the
    multimodal `model`. `error` is set when the run ends with an exit code other than 0.
    """

    out: Path
    rounds: int
    cards: tuple[str, ...]
    by_hand: tuple[str, ...]
    described: tuple[str, ...]
    waiting: tuple[str, ...]
    unwritten: dict[str, str]
    asked: dict[str, int]
    seconds: float
    error: TagllmError | None = None

    @classmethod
    def of(
        cls,
        out: Path,
        vocabulary: Vocabulary,
        store: CardStore,
        *,
        rounds: int,
        asked: dict[str, int],
        seconds: float,
        error: TagllmError | None = None,
    ) -> ConceptSummary:
        """Return the summary of a run that left the card file like this."""
        names = vocabulary.names
        return cls(
            out,
            rounds,
            cards=tuple(name for name in names if name in store.cards),
            by_hand=tuple(name for name in names if store.is_human_edited(name)),
            described=tuple(label.name for label in vocabulary.labels if label.description.strip()),
            waiting=tuple(name for name in names if name in store.proposed),
            unwritten={name: store.unwritten[name].why for name in names if name in store.unwritten},
            asked=asked,
            seconds=seconds,
            error=error,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the summary as plain JSON values."""
        return {
            "command": "concepts",
            "cards_file": str(self.out),
            "rounds": self.rounds,
            "cards": list(self.cards),
            "by_hand": list(self.by_hand),
            "described_in_vocabulary": list(self.described),
            "waiting": list(self.waiting),
            "unwritten": self.unwritten,
            "asked": self.asked,
            "seconds": round(self.seconds, 3),
            "next": self.next_command,
            "error": None if self.error is None else self.error.to_json(),
        }

    @property
    def next_command(self) -> str:
        """What to run next: the review while cards wait, else `disambiguate`."""
        if self.waiting:
            return "the same command with --review"
        return f"tagllm disambiguate TABLE --concepts {shlex.quote(str(self.out))} --out LABELS"

    def lines(self) -> list[str]:
        """Return four lines: cards, labels without one, requests, and what to run next."""
        others = [
            f"{len(names):,} {what}"
            for names, what in ((self.by_hand, "by hand"), (self.waiting, "waiting for review"))
            if names
        ]
        described = f"; {len(self.described):,} labels are described in the vocabulary" if self.described else ""
        rounds = f"{self.rounds} round{'' if self.rounds == 1 else 's'}"
        requests = ", ".join(f"{count:,} to the {model}" for model, count in self.asked.items())
        return [
            f"{self.out}: {len(self.cards):,} card{'' if len(self.cards) == 1 else 's'}"
            + (f" ({', '.join(others)})" if others else "")
            + described,
            f"no card: {self._unwritten()}",
            f"{rounds}, requests: {requests}, {self.seconds:.1f} s",
            f"next: {self.next_command}",
        ]

    def _unwritten(self) -> str:
        if not self.unwritten:
            return "none of the ambiguous labels"
        return f"{shortened(list(self.unwritten), _SHOWN)} (the file says why)"
