"""The reader against answers as models of six families write them, and against what must not change a reading."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tagllm_cli.labeling.answers.parse_list import Lexicon, Parsed, parse_names
from tagllm_cli.vocabulary.model import Label, Vocabulary

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Answer:
    """One answer of the corpus; `labels` are the right ones, none where it is not `readable`."""

    id: str
    written: str
    style: str
    form: str
    vocabulary: str
    text: str
    labels: list[str]
    readable: bool


CORPUS = [Answer(**json.loads(line)) for line in (HERE / "corpus.jsonl").read_text("utf-8").splitlines()]


@cache
def lexicons() -> Mapping[str, Lexicon]:
    def label(entry: Any) -> Label:
        return Label(entry) if isinstance(entry, str) else Label(entry["name"], synonyms=tuple(entry["synonyms"]))

    content = json.loads((HERE / "vocabularies.json").read_text("utf-8"))
    return {name: Lexicon(Vocabulary(name, tuple(map(label, entries)))) for name, entries in content.items()}


def read(answer: Answer) -> Parsed:
    return parse_names(answer.text, lexicons()[answer.vocabulary])


def animals(text: str) -> Parsed:
    return parse_names(text, lexicons()["animals"])


def test_the_corpus_has_both_halves_and_every_style() -> None:
    assert len({answer.id for answer in CORPUS}) == len(CORPUS) >= 340
    for written in ("before", "after"):
        half = [answer for answer in CORPUS if answer.written == written]
        assert len(half) >= 170
        assert {answer.style for answer in half} == {"qwen", "internvl", "llava", "gemma", "llama", "gpt"}
        assert not all(answer.readable for answer in half)


@pytest.mark.parametrize("written", ["before", "after"])
def test_the_usual_answers_are_read(written: str) -> None:
    """Precision over all found labels, recall and exact share over the readable answers."""
    half = [answer for answer in CORPUS if answer.written == written]
    right = wrong = missed = exact = 0
    for answer in half:
        found, wanted = set(read(answer).labels), set(answer.labels)
        right, wrong = right + len(found & wanted), wrong + len(found - wanted)
        missed += len(wanted - found)
        exact += answer.readable and read(answer).readable and found == wanted
    assert right / (right + wrong) >= 0.99
    assert right / (right + missed) >= 0.97
    assert exact / sum(answer.readable for answer in half) >= 0.95


@pytest.mark.parametrize("answer", [answer for answer in CORPUS if not answer.readable], ids=lambda answer: answer.id)
def test_what_cannot_be_read_with_confidence_is_known_as_such(answer: Answer) -> None:
    assert (read(answer).readable, read(answer).labels) == (False, ())


LISTS = [["cat"], ["cat", "dog"], ["dog", "horse", "zebra"], ["cat", "dog", "bird", "giraffe"]]


@pytest.mark.parametrize("names", LISTS)
@pytest.mark.parametrize(
    "greeting",
    [
        "Sure! ",
        "Sure, here you go: ",
        "Okay, ",
        "Certainly! Here is the list:\n",
        "Answer: ",
        "Of course.\n\n",
        "**Answer:** ",
    ],
)
def test_a_greeting_before_a_list_changes_nothing(names: list[str], greeting: str) -> None:
    assert animals(greeting + ", ".join(names)) == Parsed(tuple(names))


@pytest.mark.parametrize("names", LISTS)
@pytest.mark.parametrize(
    "ending",
    [
        ".",
        "\n\nLet me know if you need anything else!",
        "\n\nI hope this helps.",
        "\nNo other animals are visible.",
        " are visible.",
    ],
)
def test_an_ending_after_a_list_changes_nothing(names: list[str], ending: str) -> None:
    assert animals(", ".join(names) + ending) == Parsed(tuple(names))


DRESSES: Mapping[str, Callable[[Sequence[str]], str]] = {
    "upper case": lambda names: ", ".join(names).upper(),
    "title case": lambda names: ", ".join(names).title(),
    "plurals": lambda names: ", ".join(f"{name}s" for name in names),
    "articles": lambda names: ", ".join(f"a {name}" for name in names),
    "colors": lambda names: ", ".join(f"brown {name}" for name in names),
    "bold": lambda names: ", ".join(f"**{name}**" for name in names),
    "code": lambda names: ", ".join(f"`{name}`" for name in names),
    "quotes": lambda names: ", ".join(f'"{name}"' for name in names),
    "curly quotes": lambda names: ", ".join(f"\u201c{name}\u201d" for name in names),
    "apostrophes": lambda names: ", ".join(f"\u2018{name}\u2019" for name in names),
    "bullets": lambda names: "\n".join(f"- {name}" for name in names),
    "bold bullets": lambda names: "\n".join(f"*   **{name}**" for name in names),
    "dots": lambda names: "\n".join(f"\u2022 {name}" for name in names),
    "numbers": lambda names: "\n".join(f"{number}. {name}" for number, name in enumerate(names, 1)),
    "numbers in a line": lambda names: " ".join(f"{number}) {name}" for number, name in enumerate(names, 1)),
    "check boxes": lambda names: "\n".join(f"- [x] {name}" for name in names),
    "notes": lambda names: "\n".join(f"- **{name}**: in the middle" for name in names),
    "places": lambda names: ", ".join(f"{name} (left)" for name in names),
    "verdicts": lambda names: "\n".join(f"{name}: yes" for name in names),
    "counts": lambda names: ", ".join(f"{name} (2)" for name in names),
    "JSON list": lambda names: json.dumps(list(names)),
    "JSON object": lambda names: json.dumps({"labels": list(names)}),
    "JSON verdicts": lambda names: json.dumps(dict.fromkeys(names, True)),
    "JSON boxes": lambda names: json.dumps([{"bbox_2d": [1, 2, 3, 4], "label": name} for name in names]),
    "fence": lambda names: f"```json\n{json.dumps(list(names))}\n```",
    "table": lambda names: "\n".join(["| Category | Visible |", "|---|---|", *(f"| {name} | yes |" for name in names)]),
    "thought": lambda names: f"<think>No elephant, perhaps a cow.</think>\n\n{', '.join(names)}",
}


@pytest.mark.parametrize("names", LISTS)
@pytest.mark.parametrize("dress", DRESSES.values(), ids=DRESSES)
def test_how_a_list_is_written_changes_nothing(names: list[str], dress: Callable[[Sequence[str]], str]) -> None:
    if dress(names) != "SHEEPS":
        assert animals(dress(names)) == Parsed(tuple(names))


@pytest.mark.parametrize(
    "pattern",
    [
        "no {}",
        "0 {}s",
        "{} (0)",
        "{}: 0",
        "{}: no",
        "{}: not visible",
        "{}: false",
        "{} - absent",
        "{} \u274c",
        "- [ ] {}",
        "\u2610 {}",
        "not a {}",
        "no {}s",
        "There is no {}.",
        "There isn't a {}.",
        "There isn\u2019t any {}.",
        "I don\u2019t see a {}.",
        "I can\u2019t see any {}s.",
        "The {} is not visible.",
        "A {} isn\u2019t visible in the image.",
        "The image does not show a {}.",
        "The image shows a field without a {}.",
        "Not visible: {}",
        "Absent: {}",
        '{{"{}": false}}',
        '{{"{}": 0}}',
        '{{"{}": "no"}}',
        '[{{"label": "{}", "present": false}}]',
        '{{"visible": [], "not_visible": ["{}"]}}',
        "| Category | Visible |\n|---|---|\n| {} | No |",
    ],
)
@pytest.mark.parametrize("name", ["cat", "bird", "elephant"])
@pytest.mark.parametrize("before", ["", "dog\n", "- dog\n", "Sure!\n"])
def test_a_negated_or_zero_counted_name_is_never_found(pattern: str, name: str, before: str) -> None:
    parsed = animals(before + pattern.format(name))
    assert name not in parsed.labels
    if not before:
        assert parsed.readable
