"""Which requests about an image go ahead, and what becomes of those that vLLM loses."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from tagllm_cli.engines.local.asker import Asker, SharedImage, read_outputs
from tagllm_cli.errors import EngineDiedError
from tagllm_cli.records import DecodedImage, Request, Response
from tests.support.asking import picture

LONG = 256
REQUESTS = [Request("", f"Is thing {number} visible?") for number in range(5)]


class Vllm:
    """vLLM as far as its two caches of images go: pixels travel once per key, and only with a request that arrives."""

    def __init__(self, image_tokens: int, too_long: tuple[str, ...] = (), lost: int = 0) -> None:
        self.image_tokens, self.too_long, self.lost = image_tokens, too_long, lost
        self.sent: set[str] = set()  # what this process takes for known to the engine
        self.held: set[str] = set()  # what the engine has
        self.asked: list[tuple[str, str]] = []
        self.running = self.most_running = 0
        self.waits: dict[str, list[str]] = {}  # by request: what was answered before it was asked
        self.answered: list[str] = []
        self.error: Exception | None = None

    async def render(self, image: DecodedImage | None, request: Request, uuid: str | None = None) -> dict[str, Any]:
        await asyncio.sleep(0)
        prompt: dict[str, Any] = {"text": request.text, "uuid": uuid, "pixels": False}
        if image is not None:
            assert uuid is not None
            prompt |= {
                "pixels": uuid not in self.sent,
                "mm_placeholders": {"image": [SimpleNamespace(length=self.image_tokens)]},
            }
            self.sent.add(uuid)
        return prompt

    async def generate(self, prompt: dict[str, Any], request: Request, rank: int | None) -> Response:
        if self.error is not None:
            raise self.error
        text, uuid = prompt["text"], prompt["uuid"]
        if text in self.too_long:
            raise ValueError("The decoder prompt is longer than the maximum model length of 1000.")
        self.asked.append((text, uuid))
        self.waits[text] = list(self.answered)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        if prompt["pixels"]:
            self.held.add(uuid)
        await asyncio.sleep(0.001)
        self.running -= 1
        known = uuid is None or uuid in self.held
        if self.lost:
            self.lost -= 1
            known = False
        self.answered.append(text)
        completion = SimpleNamespace(
            text="cat" if known else "", finish_reason="stop" if known else "error", logprobs=None, token_ids=[1]
        )
        output = SimpleNamespace(outputs=[completion], prompt_token_ids=[1] * 9, num_cached_tokens=0)
        return read_outputs(request, [output])


def ask(llm: Vllm, requests: list[Request] = REQUESTS) -> list[Response]:
    async def body() -> list[Response]:
        asker = Asker(llm, llm.generate, LONG)  # type: ignore[arg-type]
        image = SharedImage(picture())
        about = [asker.respond(image if request.with_image else None, request, None) for request in requests]
        return await asyncio.gather(*about)

    return asyncio.run(body())


def failures(responses: list[Response]) -> list[str | None]:
    return [None if response.failure is None else response.failure.kind for response in responses]


def test_one_request_about_a_long_image_goes_ahead():
    llm = Vllm(image_tokens=LONG)
    assert failures(ask(llm)) == [None] * 5
    first, *others = (text for text, _ in llm.asked)
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
    assert {uuid for _, uuid in llm.asked} == {None}


@pytest.mark.parametrize("image_tokens", [1, LONG])
@pytest.mark.parametrize("place", [0, 2])
def test_a_request_that_is_too_long_fails_alone(image_tokens: int, place: int):
    llm = Vllm(image_tokens, too_long=(REQUESTS[place].text,))
    expected = [None] * 5
    expected[place] = "too_long"  # type: ignore[call-overload]
    assert failures(ask(llm)) == expected


def test_a_request_that_vllm_loses_is_asked_again_with_its_pixels():
    llm = Vllm(image_tokens=1, lost=5)
    assert failures(ask(llm)) == [None] * 5
    assert len(llm.asked) == 10
    assert len({uuid for _, uuid in llm.asked}) == 2  # one new key for all of them: they share it


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
