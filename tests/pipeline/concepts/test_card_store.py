"""The card store, models with recorded responses, and validation sets."""

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
from tagllm_cli.pipeline.concepts.cached_model import CachedModel, UnansweredError, gather_limited
from tagllm_cli.pipeline.concepts.card_store import CardStore
from tagllm_cli.pipeline.concepts.settings import Model
from tagllm_cli.pipeline.concepts.validation_set import Confusion, ValidationSet, open_validation_set
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
def store(tmp_path: Path) -> CardStore:
    return CardStore(tmp_path / "cards.yaml", VOCABULARY)


@settings(deadline=None)  # it writes files
@given(attempts=st.lists(st.tuples(st.sampled_from(NAMES[3:6]), ATTEMPT), max_size=8), waits=st.booleans())
def test_what_is_written_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, attempts: list[tuple[str, Attempt]], waits: bool
) -> None:
    """Whatever the words are, and after every single change."""
    path = tmp_path_factory.mktemp("cards") / "cards.yaml"
    store = CardStore(path, VOCABULARY)
    for name, each in attempts:
        store.record(name, each, waits=waits)
        found = load_card_file(path, VOCABULARY)
        assert (found.cards, found.proposed, found.unwritten) == (store.cards, store.proposed, store.unwritten)
        assert store.history(name)[-1] == each
        assert [*path.parent.iterdir()] == [path]


def test_a_card_file_that_is_a_link_stays_one(tmp_path: Path) -> None:
    target = tmp_path / "elsewhere" / "cards.yaml"
    target.parent.mkdir()
    target.write_text("cards: []\n")
    (tmp_path / "cards.yaml").symlink_to(target)
    CardStore(tmp_path / "cards.yaml", VOCABULARY).record(NAMES[3], attempt(1, "a small rodent"), waits=False)
    assert (tmp_path / "cards.yaml").is_symlink()
    assert load_card_file(target, VOCABULARY).cards.keys() == {NAMES[3]}


def test_labels_stand_in_the_vocabularys_order(store: CardStore, tmp_path: Path) -> None:
    for name in reversed(NAMES):
        store.record(name, attempt(1, "this is meant"), waits=False)
    content = yaml.safe_load((tmp_path / "cards.yaml").read_text())
    assert [entry["name"] for entry in content["cards"]] == list(NAMES)


def test_who_owns_a_card(tmp_path: Path) -> None:
    path = tmp_path / "cards.yaml"
    vocabulary = replace(VOCABULARY, labels=(*VOCABULARY.labels[1:], Label("no", description="a refusal.")))
    path.write_text("cards: [{name: null-like, description: x}]")
    with pytest.raises(VocabularyError, match="'null-like' is no label"):
        CardStore(path, vocabulary)
    path.write_text("# mine\n\ncards: [{name: '1', description: the first}]")
    store = CardStore(path, vocabulary)
    store.record("null", attempt(1, "nothing at all"), waits=False)
    assert path.read_text().startswith("# mine\n\ncards:\n")
    assert [name for name in vocabulary.names if store.is_human_edited(name)] == ["1"]
    assert [name for name in vocabulary.names if store.is_settled(name)] == ["1", "no"]
    path.write_text(
        path.read_text().replace("- name: 'null'\n  description: nothing", "- name: 'null'\n  description: no")
    )
    assert CardStore(path, vocabulary).is_human_edited("null")
    assert store.wording_before("no", 1) == Wording("a refusal")


def test_a_round_sees_what_stood_before_it(store: CardStore) -> None:
    """Also when it is asked late, after a person has spoken: so that no question is asked in other words."""
    name = "日本"
    store.record(name, attempt(1, "one"), waits=True)
    store.record(name, attempt(2, "two"), waits=True)
    store.record(name, attempt(3, "three", kept=False), waits=True)
    store.decide(name, None, "rejected by a person", 3, "2026-11-20")
    info = [store.wording_before(name, number) for number in (1, 2, 3, 4)]
    assert info == [None, Wording("one"), Wording("two"), Wording("one")]
    assert store.last_round == 3


def test_a_rejected_revision_leaves_the_card(store: CardStore) -> None:
    store.record("1", attempt(1, "one"), waits=False)
    store.record("1", attempt(2, "two"), waits=True)
    store.decide("1", None, "rejected by a person", 2, "2026-11-20")
    assert (store.cards["1"].wording, store.proposed, store.unwritten) == (Wording("one"), {}, {})
    assert (store.is_human_edited("1"), store.is_settled("1")) == (False, True)


def test_what_somebody_else_wrote_in_the_meantime_stays(store: CardStore, tmp_path: Path) -> None:
    path = tmp_path / "cards.yaml"
    path.write_text("cards: [{name: '1', description: ours}]")
    with pytest.raises(UsageError, match="was changed while cards were being written"):
        store.record("1", attempt(1, "theirs"), waits=False)
    assert "ours" in path.read_text()
    store = CardStore(path, VOCABULARY)
    store.record("null", attempt(1, "one"), waits=False)
    path.unlink()
    with pytest.raises(UsageError, match="was changed"):
        store.record("null", attempt(2, "two"), waits=False)


