"""What every `Engine` does, those of the tests included: one response per request, failures as responses, cancellation.

An engine with scripted responses answers by `SCRIPT`; the live one answers as its model does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tagllm_cli.engines.base import Engine, Usage, ask_all
from tagllm_cli.engines.http.engine import EndpointEngine
from tagllm_cli.engines.replay import RecordingEngine, ReplayEngine, load_recording, recording_key
from tagllm_cli.labeling.templates import load_templates
from tagllm_cli.records import DecodedImage, Failure, Request, Response
from tests.support.asking import picture, settings
from tests.support.live import LiveEngine, demo_pictures
from tests.support.rule_engine import RuleEngine
from tests.support.stub_server import stub_server

LIST = load_templates()["group"].request(labels="cat, dog")  # the demo model answers it
CAT = Request("You label images.", "Is a cat visible? Answer yes or no.", max_tokens=1, top_logprobs=5)
DOG = Request("You label images.", "Is a dog visible? Answer yes or no.", max_tokens=1, top_logprobs=5)
PLAIN = Request("", "What does a cat look like?", with_image=False, max_tokens=8)
EMPTY = Request("", "Say nothing.", max_tokens=16)
BLANK = Request("", "Say a blank.", max_tokens=16)
FILTERED = Request("", "Say what is filtered.", max_tokens=16)
SILENT = Request("", "Yes or no, without a text?", max_tokens=1, top_logprobs=5)
UNSURE = Request("", "Yes or no, without log-probabilities?", max_tokens=1, top_logprobs=5)
REFUSED = Request("", "Be refused.", max_tokens=16)

TOKENS: Any = {"prompt_tokens": 100, "cached_tokens": 64, "output_tokens": 3}  # of the stub server
YES = {"yes": -0.1, "no": -2.5}
SCRIPT = {
    LIST: Response("cat", **TOKENS),
    CAT: Response("yes", "length", YES, **TOKENS),
    DOG: Response("yes", "length", YES, **TOKENS),
    PLAIN: Response("furry", **TOKENS),
    EMPTY: Response(""),
    BLANK: Response(" \n"),
    FILTERED: Response("ca", "content_filter"),
    SILENT: Response("", "length", YES, **TOKENS),
    UNSURE: Response("yes", "length"),
    REFUSED: Response(failure=Failure("rejected", "no")),
}
Run = Callable[[Coroutine[Any, Any, Any]], Any]


def scripted(shown: DecodedImage | None, request: Request) -> Response:
    """The script's response; a stub server sees no difference between a request about an image and one beside it."""
    return next(response for asked, response in SCRIPT.items() if asked.text == request.text)


def rules() -> RuleEngine:
    return RuleEngine(answer=scripted)


def replay() -> ReplayEngine:
    return ReplayEngine({recording_key(picture(), request): response for request, response in SCRIPT.items()})


@contextmanager
def started(name: str, folder: Path) -> Iterator[tuple[Engine, Run]]:
    with asyncio.Runner() as runner, stub_server(answer=scripted) as server:
        makers: dict[str, Callable[[], Engine]] = {
            "rules": rules,
            "replay": replay,
            "recording": lambda: RecordingEngine(rules(), folder / "recording.jsonl"),
            "http": lambda: EndpointEngine(settings(server), jitter=lambda: 0.0),
        }
        engine = makers[name]()
        runner.run(engine.start())
        try:
            yield engine, runner.run
        finally:
            runner.run(engine.close())
            runner.run(engine.close())


SCRIPTED = ("rules", "replay", "recording", "http")


@pytest.fixture(params=SCRIPTED)
def script_engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Engine, Run]]:
    """An engine whose responses are those of SCRIPT, and how to run a coroutine in its loop."""
    with started(request.param, tmp_path) as found:
        yield found


@pytest.fixture(params=[*SCRIPTED, pytest.param("local", marks=pytest.mark.live)])
def any_engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Engine, Run, DecodedImage]]:
    """Any engine, how to run a coroutine in its loop, and an image that it can be asked about."""
    if request.param == "local":
        live: LiveEngine = request.getfixturevalue("live_engine")
        yield live.engine, live.run, demo_pictures(1)[0]
        return
    with started(request.param, tmp_path) as (engine, run):
        yield engine, run, picture()


