"""Which labels share an image: against dense arithmetic, over tables of several kinds and files of scenes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagllm_cli.errors import TableError, UsageError, VocabularyError
from tagllm_cli.labeling.groups import cooccurrence
from tagllm_cli.labeling.groups.cooccurrence import Scene, load_cooccurrence, load_scenes
from tagllm_cli.labeling.groups.partition import affinity_by_parent, cooccurring
from tagllm_cli.records import Decision, LabelEntry, Row, SourceInfo, Status
from tagllm_cli.store.table import TableInfo, write_table
from tagllm_cli.vocabulary.model import Label, Vocabulary

YES, NO, UNKNOWN = Decision.YES, Decision.NO, Decision.UNKNOWN


def vocabulary(*labels: str | Label) -> Vocabulary:
    return Vocabulary("mine", tuple(Label(label) if isinstance(label, str) else label for label in labels))


def row(number: int, *entries: LabelEntry, status: Status = Status.OK) -> Row:
    answered = status in (Status.OK, Status.PARTIAL)
    return Row(f"{number}.jpg", "", b"", 4, 4, status, None, entries if answered else None)


def yes(*names: str) -> list[LabelEntry]:
    return [LabelEntry(name, YES, 0.9, 1.0, 0.9) for name in names]


def write(path: Path, own: Vocabulary, rows: Sequence[Row], stage: str = "labels") -> Path:
    write_table(path, TableInfo(stage, SourceInfo("folder", "/images"), own), rows)
    return path


def scenes_at(path: Path, *scenes: Sequence[str]) -> Path:
    lines = [f"- {{name: scene {number}, labels: [{', '.join(labels)}]}}" for number, labels in enumerate(scenes)]
    path.write_text("\n".join(["scenes:", *lines]), encoding="utf-8")
    return path


def ochiai(held: np.ndarray) -> np.ndarray:
    """The affinity of images x labels, each label in at least one image."""
    counts = held.T.astype(float) @ held
    affinity = counts / np.sqrt(np.outer(np.diag(counts), np.diag(counts)))
    np.fill_diagonal(affinity, 1)
    return affinity


def test_a_table_that_lists_every_label_is_read_in_smaller_batches(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As the candidates of `--strategy binary` do: 10,000 labels of 16,384 rows would be gigabytes."""
    sizes: list[int] = []
    batches = pq.ParquetFile.iter_batches

    def watched(self: pq.ParquetFile, batch_size: int, **chosen: object) -> object:
        sizes.append(batch_size)
        return batches(self, batch_size, **chosen)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", watched)
    monkeypatch.setattr(cooccurrence, "ENTRIES_PER_BATCH", 30)
    many, few = (vocabulary(*(f"label {number}" for number in range(count))) for count in (10, 1))
    table = [
        row(image, *(LabelEntry(name, None if label == image % 10 else NO) for label, name in enumerate(many.names)))
        for image in range(20)
    ]
    path = write(tmp_path / "c.parquet", many, table, "candidates")
    found = load_cooccurrence(path, many)
    load_cooccurrence(write(tmp_path / "l.parquet", few, [row(0, *yes("label 0"))]), few)
    assert sizes == [3, 30]
    assert (found.affinity == np.eye(10)).all()
    assert found.about == "c.parquet, 20 images"


@pytest.mark.parametrize("batch", [1, 13, 16_384])
@pytest.mark.parametrize("stage", ["labels", "candidates"])
def test_counts_agree_with_dense_arithmetic(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stage: str, batch: int
) -> None:
    monkeypatch.setattr(cooccurrence, "ROWS_PER_BATCH", batch)
    random = np.random.default_rng(1)
    held = random.random((120, 9)) < random.random(9)
    own = vocabulary(*(f"label {number}" for number in range(9)))
    present, absent = (YES, [NO, UNKNOWN]) if stage == "labels" else (None, [UNKNOWN])

    def entry(image: int, label: int) -> LabelEntry:
        return LabelEntry(own.names[label], present if held[image, label] else absent[label % len(absent)], score=0.5)

    rows = [row(image, *(entry(image, label) for label in random.permutation(9))) for image in range(120)]
    rows[5:5] = [row(200, status=Status.FAILED), row(201, status=Status.PENDING), row(202)]
    found = load_cooccurrence(write(tmp_path / "t.parquet", own, rows, stage), own)
    np.testing.assert_allclose(found.affinity, ochiai(held), atol=1e-6)
    assert (found.affinity.dtype, found.notes) == (np.float32, ())
    assert found.about == f"t.parquet, {held.any(axis=1).sum()} images"  # those that show anything
    np.testing.assert_array_equal(found.affinity, found.affinity.T)


def test_a_partial_row_counts_with_what_it_says(tmp_path: Path) -> None:
    own = vocabulary("cat", "dog")
    rows = [row(1, *yes("cat", "dog"), status=Status.PARTIAL), row(2, *yes("cat"))]
    found = load_cooccurrence(write(tmp_path / "t.parquet", own, rows), own)
    assert found.affinity[0, 1] == pytest.approx(1 / np.sqrt(2))


