"""The file of calibrated thresholds: YAML that `tagllm calibrate` writes, tied to the questions it was made for.

    version: 1
    metric: f1
    threshold: 0.5                 # the common one: of labels without their own, and of labels that are new since
    model: {name: Qwen2.5-VL-7B-Instruct, digest: ...}
    max_pixels: 1003520
    imaging: 1
    measured: {images: 500, folds: 5, seed: 0, before: ..., after: ...}
    labels:
    - {name: dog, id: 0, question: ..., threshold: 0.41, low: 0.33, high: 0.52, positives: 34, judged: 500}
    - {name: cat, id: 1, question: ..., positives: 3, judged: 500, why: fewer than 5 positives}

A label without `threshold` is on the common one, and `why` says for what reason. `question` is a hash of what the model
is asked about the label: prompts and concept card.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, model_validator

from tagllm_cli.errors import TableError, UsageError, VocabularyError
from tagllm_cli.labeling.plan import Plan
from tagllm_cli.labeling.thresholds import Thresholds
from tagllm_cli.records import digest16
from tagllm_cli.resources import UserModel, in_one_line, read_yaml, validated
from tagllm_cli.store.atomic import check_replaceable, check_writable_path, replacing
from tagllm_cli.store.table import Table
from tagllm_cli.text import shortened
from tagllm_cli.vocabulary.cards import Card

VERSION = 1
_KEYS = re.compile(rb"^(version|metric|threshold):", re.MULTILINE)
_ANEW = "Label without --thresholds, then calibrate anew: tagllm calibrate TABLE --truth FILE --out"


@dataclass(frozen=True, slots=True)
class LabelThreshold:
    """One label. `threshold` in [0, 1], None for the common one, with its interval from `low` to `high`.

    `question` is the hash of what is asked (`question_digests`), `id` the permanent id in the table that was measured.
    `positives` of the `judged` images have the label.
    """

    name: str
    id: int
    question: str
    threshold: float | None = None
    low: float | None = None
    high: float | None = None
    positives: int = 0
    judged: int = 0
    why: str = ""


@dataclass(frozen=True, slots=True)
class ThresholdFile:
    """A file of thresholds. `metric` is what they are best for, `threshold` in [0, 1] the common one.

    `model_digest`, `max_pixels` and `imaging` are those of the plan that was measured. `measured` holds plain values
    about how: they are for readers, and decide nothing.
    """

    path: Path
    metric: str
    threshold: float
    model: str
    model_digest: str
    max_pixels: int
    imaging: int
    labels: tuple[LabelThreshold, ...]
    measured: Mapping[str, Any] = field(default_factory=dict)

    def limits(self, min_mass: float = 0.5, common: float | None = None) -> Thresholds:
        """Return the thresholds of all its labels; `common` replaces the common one."""
        own = {label.name: label.threshold for label in self.labels if label.threshold is not None}
        return Thresholds(self.threshold if common is None else common, min_mass, own)

    def digest(self) -> str:
        """Return a hash, as hexadecimal text, of all that decides."""
        own = sorted((label.name, label.question, label.threshold) for label in self.labels)
        plan = [self.threshold, self.model_digest, self.max_pixels, self.imaging]
        return digest16(json.dumps([plan, own]).encode()).hex()

    def notes(self, names: Collection[str]) -> list[str]:
        """Return sentences about labels that only the file has, and that only the vocabulary `names` has.

        Raises UsageError where they have no label in common.
        """
        known = {label.name for label in self.labels}
        if not known.intersection(names):
            raise UsageError(
                f"{self.path} has thresholds for other labels: {shortened(sorted(known))}",
                f"{_ANEW} {self.path}.",
            )
        gone, new = sorted(known.difference(names)), [name for name in names if name not in known]
        notes = []
        if gone:
            notes.append(f"{self.path}: thresholds of labels that are gone: {len(gone):,} ({shortened(gone)})")
        if new:
            common = f"they are on the common threshold {self.threshold:g}"
            notes.append(f"labels that are new since {self.path}: {len(new):,} ({shortened(new)}); {common}")
        return notes

    def check(self, plan: Plan, questions: Mapping[str, str]) -> None:
        """Raise UsageError where the file was made for another model, other pixels or other questions.

        `questions` are those of the plan, as `question_digests` returns them.
        """
        if self.model_digest != plan.model_digest.hex():
            raise self._other_plan(f"the model {self.model}, and this table is of {plan.model}", plan.model)
        if (self.max_pixels, self.imaging) != (plan.max_pixels, plan.imaging):
            pixels = f"images of up to {self.max_pixels:,} pixels, and this table has up to {plan.max_pixels:,}"
            raise self._other_plan(pixels, "")
        other = [label.name for label in self.labels if questions.get(label.name, label.question) != label.question]
        if other:
            what = f"{len(other):,} labels that were asked about in other words ({shortened(other)})"
            raise self._other_plan(what, "")

    def _other_plan(self, what: str, model: str) -> UsageError:
        same_name = " of the same name, with other files or settings" if model == self.model else ""
        return UsageError(f"{self.path} was calibrated for {what}{same_name}", f"{_ANEW} {self.path}.")


def question_digests(plan: Plan, said: Mapping[str, str]) -> dict[str, str]:
    """Return a hash of what is asked about each label: prompt, name, and what its card says (`card_digests`)."""
    templates = {name: json.dumps(asdict(plan.templates[name])) for name in ("verify", "verify_card")}
    return {
        name: digest16(json.dumps([templates["verify_card" if name in said else "verify"], name, card]).encode()).hex()
        for name in plan.vocabulary.names
        for card in [said.get(name, "")]
    }


def card_digests(cards: Mapping[str, Card]) -> dict[str, str]:
    """Return a hash of what each card says; a card without a description says nothing and has none."""
    return {
        name: digest16(json.dumps([card.description, card.similar]).encode()).hex()
        for name, card in sorted(cards.items())
        if card.description
    }


def table_questions(table: Table) -> tuple[Plan, dict[str, str]]:
    """Return a label table's plan and the hashes of its questions.

    Raises TableError for a candidate table, whose candidates have no probabilities to be decided by, and for a table of
    an older release, which does not say what its cards said.
    """
    plan = table.info.plan
    if table.info.stage != "labels":
        raise TableError(
            f"{table.path} is a candidate table: it has no probabilities to set thresholds for",
            "Run `tagllm disambiguate` on it first.",
        )
    if "label_cards" not in plan and plan.get("cards") != "none":
        raise TableError(
            f"{table.path} does not say what its concept cards said: an older tagllm wrote it",
            "Run the command that made it once more; nothing is asked again.",
        )
    made = Plan.from_json(plan)
    return made, question_digests(made, plan.get("label_cards", {}))


def thresholds_for(table: Table, path: Path, common: float | None = None) -> tuple[Thresholds, list[str]]:
    """Return the thresholds of a file for a label table, and notes about labels that one of them lacks.

    Raises UsageError where the file was made for another plan.
    """
    file = load_thresholds(path)
    plan, questions = table_questions(table)
    file.check(plan, questions)
    return file.limits(common=common), file.notes(table.info.vocabulary.names)


def load_thresholds(path: Path) -> ThresholdFile:
    """Return a file of thresholds. Raises UsageError where it cannot be read or is none."""
    try:
        content = read_yaml(path)
    except VocabularyError as error:
        raise UsageError(error.message, error.hint) from error
    version = content.get("version") if isinstance(content, dict) else None
    if isinstance(version, str) and version.isdigit() and int(version) > VERSION:
        raise UsageError(f"{path} has version {version}; this tagllm reads up to {VERSION}", "Upgrade tagllm.")
    found, problems = validated(_FileModel, content)
    if found is None:
        raise UsageError(f"{path}: {in_one_line(problems)}", "`tagllm calibrate` writes files of thresholds.")
    labels = tuple(LabelThreshold(**each.model_dump()) for each in found.labels)
    return ThresholdFile(
        path,
        *(found.metric, found.threshold, found.model.name, found.model.digest, found.max_pixels, found.imaging),
        labels,
        found.measured,
    )


def decided_by(
    path: Path | None, common: float | None = None, min_mass: float = 0.5
) -> tuple[Thresholds, ThresholdFile | None]:
    """Return the thresholds of a file, if one is named; `common` comes before the file's common one."""
    if path is None:
        return Thresholds(0.5 if common is None else common, min_mass), None
    file = load_thresholds(path)
    return file.limits(min_mass, common), file


