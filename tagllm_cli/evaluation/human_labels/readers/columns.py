"""Names of the columns, or keys, of decisions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tagllm_cli.evaluation.truth.base import TruthFile
from tagllm_cli.evaluation.truth.columns import IMAGE_COLUMNS, squashed
from tagllm_cli.text import shortened

# Squashed names, by preference.
LABEL_NAMES = ("label", "labelname", "tag", "category", "categoryname", "class", "classname", "name")
DECISION_NAMES = ("decision", "answer", "verdict", "judgment", "judgement", "humandecision")
WHO_NAMES = ("who", "annotator", "user", "reviewer", "person", "author", "decidedby", "labeledby")
WHEN_NAMES = ("when", "decided", "decidedat", "time", "timestamp", "date", "updatedat", "updated")
FINGERPRINT_NAMES = ("fingerprint",)
_OF_MODELS = frozenset(["probability", "score", "mass", "source"])  # columns of an export of a table


@dataclass(frozen=True, slots=True)
class Columns:
    """The names of the columns that hold each part of a decision; None where there is none."""

    image: str
    label: str
    decision: str
    who: str | None
    when: str | None
    fingerprint: str | None


def columns_of(file: TruthFile, names: Sequence[str]) -> Columns | None:
    """Return which columns hold what, None where these are no decisions; what the user says counts first."""
    options = file.options
    image = options.image_column or _first(names, IMAGE_COLUMNS)
    label = options.label_column or _first(names, LABEL_NAMES)
    decision = _first(names, DECISION_NAMES)
    if image is None or label is None or decision is None:
        return None
    for option, name in (("--image-column", image), ("--label-column", label)):
        if name not in names:
            raise file.error(f"there is no column {name!r}", f"{option} names one of {shortened(names, 8)}.")
    others = [name for name in names if name not in (image, label, decision)]
    return Columns(
        image, label, decision, *(_first(others, known) for known in (WHO_NAMES, WHEN_NAMES, FINGERPRINT_NAMES))
    )


def warnings_of(names: Sequence[str]) -> list[str]:
    """Return a warning where the columns look like those of a table that was exported."""
    found = [name for name in names if squashed(name) in _OF_MODELS]
    if not found:
        return []
    shown = shortened(found)
    return [f"the columns {shown} are those of an exported table: --only-changes leaves out what only the model said"]


def _first(names: Sequence[str], known: Sequence[str]) -> str | None:
    by_form = {squashed(name): name for name in reversed(names)}
    return next((by_form[form] for form in known if form in by_form), None)
