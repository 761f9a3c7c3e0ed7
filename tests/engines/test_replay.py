"""Recorded responses: what was recorded is replayed exactly, and nothing else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from dataclasses import asdict
from pathlib import Path

import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagllm_cli.engines.base import Engine, Usage, ask_all
from tagllm_cli.engines.replay import RecordingEngine, ReplayEngine, load_recording, recording_key
from tagllm_cli.errors import UsageError
from tagllm_cli.records import DecodedImage, Failure, Request, Response

ONE = DecodedImage(PIL.Image.new("RGB", (2, 2)), "one")
TWO = DecodedImage(PIL.Image.new("RGB", (2, 2)), "two")
LIST = Request("system", "Which of: cat, dog?")
CAT = Request("system", "Is a cat visible?", max_tokens=1, top_logprobs=20)
MEANING = Request("", "What does a cat look like?", with_image=False)
ANSWER = Response("cat,\n「dog」", "stop", {" yes": -0.25, "no": -9999.0}, 100, 64, 5)


class Scripted:
    """An engine whose responses repeat the request; requests with "fail" in them fail."""

    version, capacity, trouble = "scripted 1", 7, "one server left out"
    gpus: int | None = 2

    def __init__(self) -> None:
        self.state = "new"

    async def start(self) -> None:
        self.state = "started"

    async def ask(
        self, picture: DecodedImage | None, requests: Sequence[Request]
    ) -> AsyncGenerator[tuple[Request, Response]]:
        shown = picture.uuid if picture is not None else "nothing"
        for request in requests:
            failed = "fail" in request.text
            yield (
                request,
                Response(failure=Failure("rejected", "no"))
                if failed
                else Response(f"{shown} {request.text}", first_logprobs={"yes": -0.1} if request.top_logprobs else {}),
            )

    def usage(self) -> Usage:
        return Usage(requests=3)

    async def close(self) -> None:
        self.state = "closed"


def record(path: Path, *asked: tuple[DecodedImage | None, Request]) -> list[Response]:
    async def body() -> list[Response]:
        engine: Engine = RecordingEngine(Scripted(), path)
        await engine.start()
        responses = [response for picture, request in asked for response in await ask_all(engine, picture, [request])]
        await engine.close()
        return responses

    return asyncio.run(body())


def replay(engine: ReplayEngine, *asked: tuple[DecodedImage | None, Request]) -> list[Response]:
    async def body() -> list[Response]:
        await engine.start()
        responses = [response for picture, request in asked for response in await ask_all(engine, picture, [request])]
        await engine.close()
        return responses

    return asyncio.run(body())


def test_what_was_recorded_is_given_again(tmp_path: Path):
    asked = [(ONE, LIST), (TWO, LIST), (ONE, CAT), (None, MEANING)]
    recorded = record(tmp_path / "new" / "answers.jsonl", *asked)
    engine = ReplayEngine(load_recording(tmp_path / "new" / "answers.jsonl"))
    assert replay(engine, *asked) == recorded
    assert engine.usage().requests == 4


def test_what_was_not_recorded_is_a_failure_and_so_is_a_recorded_one(tmp_path: Path):
    record(tmp_path / "answers.jsonl", (ONE, LIST), (ONE, Request("", "fail")))
    engine = ReplayEngine(load_recording(tmp_path / "answers.jsonl"))
    responses = replay(engine, (TWO, LIST), (ONE, Request("", "fail")), (ONE, LIST))
    assert [response.failure and response.failure.kind for response in responses] == [
        "not_recorded",
        "not_recorded",
        None,
    ]
    assert engine.usage().requests == 1


def test_everything_of_an_answer_is_kept(tmp_path: Path):
    class Full(Scripted):
        async def ask(
            self, picture: DecodedImage | None, requests: Sequence[Request]
        ) -> AsyncGenerator[tuple[Request, Response]]:
            for request in requests:
                yield request, ANSWER

    async def body() -> None:
        engine = RecordingEngine(Full(), tmp_path / "answers.jsonl")
        await engine.start()
        await ask_all(engine, ONE, [LIST])
        await engine.close()

    asyncio.run(body())
    assert load_recording(tmp_path / "answers.jsonl") == {recording_key(ONE, LIST): ANSWER}


def test_the_first_recorded_answer_wins_and_recordings_grow(tmp_path: Path):
    path = tmp_path / "answers.jsonl"
    record(path, (ONE, LIST))
    path.write_bytes(path.read_bytes() + path.read_bytes().replace(b"one Which", b"later Which"))
    record(path, (TWO, LIST))
    assert [response.text for response in load_recording(path).values()] == [
        "one Which of: cat, dog?",
        "two Which of: cat, dog?",
    ]


def test_a_recording_that_was_cut_off_keeps_its_whole_lines(tmp_path: Path):
    path = tmp_path / "answers.jsonl"
    record(path, (ONE, LIST), (TWO, LIST))
    path.write_bytes(path.read_bytes()[:-20])
    assert list(load_recording(path)) == [recording_key(ONE, LIST)]


@pytest.mark.parametrize(
    "line", [b"hello\n", b"[1]\n", b'{"key": "00"}{\n', b'{"key": "zz"}\n', b'{"key": "00", "x": 1}\n']
)
def test_another_file_is_not_a_recording(tmp_path: Path, line: bytes):
    path = tmp_path / "answers.jsonl"
    record(path, (ONE, LIST))
    path.write_bytes(path.read_bytes() + line)
    with pytest.raises(UsageError, match=r"answers\.jsonl, line 2: not a recorded response"):
        load_recording(path)


def test_a_missing_recording_is_told(tmp_path: Path):
    with pytest.raises(UsageError, match="No such file"):
        load_recording(tmp_path / "answers.jsonl")


def test_a_delay_is_kept_once_per_ask(monkeypatch: pytest.MonkeyPatch):
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    engine = ReplayEngine({recording_key(ONE, LIST): ANSWER}, delay_s=0.05)
    asyncio.run(ask_all(engine, ONE, [LIST, LIST, LIST]))
    assert slept == [0.05]


@pytest.mark.parametrize(
    ("response", "request_", "kind"),
    [
        (Response(""), LIST, "empty_answer"),
        (Response("  \n"), LIST, "empty_answer"),
        (Response("cat", "content_filter"), LIST, "filtered"),
        (Response("", first_logprobs={"yes": -0.1}), LIST, "empty_answer"),
        (Response("yes"), CAT, "no_logprobs"),
    ],
)
def test_a_recorded_response_without_an_answer_is_failed(
    tmp_path: Path, response: Response, request_: Request, kind: str
):
    entry = {key: value for key, value in asdict(response).items() if key != "failure"}
    line = json.dumps({"key": recording_key(ONE, request_).hex(), **entry})
    (tmp_path / "old.jsonl").write_text(line + "\n")
    [replayed] = replay(ReplayEngine(load_recording(tmp_path / "old.jsonl")), (ONE, request_))
    assert replayed.failure is not None
    assert replayed.failure.kind == kind


def test_a_recording_engine_is_the_engine_that_it_records():
    inner = Scripted()
    engine = RecordingEngine(inner, Path("unused"))
    assert (engine.version, engine.capacity, engine.usage().requests) == ("scripted 1", 7, 3)
    assert (engine.trouble, engine.gpus) == ("one server left out", 2)
    asyncio.run(engine.close())
    assert inner.state == "closed"


def test_a_question_about_an_image_needs_one():
    with pytest.raises(ValueError, match="without one"):
        asyncio.run(ask_all(ReplayEngine({}), None, [LIST]))


requests = st.builds(Request, st.text(), st.text(), st.booleans(), st.integers(1, 512), st.integers(0, 20))


@given(requests, requests, st.sampled_from([ONE, TWO]), st.sampled_from([ONE, TWO]))
def test_two_questions_share_a_key_only_if_their_answer_is_the_same(
    a: Request, b: Request, one: DecodedImage, other: DecodedImage
):
    same = a == b and (one is other or not a.with_image)
    assert (recording_key(one, a) == recording_key(other, b)) == same