def check_thresholds_path(path: Path) -> None:
    """Raise UsageError where thresholds cannot be written: another file, such as the truth, is never replaced."""
    check_writable_path(path)
    check_replaceable(path, _is_ours)


def _is_ours(path: Path) -> bool:
    """Tell whether a file begins with the keys of this one, perhaps under comments."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return len(set(_KEYS.findall(file.read(2000)))) == 3


def write_thresholds(file: ThresholdFile) -> None:
    """Write a file of thresholds to its path, in place of older thresholds."""
    content = {
        "version": VERSION,
        "metric": file.metric,
        "threshold": file.threshold,
        "model": {"name": file.model, "digest": file.model_digest},
        "max_pixels": file.max_pixels,
        "imaging": file.imaging,
        "measured": dict(file.measured),
        "labels": [_without_defaults(asdict(label)) for label in file.labels],
    }
    with replacing(file.path, is_ours=_is_ours) as new:
        new.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=1000), encoding="utf-8")


def _without_defaults(label: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in label.items() if value is not None and value != ""}


_Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
_Count = Annotated[int, Field(ge=0)]
_Text = Annotated[str, Field(min_length=1)]


class _LabelModel(UserModel):
    name: _Text
    id: _Count
    question: _Text
    threshold: _Share | None = None
    low: _Share | None = None
    high: _Share | None = None
    positives: _Count = 0
    judged: _Count = 0
    why: str = ""


class _Model(UserModel):
    name: _Text
    digest: _Text


class _FileModel(UserModel):
    version: Literal["1"]
    metric: _Text
    threshold: _Share
    model: _Model
    max_pixels: _Count
    imaging: _Count
    measured: dict[str, Any] = Field(default_factory=dict)
    labels: Annotated[tuple[_LabelModel, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _each_label_once(self) -> _FileModel:
        counts = Counter(label.name for label in self.labels)
        if twice := [name for name, count in counts.items() if count > 1]:
            raise ValueError(f"`labels` has two entries for {twice[0]!r}")
        return self