SCENES = st.lists(st.lists(st.integers(0, 7), min_size=1, max_size=8), min_size=1, max_size=12)


@given(scenes=SCENES)
@settings(max_examples=60, deadline=None)
def test_scenes_count_like_images(tmp_path_factory: pytest.TempPathFactory, scenes: list[list[int]]) -> None:
    own = vocabulary(*(f"label {number}" for number in range(8)))
    held = np.zeros((len(scenes), 8), dtype=bool)
    for number, labels in enumerate(scenes):
        held[number, labels] = True  # a label that stands twice in a scene is in it once
    shown = held.any(axis=0)
    path = tmp_path_factory.mktemp("scenes") / "scenes.yaml"
    found = load_cooccurrence(scenes_at(path, *([own.names[label] for label in each] for each in scenes)), own)
    expected = np.eye(8)
    expected[np.ix_(shown, shown)] = ochiai(held[:, shown])
    np.testing.assert_allclose(found.affinity, expected, atol=1e-6)  # without parents: not related
    assert found.about == f"scenes.yaml, {len(scenes)} scenes"
    assert len(found.notes) == (not shown.all())


def test_a_table_over_another_vocabulary_lends_the_common_labels(tmp_path: Path) -> None:
    theirs = vocabulary("Sofa", "TV", "zebra", "lion", "tiger", "gnu", "elk", "emu")
    names = [("Sofa", "TV"), ("Sofa", "TV"), ("Sofa",), ("zebra", "lion")]
    path = write(tmp_path / "coco.parquet", theirs, [row(index, *yes(*each)) for index, each in enumerate(names)])
    found = load_cooccurrence(path, vocabulary("tv", "sofa", "boat"))
    assert found.affinity[0, 1] == pytest.approx(2 / np.sqrt(2 * 3))
    assert found.affinity[2].tolist() == [0, 0, 1]
    assert found.about == "coco.parquet, 3 images"
    assert found.notes == (
        "coco.parquet never shows boat: their parents say what they are related to",
        "mine lacks zebra, lion, tiger, gnu, elk and 1 more of coco.parquet: not used",
    )


def test_names_match_exactly_first_and_two_names_may_be_one_label(tmp_path: Path) -> None:
    path = scenes_at(tmp_path / "s.yml", ["TV", "Tv", "cup"], ["hot-dog", "cup"], ["Polish", "polish"])
    found = load_cooccurrence(path, vocabulary("tv", "hot dog", "cup", "polish", "Polish"))
    assert found.affinity[0, 2] == pytest.approx(1 / np.sqrt(2))  # in one scene, not in two
    assert found.affinity[1, 2] == pytest.approx(1 / np.sqrt(2))
    assert found.affinity[3, 4] == 1
    assert found.notes == ()
    alike = load_cooccurrence(scenes_at(tmp_path / "t.yml", ["POLISH", "cup"]), vocabulary("polish", "Polish", "cup"))
    assert alike.affinity[2].tolist() == [0, 0, 1]  # it could be either


def family(**parents: str | None) -> Vocabulary:
    return vocabulary(*(Label(name, parent) for name, parent in parents.items()))


def test_labels_never_shown_take_the_parents_on_the_scale_of_the_counts(tmp_path: Path) -> None:
    own = family(cat="pet", dog="pet", cow="farm", hen="farm", hamster="pet", tractor="farm", star=None)
    # cat and dog share 2 of 4 pictures, cow and hen none: within a category the counts are half and nothing.
    path = scenes_at(tmp_path / "s.yaml", ["cat", "dog"], ["cat", "dog"], *[[each] for each in ("cat", "dog") * 2],
                     ["cow"], ["hen"])  # fmt: skip
    found = load_cooccurrence(path, own).affinity
    parents = affinity_by_parent(own)
    assert found[0, 1] == pytest.approx(0.5)
    np.testing.assert_allclose(found[4], np.where(np.arange(7) == 4, 1, parents[4] * 0.25))
    np.testing.assert_allclose(found[5], np.where(np.arange(7) == 5, 1, parents[5] * 0.25))
    assert found[6].tolist() == [0, 0, 0, 0, 0, 0, 1]
    np.testing.assert_array_equal(found, found.T)


def test_without_a_common_parent_the_mean_of_the_counts_is_the_scale(tmp_path: Path) -> None:
    own = family(cat="pet", cow="farm", hamster="pet", hen="farm")
    found = load_cooccurrence(scenes_at(tmp_path / "s.yaml", ["cat", "cow"], ["cat"]), own).affinity
    assert found[2].tolist() == [found[0, 1], 0, 1, 0]
    alone = load_cooccurrence(scenes_at(tmp_path / "t.yaml", ["cat"]), own).affinity
    assert alone.tolist() == np.eye(4).tolist()  # one label has no scale to give


