"""Which requests about an image go ahead, and what becomes of those that vLLM loses."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from tagllm_cli.engines.local.asker import Asker, SharedImage, read_outputs
from tagllm_cli.engines.local.prepared import PreparedImage
from tagllm_cli.errors import EngineDiedError
from tagllm_cli.records import DecodedImage, Request, Response
from tests.support.asking import picture

LONG = 256
REQUESTS = [Request("", f"Is thing {number} visible?") for number in range(5)]


class Vllm:
    """vLLM as far as its engine keeps images: features come with a request that arrives, and may be dropped again."""

    def __init__(self, image_tokens: int, too_long: tuple[str, ...] = (), lost: int = 0) -> None:
        self.image_tokens, self.too_long, self.lost = image_tokens, too_long, lost
        self.held: set[str] = set()  # images whose features the engine has
        self.asked: list[str] = []
        self.with_features: list[str] = []
        self.running = self.most_running = 0
        self.waits: dict[str, list[str]] = {}  # by request: what was answered before it was asked
        self.answered: list[str] = []
        self.dropped: set[str] = set()  # images whose features the engine drops after each round
        self.error: Exception | None = None

    async def render(self, image: DecodedImage | None, request: Request) -> dict[str, Any]:
        assert image is None
        await asyncio.sleep(0)
        return {"text": request.text}

    async def about(self, image: DecodedImage, prepared: PreparedImage, request: Request) -> dict[str, Any]:
        await asyncio.sleep(0)
        has_features, prepared.is_sent = not prepared.is_sent, True
        of_image = {"image": [SimpleNamespace(length=self.image_tokens)]}
        return {"text": request.text, "uuid": image.uuid, "features": has_features, "mm_placeholders": of_image}

    async def generate(self, prompt: dict[str, Any], request: Request, rank: int | None) -> Response:
        if self.error is not None:
            raise self.error
        text, uuid = prompt["text"], prompt.get("uuid")
        if text in self.too_long:
            raise ValueError("The decoder prompt is longer than the maximum model length of 1000.")
        self.asked.append(text)
        self.waits[text] = list(self.answered)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        if prompt.get("features") and uuid is not None:
            self.with_features.append(text)
            self.held.add(uuid)
        known = uuid is None or uuid in self.held
        await asyncio.sleep(0.001)
        self.running -= 1
        if self.lost:
            self.lost -= 1
            known = False
        self.answered.append(text)
        completion = SimpleNamespace(
            text="cat" if known else "", finish_reason="stop" if known else "error", logprobs=None, token_ids=[1]
        )
        output = SimpleNamespace(outputs=[completion], prompt_token_ids=[1] * 9, num_cached_tokens=0)
        return read_outputs(request, [output])


def ask(llm: Vllm, *rounds: list[Request]) -> list[Response]:
    """Ask about one image, once per round, as the stages of a run do; return all responses."""

    async def body() -> list[Response]:
        asker = Asker(llm, llm.generate, LONG)  # type: ignore[arg-type]
        responses = []
        for requests in rounds or (REQUESTS,):
            image = SharedImage(picture())
            about = [asker.respond(image if request.with_image else None, request, None) for request in requests]
            responses += await asyncio.gather(*about)
            llm.held -= llm.dropped
        return responses

    return asyncio.run(body())


def failures(responses: list[Response]) -> list[str | None]:
    return [None if response.failure is None else response.failure.kind for response in responses]


def test_one_request_about_a_long_image_goes_ahead():
    llm = Vllm(image_tokens=LONG)
    assert failures(ask(llm)) == [None] * 5
    first, *others = llm.asked
    assert llm.waits[first] == []
    assert [llm.waits[text] for text in others] == [[first]] * 4
    assert llm.most_running == 4


def test_all_requests_about_a_short_image_go_together():
    llm = Vllm(image_tokens=LONG - 1)
    assert failures(ask(llm)) == [None] * 5
    assert llm.most_running == 5


def test_requests_without_an_image_wait_for_nothing():
    llm = Vllm(image_tokens=LONG)
    texts = [Request("", f"What is {number}?", with_image=False) for number in range(5)]
    assert failures(ask(llm, texts)) == [None] * 5
    assert llm.most_running == 5
    assert llm.with_features == []


@pytest.mark.parametrize("image_tokens", [1, LONG])
@pytest.mark.parametrize("place", [0, 2])
def test_a_request_that_is_too_long_fails_alone(image_tokens: int, place: int):
    llm = Vllm(image_tokens, too_long=(REQUESTS[place].text,))
    expected = [None] * 5
    expected[place] = "too_long"  # type: ignore[call-overload]
    assert failures(ask(llm)) == expected


@pytest.mark.parametrize("image_tokens", [1, LONG])
def test_the_features_of_an_image_are_sent_once(image_tokens: int):
    llm = Vllm(image_tokens)
    assert failures(ask(llm, REQUESTS, REQUESTS)) == [None] * 10
    assert len(llm.with_features) == 1


def test_a_request_that_vllm_loses_is_asked_again_with_the_features():
    llm = Vllm(image_tokens=1, lost=5)
    assert failures(ask(llm)) == [None] * 5
    assert len(llm.asked) == 10
    assert len(llm.with_features) == 2  # one of them takes the features along for all


@pytest.mark.parametrize("image_tokens", [1, LONG])
def test_features_that_the_engine_has_dropped_are_sent_again(image_tokens: int):
    llm = Vllm(image_tokens)
    llm.dropped = {picture().uuid}
    assert failures(ask(llm, REQUESTS, REQUESTS)) == [None] * 10
    assert len(llm.with_features) == 2


def test_a_request_that_is_lost_again_and_again_is_failed():
    responses = ask(Vllm(image_tokens=1, lost=1000))
    assert failures(responses) == ["engine_error"] * 5


def test_a_dead_engine_ends_the_run():
    llm = Vllm(image_tokens=1)
    llm.error = EngineDiedError("vLLM's engine process has died")
    with pytest.raises(EngineDiedError):
        ask(llm)


def test_the_reason_is_the_first_cause_without_addresses():
    llm = Vllm(image_tokens=1)
    try:
        try:
            raise ValueError("absolute aspect ratio must be smaller than 200, got 300.0")
        except ValueError as cause:
            raise ValueError("Failed to apply Processor on <Image size=300x1 at 0x7F3C12>") from cause
    except ValueError as error:
        llm.error = error
    responses = ask(llm)
    assert {response.failure and response.failure.message for response in responses} == {
        "absolute aspect ratio must be smaller than 200, got 300.0"
    }
    llm.error = RuntimeError("cannot use <Image at 0x7F3C12AB>\nat all")
    [response, *_] = ask(llm)
    assert response.failure is not None
    assert response.failure.message == "cannot use <Image> at all"
