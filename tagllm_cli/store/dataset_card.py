"""Dataset card of a table or an export: Markdown with the YAML front matter that the Hugging Face Hub reads.

A card says what was labeled, with which model, prompts and concept cards, how much of it there is, how good it is where
that was measured, and what is known to be weak. It names no path of this machine. Format of the front matter:
https://huggingface.co/docs/hub/datasets-cards

Its last line is a hash of the rest. A card that was edited no longer fits its hash: like any file without such a line
it belongs to somebody, and `put_card` leaves it alone.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tagllm_cli.store.atomic import replacing
from tagllm_cli.store.table import TableInfo
from tagllm_cli.text import one_line, shortened
from tagllm_cli.vocabulary.model import Label

_MARK = re.compile(rb"<!-- tagllm card ([0-9a-f]{32}) -->\s*\Z")
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#~&])")
_MOST_LABELS = 200
_LONGEST = 2000
_SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"),
          (10**8, "10M<n<100M"), (10**9, "100M<n<1B"), (10**10, "1B<n<10B"), (10**11, "10B<n<100B"),
          (10**12, "100B<n<1T"))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Quality:
    """What was measured, on how many `images` of which `truth`.

    `figures` are (name, value, interval or "", meaning) as text, `weak` sentences about labels.
    """

    truth: str
    images: int
    figures: Sequence[tuple[str, str, str, str]]
    weak: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What a card says beside its table's own metadata.

    Args:
        images: how many examples there are.
        labels: how often each label was given, by name; labels that never occur may be missing.
        unknown: labels that are undecided.
        human: labels that a person decided.
        left_out: images without labels by reason, such as `failed`.
        exported: names of the labels that were exported; (): all of the vocabulary.
        threshold: of an export that took labels by score.
        data_files: pattern of the files that `datasets` loads, relative to the card, by split; {}: none.
        quality: None where nothing was measured.
    """

    images: int
    labels: Mapping[str, int]
    unknown: int = 0
    human: int = 0
    left_out: Mapping[str, int] = field(default_factory=dict)
    exported: Sequence[str] = ()
    threshold: float | None = None
    data_files: Mapping[str, str] = field(default_factory=dict)
    quality: Quality | None = None


def size_category(examples: int) -> str:
    """Return the Hub's name of a number of examples.

    >>> size_category(999), size_category(1000), size_category(10**12)
    ('n<1K', '1K<n<10K', 'n>1T')
    """
    return next((name for limit, name in _SIZES if examples < limit), "n>1T")


def card_text(info: TableInfo, facts: CardFacts, version: str) -> str:
    """Return the card; `version` is that of tagllm."""
    front = yaml.safe_dump(_front_matter(info, facts), sort_keys=False, allow_unicode=True, width=10_000)
    parts = [
        f"---\n{front}---",
        f"# {_plain(info.vocabulary.name)}: images with labels",
        *_sections(info, facts, version),
    ]
    text = "\n\n".join(parts) + "\n\n"
    return f"{text}<!-- tagllm card {_digest(text.encode())} -->\n"


def put_card(path: Path, text: str) -> bool:
    """Write a card unless there is a file that somebody else wrote or edited; tell whether it was written."""
    if path.exists() and not is_untouched(path):
        return False
    with replacing(path) as new:
        new.write_text(text, encoding="utf-8")
    return True


def is_untouched(path: Path) -> bool:
    """Tell whether a file is a card as `card_text` made it; so is an empty file."""
    if not path.is_file():
        return False
    content = path.read_bytes()
    mark = _MARK.search(content)
    return not content.strip() or (mark is not None and _digest(content[: mark.start()]) == mark[1].decode())


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _front_matter(info: TableInfo, facts: CardFacts) -> dict[str, Any]:
    files = {
        "config_name": "default",
        "data_files": [{"split": split, "path": path} for split, path in facts.data_files.items()],
    }
    return {
        "pretty_name": f"{info.vocabulary.name}, labeled by tagllm",
        "task_categories": ["image-classification"],
        "task_ids": ["multi-label-image-classification"],
        "annotations_creators": ["machine-generated"],
        "size_categories": [size_category(facts.images)],
        "tags": ["multi-label", "tagllm"],
        **({"configs": [files]} if facts.data_files else {}),
    }


def _sections(info: TableInfo, facts: CardFacts, version: str) -> Iterator[str]:
    yield _what(info, facts, version)
    yield "\n".join(["## Quality", "", *_quality(facts.quality)])
    yield "\n".join(["## Known weaknesses", "", *(f"- {each}" for each in _weaknesses(info, facts))])
    yield "\n".join(["## Labels", "", *_labels(info, facts)])
    yield "\n".join(["## How they were made", "", *_method(info, facts)])


