"""What calibration keeps and reads: the card file, the record of answers, samples of pictures."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tagllm_cli.errors import TableError, UsageError, VocabularyError
from tagllm_cli.pipeline.concepts.cached_model import Respondent, UnansweredError, together
from tagllm_cli.pipeline.concepts.card_store import CardBook
from tagllm_cli.pipeline.concepts.settings import Model
from tagllm_cli.pipeline.concepts.validation_set import Confusion, Gallery, open_gallery
from tagllm_cli.records import Failure, Request, Response
from tagllm_cli.store.evidence import Evidence
from tagllm_cli.vocabulary.cards import Attempt, Wording, load_card_file
from tagllm_cli.vocabulary.load import load_vocabulary
from tagllm_cli.vocabulary.model import Label, Vocabulary
from tests.support.concept_workspace import ConceptWorkspace, labels_in
from tests.support.rule_engine import RuleEngine

# Names that YAML would take for something else, or for markup.
NAMES = ("no", "null", "1", "salt: pepper", "- cat", "# hash", "日本", "a 'b' \"c\"")
VOCABULARY = Vocabulary("odd", tuple(map(Label, NAMES)))
TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=40).map(str.strip)
PHRASE = TEXT.map(lambda text: " ".join(text.split()).rstrip(". ")).filter(bool)
PHRASES = st.lists(PHRASE, max_size=3).map(tuple)
WORDING = st.builds(Wording, PHRASE, st.sampled_from([(), ("null",), ("1", "日本")]), PHRASES, PHRASES, PHRASES)
ATTEMPT = st.builds(
    Attempt,
    st.integers(1, 9),
    st.sampled_from(["llm", "yes"]),
    WORDING,
    st.booleans(),
    PHRASE,
    st.just("2026-11-20"),
    PHRASE | st.just(""),
    st.sampled_from(["", "same"]),
    PHRASES,
)


def attempt(round_: int, description: str, kept: bool = True, author: str = "llm") -> Attempt:
    return Attempt(round_, author, Wording(description), kept, "because")


@pytest.fixture
def book(tmp_path: Path) -> CardBook:
    return CardBook(tmp_path / "cards.yaml", VOCABULARY)


@settings(deadline=None)  # it writes files
@given(attempts=st.lists(st.tuples(st.sampled_from(NAMES[3:6]), ATTEMPT), max_size=8), waits=st.booleans())
def test_what_is_written_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, attempts: list[tuple[str, Attempt]], waits: bool
) -> None:
    """Whatever the words are, and after every single change."""
    path = tmp_path_factory.mktemp("book") / "cards.yaml"
    book = CardBook(path, VOCABULARY)
    for name, each in attempts:
        book.record(name, each, waits=waits)
        found = load_card_file(path, VOCABULARY)
        assert (found.cards, found.proposed, found.unwritten) == (book.cards, book.proposed, book.unwritten)
        assert book.history(name)[-1] == each
        assert [*path.parent.iterdir()] == [path]


def test_labels_stand_in_the_vocabularys_order(book: CardBook, tmp_path: Path) -> None:
    for name in reversed(NAMES):
        book.record(name, attempt(1, "this is meant"), waits=False)
    content = yaml.safe_load((tmp_path / "cards.yaml").read_text())
    assert [entry["name"] for entry in content["cards"]] == list(NAMES)


def test_who_owns_a_card(tmp_path: Path) -> None:
    path = tmp_path / "cards.yaml"
    vocabulary = replace(VOCABULARY, labels=(*VOCABULARY.labels[1:], Label("no", description="a refusal.")))
    path.write_text("cards: [{name: null-like, description: x}]")
    with pytest.raises(VocabularyError, match="'null-like' is no label"):
        CardBook(path, vocabulary)
    path.write_text("# mine\n\ncards: [{name: '1', description: the first}]")
    book = CardBook(path, vocabulary)
    book.record("null", attempt(1, "nothing at all"), waits=False)
    assert path.read_text().startswith("# mine\n\ncards:\n")
    assert [name for name in vocabulary.names if book.is_by_hand(name)] == ["1"]
    assert [name for name in vocabulary.names if book.is_decided(name)] == ["1", "no"]
    path.write_text(
        path.read_text().replace("- name: 'null'\n  description: nothing", "- name: 'null'\n  description: no")
    )
    assert CardBook(path, vocabulary).is_by_hand("null")
    assert book.wording_before("no", 1) == Wording("a refusal")


def test_a_round_sees_what_stood_before_it(book: CardBook) -> None:
    """Also when it is asked late, after a person has spoken: so that no question is asked in other words."""
    name = "日本"
    book.record(name, attempt(1, "one"), waits=True)
    book.record(name, attempt(2, "two"), waits=True)
    book.record(name, attempt(3, "three", kept=False), waits=True)
    book.decide(name, None, "rejected by a person", 3, "2026-11-20")
    info = [book.wording_before(name, number) for number in (1, 2, 3, 4)]
    assert info == [None, Wording("one"), Wording("two"), Wording("one")]
    assert book.last_round == 3


def test_a_rejected_revision_leaves_the_card(book: CardBook) -> None:
    book.record("1", attempt(1, "one"), waits=False)
    book.record("1", attempt(2, "two"), waits=True)
    book.decide("1", None, "rejected by a person", 2, "2026-11-20")
    assert (book.cards["1"].wording, book.proposed, book.unwritten) == (Wording("one"), {}, {})
    assert (book.is_by_hand("1"), book.is_decided("1")) == (False, True)


def test_what_somebody_else_wrote_in_the_meantime_stays(book: CardBook, tmp_path: Path) -> None:
    path = tmp_path / "cards.yaml"
    path.write_text("cards: [{name: '1', description: ours}]")
    with pytest.raises(UsageError, match="was changed while cards were being written"):
        book.record("1", attempt(1, "theirs"), waits=False)
    assert "ours" in path.read_text()
    book = CardBook(path, VOCABULARY)
    book.record("null", attempt(1, "one"), waits=False)
    path.unlink()
    with pytest.raises(UsageError, match="was changed"):
        book.record("null", attempt(2, "two"), waits=False)


def test_a_file_that_cannot_be_written_stays(book: CardBook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    book.record("1", attempt(1, "one"), waits=False)
    before = (tmp_path / "cards.yaml").read_bytes()

    def fail(*paths: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(UsageError, match=r"cannot write .*cards.yaml: No space left"):
        book.record("1", attempt(2, "two"), waits=False)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"cards.yaml": before}


QUESTION = Request("", "what is it?", with_image=False)


def test_nothing_is_asked_twice_and_failures_are_asked_again() -> None:
    engine = RuleEngine(answer=lambda picture, request: Response("a thing"))
    engine.fault = lambda picture, request: Failure("slow", "too slow") if len(engine.asked) == 1 else None

    async def work() -> tuple[int, int, int]:
        with Evidence(None) as evidence:
            first = Respondent(Model("m", b"a" * 16, lambda: engine), evidence, 100)
            with pytest.raises(UnansweredError, match="slow: too slow"):
                await first.say(QUESTION)
            assert (await first.say(QUESTION)).text == (await first.say(QUESTION)).text == "a thing"
            same, other = (
                Respondent(Model("m", digest, lambda: engine), evidence, 100) for digest in (b"a" * 16, b"b" * 16)
            )
            await same.say(QUESTION)
            await other.say(QUESTION)
            for each in (first, same, other):
                await each.close()
            return first.asked, same.asked, other.asked

    assert asyncio.run(work()) == (2, 0, 1)
    assert (engine.started, engine.closed, len(engine.asked)) == (2, 2, 3)


def test_an_engine_that_cannot_start_is_closed() -> None:
    class Broken(RuleEngine):
        async def start(self) -> None:
            raise UsageError("no")

    engine = Broken()

    async def work() -> None:
        with Evidence(None) as evidence:
            await Respondent(Model("m", b"a" * 16, lambda: engine), evidence, 100).say(QUESTION)

    with pytest.raises(UsageError):
        asyncio.run(work())
    assert engine.closed == 1


def test_together_keeps_the_order_and_the_limit_and_ends_with_the_first_error() -> None:
    running: list[int] = []
    most = 0

    async def work(item: int) -> int:
        nonlocal most
        running.append(item)
        most = max(most, len(running))
        for _ in range(10 - item):
            await asyncio.sleep(0)
        running.remove(item)
        if item == 99:
            raise UsageError("enough")
        return -item

    assert asyncio.run(together(work, range(8), 3)) == [0, -1, -2, -3, -4, -5, -6, -7]
    assert most == 3
    with pytest.raises(UsageError, match="enough"):
        asyncio.run(together(work, [1, 99, *range(50)], 2))


@pytest.fixture
def workspace(tmp_path: Path) -> ConceptWorkspace:
    return ConceptWorkspace(tmp_path / "desk", 200)


def gallery(workspace: ConceptWorkspace, **options: object) -> Gallery:
    chosen = {"table": workspace.table, "images": None, "truth": workspace.truth, "size": 16, "seed": 0, **options}
    return open_gallery(load_vocabulary(str(workspace.vocabulary)), **chosen)  # type: ignore[arg-type]


def test_a_sample_shows_the_label_where_it_was_proposed_and_elsewhere(workspace: ConceptWorkspace) -> None:
    samples = gallery(workspace).samples
    for name, exhibits in samples.items():
        assert [exhibit.proposed for exhibit in exhibits] == [True] * 16 + [False] * 8
        assert len({exhibit.image.id for exhibit in exhibits}) == 24
        for exhibit in exhibits:
            assert exhibit.present is (name in labels_in(int(exhibit.image.id[:3])))
    assert gallery(workspace).samples == samples
    assert gallery(workspace, seed=1).samples != samples


def test_a_folder_is_sampled_by_truth_or_blindly(workspace: ConceptWorkspace) -> None:
    by_truth = gallery(workspace, table=None, images=workspace.images).samples["bat"]
    assert [exhibit.present for exhibit in by_truth] == [True] * 16 + [False] * 8
    assert {exhibit.proposed for exhibit in by_truth} == {None}
    blind = gallery(workspace, table=None, images=workspace.images, truth=None).samples
    assert len(blind["bat"]) == 24
    assert {exhibit.present for exhibit in blind["bat"]} == {None}


def test_the_model_confuses_what_people_deny_again_and_again(workspace: ConceptWorkspace) -> None:
    confusions = gallery(workspace).confusions
    assert set(confusions) == {"mouse", "bat"}
    assert confusions["mouse"].wrong == sum(
        bool(exhibit.proposed and not exhibit.present) for exhibit in gallery(workspace, size=200).samples["mouse"]
    )
    assert gallery(workspace, truth=None).confusions == {}


def test_what_the_wrong_pictures_show_is_named(tmp_path: Path) -> None:
    """People say cup wherever the model said bat in vain: that is what it takes for one."""
    workspace = ConceptWorkspace(tmp_path / "desk", 100)
    lines = workspace.truth.read_text().splitlines()
    table = {name: set(labels.split("|")) for name, labels in (line.split(",") for line in lines[1:])}
    everything = gallery(workspace, size=100).samples["bat"]
    wrong = {exhibit.image.id for exhibit in everything if exhibit.proposed and not exhibit.present}
    rows = [
        f"{name},{'|'.join(labels - {'cup'} | ({'cup'} if name in wrong else set()))}" for name, labels in table.items()
    ]
    workspace.truth.write_text("\n".join([lines[0], *rows]) + "\n")
    found = gallery(workspace).confusions["bat"]
    assert (found.wrong, found.causes[0]) == (len(wrong), "cup")
    assert "these show more often than others: cup" in found.sentence("bat")
    assert Confusion(10, 5).sentence("a, b").endswith('said "a, b" of 10 pictures, and people say that 5 lack it.')


def test_a_table_over_another_vocabulary_is_refused(workspace: ConceptWorkspace) -> None:
    with pytest.raises(TableError, match="has no label of odd"):
        open_gallery(VOCABULARY, workspace.table, None, None, 4, 0)