def test_a_file_that_cannot_be_written_stays(store: CardStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.record("1", attempt(1, "one"), waits=False)
    before = (tmp_path / "cards.yaml").read_bytes()

    def fail(*paths: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(UsageError, match=r"cannot write .*cards.yaml: No space left"):
        store.record("1", attempt(2, "two"), waits=False)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"cards.yaml": before}


QUESTION = Request("", "what is it?", with_image=False)


def test_nothing_is_asked_twice_and_failures_are_asked_again() -> None:
    engine = RuleEngine(answer=lambda picture, request: Response("a thing"))
    engine.fault = lambda picture, request: Failure("slow", "too slow") if len(engine.asked) == 1 else None

    async def work() -> tuple[int, int, int]:
        with Evidence(None) as evidence:
            first = CachedModel(Model("m", b"a" * 16, lambda: engine), evidence, 100)
            with pytest.raises(UnansweredError, match="slow: too slow"):
                await first.ask(QUESTION)
            assert (await first.ask(QUESTION)).text == (await first.ask(QUESTION)).text == "a thing"
            same, other = (
                CachedModel(Model("m", digest, lambda: engine), evidence, 100) for digest in (b"a" * 16, b"b" * 16)
            )
            await same.ask(QUESTION)
            await other.ask(QUESTION)
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
            await CachedModel(Model("m", b"a" * 16, lambda: engine), evidence, 100).ask(QUESTION)

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

    assert asyncio.run(gather_limited(work, range(8), 3)) == [0, -1, -2, -3, -4, -5, -6, -7]
    assert most == 3
    with pytest.raises(UsageError, match="enough"):
        asyncio.run(gather_limited(work, [1, 99, *range(50)], 2))


@pytest.fixture
def workspace(tmp_path: Path) -> ConceptWorkspace:
    return ConceptWorkspace(tmp_path / "workspace", 200)


def validation_set(workspace: ConceptWorkspace, **options: object) -> ValidationSet:
    chosen = {"table": workspace.table, "images": None, "truth": workspace.truth, "size": 16, "seed": 0, **options}
    return open_validation_set(load_vocabulary(str(workspace.vocabulary)), **chosen)  # type: ignore[arg-type]


def test_a_sample_shows_the_label_where_it_was_proposed_and_elsewhere(workspace: ConceptWorkspace) -> None:
    samples = validation_set(workspace).samples
    for name, examples in samples.items():
        assert [example.proposed for example in examples] == [True] * 16 + [False] * 8
        assert len({example.image.id for example in examples}) == 24
        for example in examples:
            assert example.present is (name in labels_in(int(example.image.id[:3])))
    assert validation_set(workspace).samples == samples
    assert validation_set(workspace, seed=1).samples != samples


def test_a_folder_is_sampled_by_truth_or_blindly(workspace: ConceptWorkspace) -> None:
    by_truth = validation_set(workspace, table=None, images=str(workspace.images)).samples["bat"]
    assert [example.present for example in by_truth] == [True] * 16 + [False] * 8
    assert {example.proposed for example in by_truth} == {None}
    blind = validation_set(workspace, table=None, images=str(workspace.images), truth=None).samples
    assert len(blind["bat"]) == 24
    assert {example.present for example in blind["bat"]} == {None}


def test_the_model_confuses_what_people_deny_again_and_again(workspace: ConceptWorkspace) -> None:
    confusions = validation_set(workspace).confusions
    assert set(confusions) == {"mouse", "bat"}
    assert confusions["mouse"].wrong == sum(
        bool(example.proposed and not example.present)
        for example in validation_set(workspace, size=200).samples["mouse"]
    )
    assert validation_set(workspace, truth=None).confusions == {}


def test_what_the_wrong_pictures_show_is_named(tmp_path: Path) -> None:
    """People say cup wherever the model wording_values bat in vain: that is what it takes for one."""
    workspace = ConceptWorkspace(tmp_path / "workspace", 100)
    lines = workspace.truth.read_text().splitlines()
    table = {name: set(labels.split("|")) for name, labels in (line.split(",") for line in lines[1:])}
    everything = validation_set(workspace, size=100).samples["bat"]
    wrong = {example.image.id for example in everything if example.proposed and not example.present}
    rows = [
        f"{name},{'|'.join(labels - {'cup'} | ({'cup'} if name in wrong else set()))}" for name, labels in table.items()
    ]
    workspace.truth.write_text("\n".join([lines[0], *rows]) + "\n")
    found = validation_set(workspace).confusions["bat"]
    assert (found.wrong, found.causes[0]) == (len(wrong), "cup")
    assert "these show more often than others: cup" in found.sentence("bat")
    assert Confusion(10, 5).sentence("a, b").endswith('said "a, b" of 10 pictures, and people say that 5 lack it.')


def test_a_table_over_another_vocabulary_is_refused(workspace: ConceptWorkspace) -> None:
    with pytest.raises(TableError, match="has no label of odd"):
        open_validation_set(VOCABULARY, workspace.table, None, None, 4, 0)