@given(
    parents=st.lists(st.sampled_from(["a", "b", "label 0", None]), min_size=2, max_size=12),
    scenes=SCENES,
)
@settings(max_examples=60, deadline=None)
def test_every_affinity_can_be_cut(
    tmp_path_factory: pytest.TempPathFactory, parents: list[str | None], scenes: list[list[int]]
) -> None:
    own = vocabulary(*(Label(f"label {number}", parent) for number, parent in enumerate(parents)))
    named = [[f"label {label}" for label in labels] for labels in [*scenes, [0]]]
    path = scenes_at(tmp_path_factory.mktemp("scenes") / "scenes.yaml", *named)
    affinity = load_cooccurrence(path, own).affinity
    assert affinity.min() >= 0
    assert affinity.max() == 1
    assert (np.diag(affinity) == 1).all()
    np.testing.assert_array_equal(affinity, affinity.T)
    groups = cooccurring(own.names, affinity, 3)
    assert sorted(name for group in groups for name in group) == sorted(own.names)


def test_grouping_finds_the_scenes_that_were_counted(tmp_path: Path) -> None:
    own = vocabulary(*(f"label {number}" for number in range(24)))
    random = np.random.default_rng(2)
    rows = []
    for image in range(400):
        scene = random.integers(6)
        held = [own.names[scene + 6 * each] for each in np.flatnonzero(random.random(4) < 0.7)]
        rows.append(row(image, *yes(*held, *random.choice(own.names, 1))))
    found = load_cooccurrence(write(tmp_path / "t.parquet", own, rows), own)
    groups = cooccurring(own.names, found.affinity, 4)
    assert sorted(map(sorted, groups)) == sorted(sorted(own.names[scene::6]) for scene in range(6))


@pytest.mark.parametrize("rows", [[], [row(1)], [row(1, *yes("zebra"))], [row(1, LabelEntry("cat", NO))]])
def test_a_table_that_shows_no_label_of_ours_is_refused(tmp_path: Path, rows: list[Row]) -> None:
    path = write(tmp_path / "t.parquet", vocabulary("cat", "zebra"), rows)
    with pytest.raises(UsageError, match=r"t\.parquet shows no label of mine"):
        load_cooccurrence(path, vocabulary("cat", "dog"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "s.yaml: it is not a mapping"),
        ("- kitchen", "s.yaml: it is not a mapping"),
        ("places: []", "`scenes` is missing; unknown key 'places' (known: vocabulary, author, scenes)"),
        ("scenes: kitchen", "`scenes` is not a list"),
        ("scenes: []", "shows no label of mine"),
        ("scenes: []\nscene: []", "unknown key 'scene' (did you mean 'scenes'?)"),
        ("scenes: [kitchen]", "entry 1 of `scenes`: it is not a mapping"),
        ("scenes: [{name: a, labels: [cat], parent: b}]", "('a'): unknown key 'parent' (known: name, labels)"),
        ("scenes: [{name: a, labels: [cat]}, {labels: [cat]}]", "entry 2 of `scenes`: `name` is missing"),
        ("scenes: [{name: ' ', labels: [cat]}]", "`name` is empty"),
        ("scenes: [{name: [a], labels: [cat]}]", "entry 1 of `scenes`: `name` is not text"),
        ("scenes: [{name: a}]", "entry 1 of `scenes` ('a'): `labels` is missing"),
        ("scenes: [{name: a, labels: []}]", "entry 1 of `scenes` ('a'): `labels` is an empty list"),
        ("scenes: [{name: a, labels: [{cat: 1}]}]", "('a'), entry 1 of `labels`: it is not text"),
        ("scenes: [{name: a, labels: cat}]", "entry 1 of `scenes` ('a'): `labels` is not a list"),
        ("scenes: [", "line"),
    ],
)
def test_a_wrong_file_of_scenes_is_one_clear_line(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        load_cooccurrence(path, vocabulary("cat"))
    assert message in caught.value.message
    assert "\n" not in caught.value.message + caught.value.hint
    assert caught.value.exit_code == 2


def test_files_that_are_not_there_or_something_else(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="there is no table"):
        load_cooccurrence(tmp_path / "none.parquet", vocabulary("cat"))
    with pytest.raises(VocabularyError, match="cannot be read"):
        load_cooccurrence(tmp_path / "none.yaml", vocabulary("cat"))
    (tmp_path / "notes.txt").write_text("cat, dog")
    with pytest.raises(TableError, match="not a Parquet file"):
        load_cooccurrence(tmp_path / "notes.txt", vocabulary("cat"))


def test_names_that_yaml_would_read_otherwise_are_names(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("scenes:\n- {name: 2024-01-01, labels: [no, 1, true]}\n")
    assert load_scenes(tmp_path / "s.yaml") == (Scene("2024-01-01", ("no", "1", "true")),)