def test_it_tells_its_version_and_its_capacity(any_engine: tuple[Engine, Run, DecodedImage]):
    engine, _, _ = any_engine
    assert engine.version
    assert engine.capacity >= 1


def test_it_has_no_trouble_to_tell(any_engine: tuple[Engine, Run, DecodedImage]):
    engine, run, image = any_engine
    run(ask_all(engine, image, [CAT, LIST]))
    assert engine.trouble is None


def test_every_request_gets_one_response(any_engine: tuple[Engine, Run, DecodedImage]):
    engine, run, image = any_engine
    requests = [CAT, LIST, PLAIN, DOG, CAT]

    async def body() -> list[tuple[Request, Response]]:
        async with aclosing(engine.ask(image, requests)) as answered:
            return [pair async for pair in answered]

    pairs = run(body())
    assert sorted(request.text for request, _ in pairs) == sorted(request.text for request in requests)
    assert [str(response.failure or "") for _, response in pairs] == [""] * len(requests)
    assert all(response.text.strip() for request, response in pairs if not request.top_logprobs)
    assert all(response.first_logprobs for request, response in pairs if request.top_logprobs)
    assert all(not response.first_logprobs for request, response in pairs if not request.top_logprobs)


def test_no_request_at_all_is_no_response(any_engine: tuple[Engine, Run, DecodedImage]):
    engine, run, image = any_engine
    assert run(ask_all(engine, image, [])) == []


def test_a_request_about_an_image_needs_one(any_engine: tuple[Engine, Run, DecodedImage]):
    engine, run, _ = any_engine
    with pytest.raises(ValueError, match="without one"):
        run(ask_all(engine, None, [PLAIN, LIST]))


def test_closing_the_generator_cancels_the_rest_and_leaves_the_engine_usable(
    any_engine: tuple[Engine, Run, DecodedImage],
):
    engine, run, image = any_engine
    before = engine.usage().requests

    async def body() -> list[Response]:
        async with aclosing(engine.ask(image, [CAT, DOG, LIST])) as answered:
            _, first = await anext(answered)
        return [first, *await ask_all(engine, image, [LIST])]

    responses = run(body())
    assert [response.failure for response in responses] == [None, None]
    assert engine.usage().requests - before == 2


def test_usage_counts_the_responses(any_engine: tuple[Engine, Run, DecodedImage]):
    engine, run, image = any_engine
    before = engine.usage()
    responses = run(ask_all(engine, image, [CAT, DOG, LIST]))
    total = before
    for response in responses:
        total = total.plus(response)
    assert engine.usage() == total
    assert total.requests - before.requests == 3


@pytest.mark.parametrize(
    ("request_", "kind"),
    [(EMPTY, "empty_answer"), (BLANK, "empty_answer"), (FILTERED, "filtered"), (UNSURE, "no_logprobs")],
)
def test_a_response_without_an_answer_is_a_failed_request(
    script_engine: tuple[Engine, Run], request_: Request, kind: str
):
    engine, run = script_engine
    failed, other = run(ask_all(engine, picture(), [request_, LIST]))
    assert failed.failure is not None
    assert (failed.failure.kind, failed.text) == (kind, "")
    assert (other.failure, other.text) == (None, "cat")
    assert engine.usage() == Usage().plus(SCRIPT[LIST])


def test_a_refused_request_fails_alone(script_engine: tuple[Engine, Run]):
    engine, run = script_engine
    failed, other = run(ask_all(engine, picture(), [REFUSED, LIST]))
    assert failed.failure is not None
    assert failed.failure.kind == "rejected"
    assert "\n" not in failed.failure.message
    assert other.failure is None


def test_a_yes_or_no_needs_no_text(script_engine: tuple[Engine, Run]):
    engine, run = script_engine
    [response] = run(ask_all(engine, picture(), [SILENT]))
    assert (response.failure, response.first_logprobs) == (None, YES)


def test_a_recording_holds_answers_only(tmp_path: Path):
    with started("recording", tmp_path) as (engine, run):
        run(ask_all(engine, picture(), list(SCRIPT)))
    recorded = load_recording(tmp_path / "recording.jsonl")
    answered = {LIST, CAT, DOG, PLAIN, SILENT}
    assert recorded == {recording_key(picture(), request): SCRIPT[request] for request in answered}
