"""Vocabularies as plain JSON values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from tagllm_cli.vocabulary.model import Label, Vocabulary


def vocabulary_to_json(vocabulary: Vocabulary) -> dict[str, Any]:
    """Return a vocabulary as plain JSON values, empty keys left out."""
    labels = [{key: value for key, value in asdict(label).items() if value} for label in vocabulary.labels]
    groups = {arm: [list(group) for group in partition] for arm, partition in vocabulary.groups.items()}
    return {"name": vocabulary.name, "about": vocabulary.about, "labels": labels, "groups": groups}


def vocabulary_from_json(value: Mapping[str, Any]) -> Vocabulary:
    """Return the vocabulary that `vocabulary_to_json` wrote."""
    labels = tuple(
        Label(
            name=label["name"],
            parent=label.get("parent"),
            synonyms=tuple(label.get("synonyms", ())),
            description=label.get("description", ""),
            similar=tuple(label.get("similar", ())),
        )
        for label in value["labels"]
    )
    return Vocabulary(value["name"], labels, value.get("groups", {}), value.get("about", ""))