def _what(info: TableInfo, facts: CardFacts, version: str) -> str:
    total = sum(facts.labels.values())
    what = "candidates" if info.stage == "candidates" else "labels"
    return (
        f"{facts.images:,} images with {total:,} {what} of {len(_exported(info, facts)):,} "
        f"({total / max(1, facts.images):.2f} per image), given by the model {_model(info)} with tagllm {version}. "
        "A label that is not listed for an image was judged absent by the model, or was not proposed."
    )


def _quality(quality: Quality | None) -> Iterator[str]:
    if quality is None:
        yield "It was not measured: no human labels were given to compare with."
        return
    yield f"Measured on {quality.images:,} images with human labels ({_plain(quality.truth)})."
    yield ""
    with_intervals = any(interval for _, _, interval, _ in quality.figures)
    yield f"| figure | value |{' 95% interval |' * with_intervals} meaning |"
    yield f"| --- | --- |{' --- |' * with_intervals} --- |"
    for name, value, interval, meaning in quality.figures:
        yield f"| {name} | {value} |{f' {interval} |' * with_intervals} {meaning} |"


def _weaknesses(info: TableInfo, facts: CardFacts) -> Iterator[str]:
    if facts.human:
        yield f"The labels are a model's, except {facts.human:,} that a person decided."
    else:
        yield "The labels are a model's: no person decided any of them."
    yield "The model sees a scaled-down image and may miss what is small, rare or partly hidden."
    if facts.left_out:
        reasons = ", ".join(f"{count:,} {_plain(why)}" for why, count in facts.left_out.items())
        yield f"Images without labels, which is not the same as having none: {reasons}."
    if facts.unknown:
        yield f"{facts.unknown:,} labels are undecided: neither present nor absent."
    if never := [_plain(label.name) for label in _exported(info, facts) if not facts.labels.get(label.name)]:
        yield f"Labels that were never given: {shortened(never, 12)}."
    yield from () if facts.quality is None else map(_plain, facts.quality.weak)


def _labels(info: TableInfo, facts: CardFacts) -> Iterator[str]:
    yield "| label | images | what it means here |"
    yield "| --- | --- | --- |"
    labels = _exported(info, facts)
    for label in labels[:_MOST_LABELS]:
        apart = f" Not to be taken for: {', '.join(map(_plain, label.similar))}." if label.similar else ""
        meaning = f"{_plain(label.description)}.{apart}" if label.description else apart.strip()
        yield f"| {_plain(label.name)} | {facts.labels.get(label.name, 0):,} | {meaning} |"
    if more := len(labels[_MOST_LABELS:]):
        yield f"\n{more:,} more labels are not listed here."


def _exported(info: TableInfo, facts: CardFacts) -> Sequence[Label]:
    wanted = frozenset(facts.exported or info.vocabulary.names)
    return [label for label in info.vocabulary.labels if label.name in wanted]


def _method(info: TableInfo, facts: CardFacts) -> Iterator[str]:
    plan = info.plan
    yield f"- Model: {_model(info)}, images of up to {plan.get('max_pixels', 0):,} pixels, greedy decoding."
    yield f"- Stage: {info.stage}; strategy of the candidates: {_plain(plan.get('strategy', 'groups'))}."
    names = {
        "threshold": "threshold of yes",
        "min_mass": "least mass on yes and no",
        "min_votes": "least votes of arms",
    }
    given = [f"{what} {plan[key]:g}" for key, what in names.items() if isinstance(plan.get(key), int | float)]
    if facts.threshold is not None:
        given.append(f"labels by score above {facts.threshold:g}")
    if given:
        yield f"- Decided by: {', '.join(given)}."
    yield f"- Concept cards: {_plain(str(plan.get('cards', 'none')).rpartition('/')[2])}."
    for name, each in sorted(plan.get("templates", {}).items()):
        text = f"{each.get('system', '')}\n\n[image]\n\n{each.get('text', '')}"
        fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
        yield f"\nPrompt {_plain(name)}:\n\n{fence}text\n{text.strip()}\n{fence}"


def _model(info: TableInfo) -> str:
    name = str(info.plan.get("model", "unknown"))
    return _plain(name.rpartition("/")[2] if name.startswith(("/", ".")) else name)


def _plain(text: object) -> str:
    """Return a text in one line that is no markup to a reader of Markdown.

    >>> print(_plain("a|b <i>"))
    a\\|b \\<i\\>
    """
    return _SPECIAL.sub(r"\\\1", one_line(text, _LONGEST))
