"""Real vLLM, in this process and as a server: the same questions, the same responses, failures included."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from pathlib import Path

import pytest

from tagllm_cli.engines.base import ask_all
from tagllm_cli.engines.http.attempts import Attempt, Verdict, attempt
from tagllm_cli.engines.http.engine import EndpointEngine
from tagllm_cli.engines.http.images import share_image
from tagllm_cli.engines.http.server import Affinity
from tagllm_cli.engines.local.engine import EngineSettings, InProcessEngine
from tagllm_cli.errors import ModelError
from tagllm_cli.labeling.templates import load_templates
from tagllm_cli.records import DecodedImage, Request, Response
from tests.support.asking import run, settings
from tests.support.faulty_proxy import Fault, FaultyProxy, cut_off, half_json, refuse, reset
from tests.support.live import MODEL, Live, LiveEngine, LiveServer, demo_pictures

pytestmark = pytest.mark.live

SYSTEM = "You label images."
NAMES = ("boat", "cat", "cup", "dog", "glasses", "keyboard", "mouse", "palm")
BLOCK = 32


def verify(name: str) -> Request:
    return Request(SYSTEM, f"Is {name} visible in the image? Answer yes or no.", max_tokens=1, top_logprobs=20)


def group(names: Sequence[str]) -> Request:
    return load_templates()["group"].request(labels=", ".join(names))  # the wording that the demo model was trained on


def share(response: Response, word: str) -> float:
    """The probability that the first token is this word."""
    return sum(math.exp(value) for text, value in response.first_logprobs.items() if text.strip().lower() == word)


def test_the_engine_tells_its_version_and_capacity(live_engine: LiveEngine):
    assert live_engine.engine.version.startswith("vllm 0.")
    assert live_engine.engine.capacity == 128


def test_the_first_tokens_probabilities_are_unguided(live_engine: LiveEngine):
    [response] = live_engine.ask(demo_pictures(1)[0], [verify("cat")])
    assert (response.failure, response.finish, response.output_tokens) == (None, "length", 1)
    shares = [math.exp(value) for value in response.first_logprobs.values()]
    assert 5 <= len(shares) <= 20  # texts, of 20 tokens
    assert sum(shares) < 1.0
    assert share(response, "yes") + share(response, "no") > 0


def test_answers_depend_on_the_image_and_repeat(live_engine: LiveEngine):
    one, other = demo_pictures(2)
    first, again = (live_engine.ask(one, [verify("cat")])[0] for _ in range(2))
    elsewhere = live_engine.ask(other, [verify("cat")])[0]
    likeliest = max(first.first_logprobs, key=lambda text: first.first_logprobs[text])
    assert again.first_logprobs[likeliest] == pytest.approx(first.first_logprobs[likeliest], abs=0.05)
    assert elsewhere.first_logprobs != first.first_logprobs


def test_the_image_is_paid_for_once(live_engine: LiveEngine):
    before = live_engine.engine.usage()
    picture = demo_pictures(3)[2]
    fresh = DecodedImage(picture.pixels, "never-seen-before")
    responses = live_engine.ask(fresh, [verify(name) for name in NAMES])
    after = live_engine.engine.usage()
    prompt = sum(response.prompt_tokens for response in responses)
    cached = sum(response.cached_tokens for response in responses)
    prefix = min(response.prompt_tokens for response in responses) // BLOCK * BLOCK
    assert sorted(response.cached_tokens for response in responses)[0] == 0
    assert cached >= (len(NAMES) - 1) * (prefix - BLOCK) > 0
    assert after.prompt_tokens - before.prompt_tokens == prompt
    assert after.cached_tokens - before.cached_tokens == cached
    assert after.requests - before.requests == len(NAMES)
    assert after.output_tokens - before.output_tokens == len(NAMES)


def test_a_question_without_an_image(live_engine: LiveEngine):
    request = Request("", "What does a cat look like?", with_image=False, max_tokens=8)
    alone, beside = live_engine.ask(None, [request])[0], live_engine.ask(demo_pictures(1)[0], [request])[0]
    assert (alone.failure, alone.prompt_tokens) == (None, beside.prompt_tokens)
    assert alone.prompt_tokens < 49  # no image tokens


def test_one_request_that_fails_fails_alone(live_engine: LiveEngine):
    picture = demo_pictures(1)[0]
    long = Request(SYSTEM, "cat " * 20_000, max_tokens=4)
    template = Request(SYSTEM, "Is <image> or {{ labels }} or <|assistant|> visible?", max_tokens=4)
    responses = live_engine.ask(picture, [verify("cat"), long, template, verify("dog")])
    assert [response.failure and response.failure.kind for response in (responses[0], responses[1], responses[3])] == [
        None,
        "too_long",
        None,
    ]
    assert responses[2].failure is None or responses[2].failure.kind == "rejected"
    assert responses[1].failure is not None
    assert "\n" not in responses[1].failure.message


def test_an_ask_that_is_given_up_leaves_the_engine_free(live_engine: LiveEngine):
    async def body() -> list[Response]:
        picture = demo_pictures(1)[0]
        asked = asyncio.create_task(ask_all(live_engine.engine, picture, [group(NAMES)] * 64))
        await asyncio.sleep(0)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        return await ask_all(live_engine.engine, picture, [verify("cat")])

    assert live_engine.run(body())[0].failure is None


def test_vllm_logs_to_the_file(live_engine: LiveEngine):
    log = live_engine.log_file.read_text()
    assert "(EngineCore" in log
    assert "(MainProcess" in log


COMPARED = [*(verify(name) for name in NAMES), group(NAMES), load_templates()["meaning"].request(name="cat")]


async def everything(engine: EndpointEngine | InProcessEngine) -> list[Response]:
    answers = await asyncio.gather(*(ask_all(engine, picture, COMPARED) for picture in demo_pictures(25)))
    return [response for responses in answers for response in responses]


@pytest.fixture(scope="session")
def answers_in_process(live: Live) -> list[Response]:
    """The responses of the engine in this process, before the server takes its place."""
    engine = live.engine()
    return engine.run(everything(engine.engine))


def test_a_server_and_this_process_say_the_same(answers_in_process: list[Response], live_server: LiveServer):
    here = answers_in_process
    there = run(settings(live_server.url, timeout_s=300.0), everything)
    assert [response.failure for response in (*here, *there)] == [None] * (2 * len(here))
    assert [response.prompt_tokens for response in here] == [response.prompt_tokens for response in there]
    decided = [(one, other) for one, other in zip(here, there, strict=True) if one.first_logprobs]
    same = [
        (share(one, "yes") > share(one, "no")) == (share(other, "yes") > share(other, "no")) for one, other in decided
    ]
    assert len(same) == 200
    assert sum(same) / len(same) >= 0.99
    assert all(abs(share(one, "yes") - share(other, "yes")) < 0.1 for one, other in decided)


def test_a_server_behind_a_faulty_proxy_answers_everything(live_server: LiveServer):
    faults = [None, refuse(429, retry_after="0"), None, refuse(500), half_json(), reset(), cut_off()]

    def fault(number: int, path: str) -> Fault | None:
        return faults[number % len(faults)] if number else None

    pictures = demo_pictures(6)
    requests = [verify(name) for name in NAMES[:4]]

    async def everything(engine: EndpointEngine) -> list[list[Response]]:
        return await asyncio.gather(*(ask_all(engine, picture, requests) for picture in pictures))

    with FaultyProxy(fault, upstream=live_server.url) as proxy:
        patient = settings(proxy, timeout_s=300.0, retries=30, concurrency=8, max_wait_s=0.1)
        through = run(patient, everything)
    direct = run(settings(live_server.url, timeout_s=300.0), everything)
    assert len(proxy.questions) > 24
    for one, other in zip((r for rs in through for r in rs), (r for rs in direct for r in rs), strict=True):
        assert one.failure is None
        assert share(one, "yes") == pytest.approx(share(other, "yes"), abs=0.1)


def test_a_server_gets_an_images_pixels_once(live_server: LiveServer):
    shown = DecodedImage(demo_pictures(1)[0].pixels, "sent-once")
    requests = [verify(name) for name in NAMES]
    with FaultyProxy(upstream=live_server.url) as proxy:
        responses = run(settings(proxy, timeout_s=300.0), lambda engine: ask_all(engine, shown, requests))
    assert [response.failure for response in responses] == [None] * len(NAMES)
    parts = [question.json["messages"][-1]["content"][0] for question in proxy.questions]
    assert [part["image_url"] is not None for part in parts] == [True] + [False] * (len(NAMES) - 1)
    assert {part["uuid"] for part in parts} == {"sent-once"}
    again = run(settings(live_server.url, timeout_s=300.0), lambda engine: ask_all(engine, shown, requests))
    for one, other in zip(responses, again, strict=True):
        assert share(one, "yes") == pytest.approx(share(other, "yes"), abs=0.05)


def test_a_server_that_has_forgotten_an_image_gets_it_again(live_server: LiveServer):
    async def body(engine: EndpointEngine) -> tuple[Attempt, int]:
        [server] = engine._pool.servers
        image = await share_image(DecodedImage(demo_pictures(1)[0].pixels, "never-sent"))
        image.held_by.add(server)
        lease = await engine._pool.acquire(Affinity(), (), needs_logprobs=True)
        assert lease is not None
        return await attempt(lease, engine.model, image, verify("cat")), server.misses

    end, misses = run(settings(live_server.url, timeout_s=300.0), body)
    assert (end.verdict, misses) == (Verdict.ANSWERED, 1)


def test_a_servers_refusals_are_ours(live_server: LiveServer):
    picture = demo_pictures(1)[0]
    long = Request(SYSTEM, "cat " * 20_000, max_tokens=4)
    chosen = settings(live_server.url, timeout_s=300.0)
    responses = run(chosen, lambda engine: ask_all(engine, picture, [long, verify("cat")]))
    assert [response.failure and response.failure.kind for response in responses] == ["too_long", None]
    assert run(chosen, lambda engine: asyncio.sleep(0, engine.model)) == live_server.model
    too_many = Request(SYSTEM, "Is a cat visible?", max_tokens=1, top_logprobs=21)
    [fewer] = run(chosen, lambda engine: ask_all(engine, picture, [too_many]))  # as many as the server gives
    assert fewer.failure is None
    assert 5 <= len(fewer.first_logprobs) <= 20


def test_a_model_that_cannot_be_loaded_is_one_line(tmp_path: Path):
    engine = InProcessEngine(EngineSettings(str(MODEL), {"dtype": "float17"}, log_file=tmp_path / "vllm.log"))

    async def body() -> None:
        try:
            await engine.start()
        finally:
            await engine.close()

    with pytest.raises(ModelError, match=r"vLLM cannot load .*: dtype: Input should be") as caught:
        asyncio.run(body())
    assert "\n" not in caught.value.message
