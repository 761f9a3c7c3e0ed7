"""The parts of the ablation: its arithmetic by hand, its control cards, its shared engine, what a cell cost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagllm_cli.engines.base import ask_all
from tagllm_cli.records import DecodedImage, Failure, Request, Response
from tagllm_cli.store.evidence import Evidence
from tagllm_cli.vocabulary.cards import load_cards
from tagllm_cli.vocabulary.load import load_vocabulary
from tests.ablation.bootstrap import RESAMPLES, Interval, f1, precision, recall, samples
from tests.ablation.cells import cost_of
from tests.ablation.concept_files import about_nothing, shuffled, write_cards
from tests.support.rule_engine import RuleEngine
from tests.support.shared_engine import SharedEngine

pytestmark = pytest.mark.slow


async def _nothing() -> None:
    return None


def test_what_a_killed_run_took_is_estimated_from_the_others(tmp_path: Path) -> None:
    path = tmp_path / "t.evidence"
    for numbers in (range(4), range(4, 6)):
        with Evidence(path) as evidence:
            evidence.start_run("candidates", "0")
            for number in numbers:
                response = Response("none", prompt_tokens=10, cached_tokens=4, output_tokens=1)
                evidence.record(number.to_bytes(16, "big"), response)
            evidence.record(bytes(15) + b"x", Response(failure=Failure("rejected", "no")))
            if numbers[0]:
                evidence.end_run({"seconds_asking": 1.5})
    cost = cost_of(path)
    assert (cost.requests, cost.prompt_tokens, cost.cached_tokens, cost.output_tokens) == (6, 60, 24, 6)
    assert cost.computed_tokens == 36
    assert (cost.seconds, cost.is_estimated) == (4.5, True)  # two answers in 1.5 s, six in all


# -- arithmetic -------------------------------------------------------------------------------------------------------


def test_metrics_by_hand() -> None:
    counts = np.array([[3.0, 1, 2], [0, 0, 0], [0, 2, 0], [0, 0, 4]])
    assert precision(counts).tolist() == [0.75, 0, 0, 0]
    assert recall(counts).tolist() == [0.6, 0, 0, 0]
    assert f1(counts).tolist() == [6 / 9, 0, 0, 0]


def test_the_first_sample_is_the_figure_itself() -> None:
    counts = np.array([[1, 0, 1], [2, 1, 0], [0, 0, 1]])
    found = samples(recall, counts)
    assert found.shape == (1 + RESAMPLES,)
    assert found[0] == 3 / 5
    assert Interval.of(found).value == 3 / 5


def test_the_interval_of_a_share_is_the_one_in_the_textbook() -> None:
    hits = np.random.default_rng(7).random(400) < 0.8
    counts = np.stack([hits, np.zeros(400), ~hits], axis=1).astype(np.int64)
    found = Interval.of(samples(recall, counts))
    error = 1.96 * np.sqrt(found.value * (1 - found.value) / 400)
    assert found.high - found.value == pytest.approx(error, rel=0.15)
    assert found.value - found.low == pytest.approx(error, rel=0.15)


def test_pairing_takes_away_what_two_tables_share() -> None:
    # Recall differs wildly between images and by one label in ten between the tables, everywhere.
    hits = np.random.default_rng(3).integers(0, 10, 300)
    one = np.stack([hits + 1, np.zeros(300, int), 9 - hits], axis=1)
    other = np.stack([hits, np.zeros(300, int), 10 - hits], axis=1)
    paired = Interval.of(samples(recall, one) - samples(recall, other))
    unpaired = Interval.of(samples(recall, one, seed=1) - samples(recall, other, seed=2))
    assert paired.low == pytest.approx(0.1)
    assert paired.high == pytest.approx(0.1)
    assert unpaired.high - unpaired.low > 0.05


def test_an_interval_lies_above_zero_as_a_whole_or_not() -> None:
    assert Interval(0.2, 0.1, 0.3).is_above_zero
    assert not Interval(0.2, 0.0, 0.4).is_above_zero
    assert not Interval(-0.2, -0.3, -0.1).is_above_zero


# -- cards ------------------------------------------------------------------------------------------------------------


@given(st.integers(2, 80))
def test_shuffled_descriptions_meet_no_label_of_their_own(count: int) -> None:
    own = {f"label {number}": f"meaning {number}" for number in range(count)}
    dealt = shuffled(own)
    assert list(dealt) == list(own)
    assert sorted(dealt.values()) == sorted(own.values())
    assert all(dealt[name] != own[name] for name in own)
    assert shuffled(own) == dealt


@given(st.sampled_from(["something", "any cat", "any traffic light"]), st.integers(3, 60))
def test_a_text_about_nothing_has_as_many_words(start: str, words: int) -> None:
    text = about_nothing(start, words)
    assert len(text.split()) == words
    assert text.startswith(start)


def test_every_variant_is_a_card_file_about_every_label(tmp_path: Path) -> None:
    vocabulary = load_vocabulary("scenes")
    cards = {name: load_cards(path, vocabulary) for name, path in write_cards(tmp_path / "cards", vocabulary).items()}
    assert set(cards) == {"description", "similar", "shuffled", "placebo", "repeated"}
    own = {label.name: label for label in vocabulary.labels}
    for name, label in own.items():
        assert cards["description"][name].description == cards["similar"][name].description == label.description
        assert (cards["similar"][name].similar, cards["description"][name].similar) == (label.similar, ())
        fake, blank, tautology = (cards[variant][name] for variant in ("shuffled", "placebo", "repeated"))
        assert fake.description != label.description
        assert len(blank.description.split()) == len(label.description.split())
        assert len(tautology.description.split()) == len(label.description.split())
        assert (fake.similar, blank.similar, tautology.similar) == ((), (), ())
        assert tautology.description.startswith(f"any {name} that ")
        assert not set(blank.description.split()) & {name, *label.similar}


# -- engine -----------------------------------------------------------------------------------------------------------


def test_the_engine_stays_up_and_forgets_between_jobs() -> None:
    events: list[str] = []
    engine = RuleEngine()

    async def warm_up() -> None:
        events.append("warm up")

    async def forget() -> None:
        events.append(f"forget {len(engine.asked)}")

    async def job(questions: int) -> int:
        engine = shared.handle()
        await engine.start()
        await ask_all(engine, None, [Request("", f"{n}?", with_image=False) for n in range(questions)])
        await engine.close()
        return engine.usage().requests

    shared = SharedEngine(engine, warm_up, forget)
    try:
        # Each in an event loop of its own, as jobs are.
        assert [asyncio.run(job(count)) for count in (3, 5)] == [3, 5]
        assert (engine.started, engine.closed) == (1, 0)
        assert events == ["warm up", "forget 0", "forget 3"]
    finally:
        shared.close()
    assert engine.closed == 1


def test_a_cancelled_question_is_cancelled_in_the_engine_too() -> None:
    cancelled = asyncio.Event()

    class Slow(RuleEngine):
        async def ask(
            self, picture: DecodedImage | None, requests: Sequence[Request]
        ) -> AsyncGenerator[tuple[Request, Response]]:
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()
            yield requests[0], Response()

    shared = SharedEngine(Slow(), _nothing, _nothing)

    async def job() -> None:
        engine = shared.handle()
        await engine.start()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(ask_all(engine, None, [Request("", "?", with_image=False)]), 0.05)
        await shared.call(_wait_for(cancelled))

    try:
        asyncio.run(job())
    finally:
        shared.close()


async def _wait_for(event: asyncio.Event) -> None:
    await asyncio.wait_for(event.wait(), 10)
