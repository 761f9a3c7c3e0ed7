"""Labels and vocabularies, as they are known before anything is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Label:
    """One label of a vocabulary; `description` and `similar` make its concept card."""

    name: str
    parent: str | None = None
    synonyms: tuple[str, ...] = ()
    description: str = ""
    similar: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The labels of a dataset in its own order, with the groups that its author wrote, if any.

    `groups` maps an arm's name to a partition of label names. `notes` are sentences on how the file was read, if it was
    in another tool's format; they are no part of the vocabulary's identity.
    """

    name: str
    labels: tuple[Label, ...]
    groups: Mapping[str, Sequence[Sequence[str]]] = field(default_factory=dict)
    about: str = ""
    notes: tuple[str, ...] = field(default=(), compare=False)

    @property
    def names(self) -> tuple[str, ...]:
        """The label names in order."""
        return tuple(label.name for label in self.labels)
