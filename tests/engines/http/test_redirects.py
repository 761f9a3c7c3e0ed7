"""Redirects of the API and of questions."""

from __future__ import annotations

import pytest

from tagllm_cli.errors import EndpointError
from tests.support.asking import ask, settings
from tests.support.faulty_proxy import (
    FaultyProxy,
    redirect,
)


def test_the_api_moves_with_a_redirect_of_its_list_of_models():
    with FaultyProxy() as target:
        moved = lambda number, path: redirect(target.url + path)  # noqa: E731
        with FaultyProxy(moved) as server:
            responses = ask(settings(server, api_key=None))
    assert responses[0].text == "cat"
    assert [each.method for each in server.received] == ["GET"]
    assert len(target.questions) == 1


def test_a_redirect_to_another_host_is_refused_with_the_address():
    with FaultyProxy() as target:
        elsewhere = target.url.replace("127.0.0.1", "localhost")
        with (
            FaultyProxy(lambda number, path: redirect(elsewhere + path)) as server,
            pytest.raises(EndpointError, match=f"redirects to {elsewhere}/v1/models"),
        ):
            ask(settings(server))
    assert target.questions == []


@pytest.mark.parametrize("status", [301, 302, 303])
def test_a_redirected_question_is_refused_in_words(status: int):
    fault = lambda number, path: redirect("/other", status) if number else None  # noqa: E731
    with FaultyProxy(fault) as server, pytest.raises(EndpointError, match="redirects requests to") as caught:
        ask(settings(server))
    assert "--endpoint" in caught.value.hint


def test_a_redirect_that_keeps_the_method_is_followed():
    fault = lambda number, path: redirect("/v1/chat/completions", 307) if number == 1 else None  # noqa: E731
    with FaultyProxy(fault) as server:
        assert ask(settings(server))[0].text == "cat"
