"""Dataset cards: the Hub's own reader takes them, names are no markup, and what somebody wrote is kept."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import DatasetCard

from tagllm_cli.records import SourceInfo
from tagllm_cli.store.dataset_card import CardFacts, Quality, card_text, is_untouched, put_card, size_category
from tagllm_cli.store.table import TableInfo
from tagllm_cli.vocabulary.model import Label, Vocabulary

HOSTILE = "a|b `c` <script>alert(1)</script>\n# [x](y)"
INFO = TableInfo(
    "labels",
    SourceInfo("folder", "/home/somebody/photos"),
    Vocabulary("pets", (Label("cat", description="it purrs", similar=("dog",)), Label("dog"), Label(HOSTILE))),
    {
        "model": "/home/somebody/models/qwen",
        "threshold": 0.5,
        "max_pixels": 1000,
        "cards": "/home/somebody/cards.yaml",
        "templates": {"verify": {"system": "You see ```an image```.", "text": "Is there {{ name }}?"}},
    },
)
FACTS = CardFacts(
    1200, {"cat": 700, HOSTILE: 3}, unknown=4, human=2, left_out={"failed": 5}, data_files={"train": "data/*.parquet"}
)


def text(**changes: object) -> str:
    return card_text(INFO, replace(FACTS, **changes), "1.2.3")  # type: ignore[arg-type]


def test_the_hub_reads_its_front_matter() -> None:
    found = DatasetCard(text()).data.to_dict()
    assert found["task_categories"] == ["image-classification"]
    assert found["size_categories"] == ["1K<n<10K"]
    assert found["configs"] == [
        {"config_name": "default", "data_files": [{"split": "train", "path": "data/*.parquet"}]}
    ]
    assert "configs" not in DatasetCard(text(data_files={})).data.to_dict()


@pytest.mark.parametrize(
    ("examples", "name"), [(0, "n<1K"), (10**6 - 1, "100K<n<1M"), (10**6, "1M<n<10M"), (10**13, "n>1T")]
)
def test_sizes_are_those_of_the_hub(examples: int, name: str) -> None:
    assert size_category(examples) == name


def test_it_says_what_was_labeled_with_what_and_what_is_weak() -> None:
    card = text()
    for said in (
        "1,200 images with 703 labels of 3",
        "the model qwen with tagllm 1.2.3",
        "except 2 that a person decided",
        "none: 5 failed.",
        "4 labels are undecided",
        "Labels that were never given: dog.",
        "It was not measured",
        "Concept cards: cards.yaml",
        "````text\nYou see ```an image```.",
        "| cat | 700 | it purrs. Not to be taken for: dog. |",
    ):
        assert said in card
    assert "/home/somebody" not in card


def test_measured_quality_has_its_intervals() -> None:
    quality = Quality("truth.csv", 500, [("OF1", "0.912", "0.9 to 0.92", "mean")], ["The weakest: a|b."])
    card = text(quality=quality)
    assert "| OF1 | 0.912 | 0.9 to 0.92 | mean |" in card
    assert "Measured on 500 images" in card
    assert r"- The weakest: a\|b." in card


def test_names_are_no_markup() -> None:
    card = text()
    rows = [line for line in card.splitlines() if "alert" in line and line.startswith("|")]
    assert rows == [r"| a\|b \`c\` \<script\>alert(1)\</script\> \# \[x\](y) | 3 |  |"]
    assert not re.search(r"(?<!\\)<script", card)


def test_only_what_tagllm_wrote_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    assert put_card(path, text())
    assert put_card(path, text(images=3))
    assert is_untouched(path)
    edited = path.read_text().replace("3 images", "3 lovely images")
    path.write_text(edited)
    assert not put_card(path, text())
    assert path.read_text() == edited
    path.write_text("# mine\n")
    assert not put_card(path, text())
    path.write_text("")
    assert put_card(path, text())
