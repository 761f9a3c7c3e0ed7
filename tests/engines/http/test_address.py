"""Addresses as people type them: what is asked, what goes along, and what is shown."""

from __future__ import annotations

import base64

import pytest

from tagllm_cli.engines.http.address import parse_address, scrub
from tagllm_cli.errors import EndpointError
from tests.support.asking import LIST, ask, settings
from tests.support.faulty_proxy import FaultyProxy, refuse

SECRET = "s3cret"


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("localhost:8000", "http://localhost:8000"),
        (" https://host/v1/ ", "https://host/v1"),
        ("HTTP://HOST/V1", "http://host/V1"),
        (f"reader:{SECRET}@host", "http://host"),
        (f"http://{SECRET}@host:1", "http://host:1"),
        (f"http://host/v1?key={SECRET}#part", "http://host/v1"),
        ("http://[::1]:8000/v1", "http://[::1]:8000/v1"),
        ("http://bücher.example", "http://bücher.example"),
        ("http://under_score", "http://under_score"),
    ],
)
def test_what_is_shown_of_an_address_is_where_it_leads(text: str, url: str):
    assert parse_address(text).url == url


@pytest.mark.parametrize(
    "text",
    [
        "",
        "http://",
        "ftp://host",
        "http://[::1",
        "http://host:99999",
        "http://host:abc",
        "host:80:90",
        "http://a..b",
        "http://ho st",
        "http://ex%61mple",
        f"http://me:{SECRET}@host:99999/v1?key={SECRET}",
        f"http://me:{SECRET}@[::1?token={SECRET}",
        f"http://me:{SECRET}/part@host",
        f"http://me:{SECRET}?part@host",
        f"http://me:{SECRET}#part@host",
        f"me:{SECRET}@host:1:2",
    ],
)
def test_what_is_no_address_is_one_line_without_secrets(text: str):
    with pytest.raises(EndpointError, match="is not an address") as caught:
        parse_address(text)
    assert SECRET not in caught.value.message + caught.value.hint
    assert "\n" not in caught.value.message


def test_a_command_that_goes_on_keeps_the_version_of_the_api_and_no_key():
    address = parse_address(f"http://me:{SECRET}@host/v1?api-version=2024-06-01&api-key={SECRET}&sig=abcdef")
    assert address.shown == "http://host/v1?api-version=2024-06-01"
    assert SECRET not in scrub(f"no such key {SECRET} at me:{SECRET}@host?api-key={SECRET}", address.secrets)


def test_user_and_password_are_sent_decoded_and_the_query_with_every_request():
    with FaultyProxy() as server:
        host = server.url.removeprefix("http://")
        ask(settings(f"me:s3%40%2Fcret@{host}/v1?api-version=1&api_key={SECRET}"))
    paths = {each.path for each in server.received}
    query = f"api-version=1&api_key={SECRET}"
    assert {f"/v1/models?{query}", f"/v1/chat/completions?{query}"} <= paths
    basic = base64.b64encode(b"me:s3@/cret").decode()
    assert {each.headers["authorization"] for each in server.received} == {f"Basic {basic}"}


def test_a_server_that_repeats_a_password_does_not_bring_it_into_a_message():
    says = f"no access for me:{SECRET} with key=abcdefgh"
    with FaultyProxy(lambda number, path: refuse(400, says) if number else None) as server:
        host = server.url.removeprefix("http://")
        [response] = ask(settings(f"http://me:{SECRET}@{host}/v1?key=abcdefgh"), [LIST])
    assert response.failure is not None
    assert response.failure.message == "HTTP 400: no access for … with key=…"


def test_a_password_and_an_api_key_exclude_each_other():
    with pytest.raises(EndpointError, match="only one of them can be sent") as caught:
        ask(settings(f"http://me:{SECRET}@127.0.0.1:9", api_key="sk-very-secret"))
    shown = caught.value.message + caught.value.hint
    assert "TAGLLM_API_KEY" in shown
    assert not any(secret in shown for secret in (SECRET, "sk-very-secret"))
