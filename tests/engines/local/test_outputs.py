"""What vLLM in this process returns for a request: a response, or a failed one that says why."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from tagllm_cli.engines.local.asker import read_outputs
from tests.support.asking import CAT, LIST


def output(text: str, finish: str | None = "stop", logprobs: dict[str, float] | None = None) -> Any:
    first = {
        number: SimpleNamespace(decoded_token=token, logprob=value)
        for number, (token, value) in enumerate((logprobs or {}).items())
    }
    completion = SimpleNamespace(
        text=text, finish_reason=finish, logprobs=[first] if logprobs else None, token_ids=[1, 2]
    )
    return SimpleNamespace(outputs=[completion], prompt_token_ids=[1] * 50, num_cached_tokens=32)


def test_text_tokens_and_logprobs_are_read():
    response = read_outputs(LIST, [output("cat, dog")])
    assert (response.text, response.prompt_tokens, response.cached_tokens, response.output_tokens) == (
        "cat, dog", 50, 32, 2
    )  # fmt: skip
    assert read_outputs(CAT, [output("", "length", {"yes": -0.1})]).first_logprobs == {"yes": -0.1}


@pytest.mark.parametrize(
    ("outputs", "kind"),
    [
        ([], "engine_error"),
        ([output("cat", "abort")], "engine_error"),
        ([output("cat", "error")], "engine_error"),
        ([output("cat", None)], "engine_error"),
        ([output("")], "empty_answer"),
        ([output(" \n", "length")], "empty_answer"),
    ],
)
def test_a_request_without_an_answer_is_failed(outputs: list[Any], kind: str):
    failure = read_outputs(LIST, outputs).failure
    assert failure is not None
    assert failure.kind == kind


@pytest.mark.parametrize("logprobs", [None, {"yes": math.nan}])
def test_a_yes_or_no_without_log_probabilities_is_failed(logprobs: dict[str, float] | None):
    failure = read_outputs(CAT, [output("yes", "length", logprobs)]).failure
    assert failure is not None
    assert failure.kind == "no_logprobs"
