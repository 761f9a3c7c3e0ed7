"""Suggestions from tables: counts against a plain computation, pairs, collisions, several tables, memory."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from tagllm_cli.errors import UsageError
from tagllm_cli.evaluation.suggest import count, text
from tagllm_cli.evaluation.suggest.count import Texts, count_images, count_texts
from tagllm_cli.evaluation.suggest.labels import MIN_IMAGES, collisions
from tagllm_cli.evaluation.suggest.names import read_name
from tagllm_cli.evaluation.suggest.suggest import SuggestOptions, suggest
from tagllm_cli.records import Decision, LabelEntry, Row, SourceInfo, Status
from tagllm_cli.store.table import TableInfo, open_table, write_table
from tagllm_cli.vocabulary.model import Label, Vocabulary

LABELS = (Label("cup", "kitchen"), Label("fork", "kitchen"), Label("sofa", "furniture"), Label("keyboard"))
Said = tuple[Sequence[str], Sequence[str]]  # labels and other texts of an image


def table(path: Path, said: Sequence[Said], labels: Sequence[Label] = LABELS, first: int = 0) -> Path:
    """Write a candidate table with an image for each entry of `said`."""
    rows = [
        Row(f"{n}.jpg", f"{n}.jpg", b"", 8, 8, Status.OK, None, tuple(map(LabelEntry, names)), tuple(texts))
        for n, (names, texts) in enumerate(said, first)
    ]
    failed = Row("failed.jpg", "failed.jpg", b"", 0, 0, Status.FAILED, "bad", None)
    write_table(
        path, TableInfo("candidates", SourceInfo("folder", "x"), Vocabulary("tiny", tuple(labels))), [*rows, failed]
    )
    return path


def test_names_synonyms_and_what_is_left_out(tmp_path: Path) -> None:
    said: list[Said] = [
        (["cup"], ["lamps", "a lamp", "coffee cup", "none"]),
        (["cup"], ["Lamp", "keybord", "red cup", "There is a lamp here"]),
        (["fork"], ["lamp", "coffee cups", "keybord", "teapot"]),
    ]
    found = suggest([table(tmp_path / "a.parquet", said)], SuggestOptions(min_images=2))
    assert found.images == 3
    assert [(each.name, each.images, each.broader, each.parent) for each in found.labels] == [
        ("lamp", 3, "", ""),  # twice in the first image, which counts once
        ("coffee cup", 2, "cup", "kitchen"),
    ]
    assert [(each.name, each.same_as, each.images) for each in found.synonyms] == [("keybord", "keyboard", 2)]
    assert found.labels[0].examples == ("0.jpg", "1.jpg", "2.jpg")
    assert (found.junk, found.described, found.rare, found.more) == ({"nothing": 1, "sentence": 1}, 1, 1, 0)
    assert found.never == ["sofa", "keyboard"]
    fewer = suggest([tmp_path / "a.parquet"], SuggestOptions(min_images=2, limit=1))
    assert ([each.name for each in fewer.labels], fewer.more) == (["lamp"], 1)


def test_an_image_in_two_tables_counts_once(tmp_path: Path) -> None:
    one = table(tmp_path / "a.parquet", [([], ["lamp"]), ([], ["lamps"]), ([], ["sink"])])
    two = table(tmp_path / "b.parquet", [(["sofa"], ["lamp"]), ([], []), ([], ["lamp"]), ([], ["lamp"])])
    found = suggest([one, two], SuggestOptions(min_images=1))
    assert {each.name: each.images for each in found.labels} == {"lamp": 4, "sink": 1}
    assert found.images == 4
    assert found.never == ["cup", "fork", "keyboard"]
    assert found.notes == [f"pairs of labels are counted in {one}"]


def test_tables_of_two_vocabularies_are_refused(tmp_path: Path) -> None:
    one, two = table(tmp_path / "a.parquet", []), table(tmp_path / "b.parquet", [], LABELS[1:])
    with pytest.raises(UsageError, match="have different labels"):
        suggest([one, two])


def test_a_table_whose_answers_keep_to_the_vocabulary_says_how_to_ask(tmp_path: Path) -> None:
    found = suggest([table(tmp_path / "a.parquet", [(["cup"], [])])])
    assert "--strategy open" in found.notes[0]
    assert text.lines(found, None)[0].startswith("tiny, from 1 images: 0 names to add")


WORDS = ["lamp", "Lamps", "a lamp", "red lamp", "sink", "tap", "taps", "none", "12"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.sampled_from(WORDS), unique=True), max_size=12), st.integers(1, 3))
def test_counts_are_those_of_a_plain_computation(
    tmp_path_factory: pytest.TempPathFactory, said: list[list[str]], parts: int
) -> None:
    folder = tmp_path_factory.mktemp("texts")
    groups = {"lamp": "lamp", "lamps": "lamp", "red lamp": "lamp", "sink": "sink", "tap": "tap", "taps": "tap"}
    expected: Counter[str] = Counter()
    for texts in said:
        expected.update({groups[read_name(each).name] for each in texts if read_name(each).name})
    written = [table(folder / f"{n}.parquet", [([], texts) for texts in said]) for n in range(parts)]
    opened = [open_table(path) for path in written]
    numbers = {"lamp": 0, "sink": 1, "tap": 2}
    found = count_images(opened, {form: numbers[name] for form, name in groups.items()}, 3)
    assert {name: found[number].images for name, number in numbers.items()} == {
        name: expected[name] for name in numbers
    }
    assert count_texts(opened).answered == [len(said)] * parts


def test_beyond_so_many_different_texts_the_rarest_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(count, "MOST_TEXTS", 10)
    texts = Texts()
    for number in range(30):
        texts.add("lamp", 5)
        texts.add(f"thing{number} x", 1)
    assert texts.names["lamp"] == 150
    assert len(texts.names) <= 10
    assert texts.forgotten


def many(*parts: tuple[int, Sequence[str]]) -> list[Said]:
    return [(names, []) for times, names in parts for _ in range(times)]


def test_labels_that_come_together(tmp_path: Path) -> None:
    said = many((60, ["cup", "fork"]), (1, ["cup"]), (40, ["sofa"]), (1, ["sofa", "keyboard"]), (200, []))
    (found,) = suggest([table(tmp_path / "a.parquet", said)]).implied
    assert (found.label, found.implied, found.both_ways, found.images) == ("fork", "cup", True, 60)
    interval = binomtest(60, 60).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.lift == pytest.approx(1 / (61 / 302))


def test_one_direction_few_images_and_labels_of_most_images(tmp_path: Path) -> None:
    said = many((50, ["cup", "fork"]), (70, ["cup"]), (MIN_IMAGES - 1, ["sofa", "keyboard"]), (100, []))
    (found,) = suggest([table(tmp_path / "a.parquet", said)]).implied
    assert (found.label, found.implied, found.both_ways) == ("fork", "cup", False)
    nearly_all = many((95, ["cup", "fork"]), (300, ["cup"]), (5, []))
    assert suggest([table(tmp_path / "b.parquet", nearly_all)]).implied == []
    parents = (Label("cup", "fork"), *LABELS[1:])
    (found,) = suggest(
        [table(tmp_path / "c.parquet", many((50, ["cup", "fork"]), (50, ["fork"]), (99, [])), parents)]
    ).implied
    assert found.is_parent
    assert math.isclose(found.share, 1)


def test_names_that_collide() -> None:
    labels = (Label("glass"), Label("glasses"), Label("sofa", synonyms=("couch",)), Label("couch"), Label("Sofa "))
    told = "\n".join(collisions(Vocabulary("v", labels)))
    assert "'glass' of 'glass' and 'glasses' of 'glasses' are one word in the singular and the plural" in told
    assert "synonym 'couch' of 'sofa' also belongs to 'couch'" in told
    assert "'Sofa ' differs from 'sofa' only in case" in told
    assert collisions(Vocabulary("v", LABELS)) == []


def test_label_tables_count_their_yes(tmp_path: Path) -> None:
    rows = [
        Row(
            "a", "a", b"", 8, 8, Status.OK, None, (LabelEntry("cup", Decision.NO), LabelEntry("fork", Decision.YES)), ()
        )
    ]
    path = tmp_path / "l.parquet"
    write_table(path, TableInfo("labels", SourceInfo("folder", "x"), Vocabulary("tiny", LABELS)), rows)
    assert suggest([path]).never == ["cup", "sofa", "keyboard"]
