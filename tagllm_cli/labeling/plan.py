"""The plan: everything that decides what is asked about an image, as the evidence of a table pins it.

A plan is made once per table and kept in its evidence, so that an upgrade of the tool never asks about a million images
again unannounced. `replan` makes plans and changes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from tagllm_cli.labeling.groups.arms import PARENTS, Group
from tagllm_cli.labeling.strategies import DEFAULT_STRATEGY as DEFAULT_STRATEGY
from tagllm_cli.labeling.strategies import STRATEGIES as STRATEGIES
from tagllm_cli.labeling.templates import Template
from tagllm_cli.records import request_context
from tagllm_cli.vocabulary.model import Vocabulary
from tagllm_cli.vocabulary.serialize import vocabulary_from_json, vocabulary_to_json

if TYPE_CHECKING:
    from tagllm_cli.labeling.groups.cooccurrence import Cooccurrence

DEFAULT_MAX_PIXELS = 1_003_520  # 1280 patches of 28 x 28, the middle of what Qwen2.5-VL was trained on
DEFAULT_GROUP_SIZE = 12
DEFAULT_ARMS = ("cooccurring", "disjoint")


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """What a command's options ask for; None means: as pinned, else the default."""

    stage: str
    vocabulary: Vocabulary
    templates: Mapping[str, Template]
    model: str | None = None
    model_digest: bytes | None = None
    own_templates: bool = False
    max_pixels: int | None = None
    group_size: int | None = None
    arms: tuple[str, ...] | None = None
    strategy: str | None = None
    cooccurrence: Cooccurrence | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked, of which model, about which pixels. `model_digest` and `context()` are 16 bytes.

    `label_ids` numbers every label that the table ever had, from 0, in the order in which they were added: exports
    number by it. `strategy` is one of STRATEGIES and concerns candidates only. `arms` hold the groups of labels that
    are asked about together: one empty group where the request names no label (`open`), no group where each label is
    asked about alone (`binary`). `grouped_by` says what the groups were made by, for messages.
    """

    stage: str
    vocabulary: Vocabulary
    label_ids: Mapping[str, int]
    templates: Mapping[str, Template]
    model: str
    model_digest: bytes
    imaging: int
    max_pixels: int
    group_size: int
    arms: Mapping[str, tuple[Group, ...]] = field(default_factory=dict)
    strategy: str = DEFAULT_STRATEGY
    grouped_by: str = PARENTS

    def context(self) -> bytes:
        """Return the hash that every request's identity starts from: model, imaging version and pixel budget."""
        return request_context(self.model_digest, self.imaging, self.max_pixels)

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain JSON values."""
        return {
            "stage": self.stage,
            "vocabulary": vocabulary_to_json(self.vocabulary),
            "label_ids": dict(self.label_ids),
            "templates": {name: asdict(template) for name, template in self.templates.items()},
            "model": self.model,
            "model_digest": self.model_digest.hex(),
            "imaging": self.imaging,
            "max_pixels": self.max_pixels,
            "group_size": self.group_size,
            "arms": {arm: [[group.id, list(group.names)] for group in groups] for arm, groups in self.arms.items()},
            "strategy": self.strategy,
            "knowledge": self.grouped_by,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Plan:
        """Return the plan that `to_json` wrote, in this release or an older one."""
        return cls(
            stage=value["stage"],
            vocabulary=vocabulary_from_json(value["vocabulary"]),
            label_ids=value["label_ids"],
            templates={name: Template.from_json(template) for name, template in value["templates"].items()},
            model=value["model"],
            model_digest=bytes.fromhex(value["model_digest"]),
            imaging=value["imaging"],
            max_pixels=value["max_pixels"],
            group_size=value["group_size"],
            arms={
                arm: tuple(Group(id_, tuple(names)) for id_, names in groups) for arm, groups in value["arms"].items()
            },
            strategy=value.get("strategy", DEFAULT_STRATEGY),
            grouped_by=value.get("knowledge", PARENTS),
        )
