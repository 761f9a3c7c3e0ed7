"""What an annotation says about one image, and the annotations of a file put together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from tagllm_cli.evaluation.human_labels.base import NO, UNKNOWN, YES, CheckedImage, HumanLabels, Statement

# What is written into a tool's own tags or attributes to decide about a label.
DECISIONS = (YES, NO, UNKNOWN)


@dataclass(slots=True)
class Annotation:
    """What one person says about one image; `said` and `kept` are pairs of label and decision.

    `kept` is what a program proposed and the person left (see `HumanLabels.kept`). An image with `is_checked` off was
    not gone through, only some of its labels were decided.
    """

    image: str
    who: str = ""
    when: int | None = None
    fingerprint: str = ""
    said: list[tuple[str, str]] = field(default_factory=list)
    kept: list[tuple[str, str]] = field(default_factory=list)
    is_checked: bool = True

    def statements(self, pairs: Iterable[tuple[str, str]]) -> Iterator[Statement]:
        """Yield pairs of label and decision as statements of this person about this image, each once."""
        for label, decision in dict.fromkeys(pairs):
            yield Statement(self.image, label, decision, self.who, self.when, self.fingerprint)


def gathered(
    annotations: Sequence[Annotation],
    form: str,
    *,
    names: tuple[str, ...] | None = None,
    notes: Iterable[str] = (),
    warnings: Iterable[str] = (),
) -> HumanLabels:
    """Return the human labels of a file. Of what one known person says of an image twice, the later one counts.

    What is said about a label counts, whatever was kept of it.
    """
    counted, replaced = _latest(annotations)
    seen = [each for each in counted if each.is_checked]
    checked = {(each.image, each.who): CheckedImage(each.image, each.who, each.when, each.fingerprint) for each in seen}
    notes = [*notes]
    if replaced:
        notes.append(f"annotations that the same person replaced by a later one of the same image: {replaced:,}")
    return HumanLabels(
        [each for one in counted for each in one.statements(one.said)],
        list(checked.values()),
        form,
        [each for one in counted for each in one.statements(_not_said(one))],
        names,
        notes=tuple(notes),
        warnings=tuple(warnings),
    )


def _not_said(annotation: Annotation) -> Iterator[tuple[str, str]]:
    said = {label for label, _ in annotation.said}
    return ((label, decision) for label, decision in annotation.kept if label not in said)


def _latest(annotations: Sequence[Annotation]) -> tuple[list[Annotation], int]:
    """Return the annotations without those that are older than another of the same image and person."""
    latest: dict[tuple[str, str], int] = {}
    for each in annotations:
        if each.who and each.when is not None:
            key = (each.image, each.who)
            latest[key] = max(each.when, latest.get(key, each.when))
    counted = [
        each for each in annotations if each.when is None or each.when == latest.get((each.image, each.who), each.when)
    ]
    return counted, len(annotations) - len(counted)


def count(number: int, what: str) -> list[str]:
    """Return a note on so many of something, none where there are none."""
    return [f"{what}: {number:,}"] if number else []
