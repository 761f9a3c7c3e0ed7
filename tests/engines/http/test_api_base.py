"""Every address that people paste leads to the API; keys go out in the header that is read, and never into messages."""

from __future__ import annotations

import pytest

from tagllm_cli.engines.http.address import parse_address
from tagllm_cli.engines.http.api_base import (
    base_urls,
    clean_api_key,
    deployed_model,
    key_headers,
    redirected_base,
    without_secrets,
)
from tagllm_cli.errors import EndpointError

AZURE = "https://mine.openai.azure.com/openai/deployments/gpt-4o"
VERSION = "api-version=2024-10-21"


@pytest.mark.parametrize(
    ("url", "likeliest"),
    [
        ("localhost:8000", "http://localhost:8000/v1"),
        ("10.0.0.7:8000/", "http://10.0.0.7:8000/v1"),
        ("http://[::1]:8000", "http://[::1]:8000/v1"),
        ("http://localhost:11434", "http://localhost:11434/v1"),
        ("http://localhost:11434/api/chat", "http://localhost:11434/v1"),
        ("http://localhost:11434/api/generate/", "http://localhost:11434/v1"),
        ("http://localhost:1234/v1", "http://localhost:1234/v1"),
        ("http://localhost:1234/v1/", "http://localhost:1234/v1"),
        ("http://localhost:1234/api/v0/models", "http://localhost:1234/api/v0"),
        ("http://localhost:8000/v1/models", "http://localhost:8000/v1"),
        ("http://localhost:8000/v1/chat/completions", "http://localhost:8000/v1"),
        ("http://localhost:8000/v1/completions", "http://localhost:8000/v1"),
        ("https://api.openai.com/v1", "https://api.openai.com/v1"),
        ("https://api.openai.com/v1/responses", "https://api.openai.com/v1"),
        ("https://openrouter.ai/api/v1", "https://openrouter.ai/api/v1"),
        ("https://openrouter.ai/api", "https://openrouter.ai/api/v1"),
        ("https://gateway/team/llm", "https://gateway/team/llm/v1"),
        ("https://gateway/team/llm/v1?key=abc", "https://gateway/team/llm/v1?key=abc"),
        ("https://gateway/team?key=abc&b=/v1", "https://gateway/team/v1?key=abc&b=/v1"),
        ("https://gateway/llm/chat/completions", "https://gateway/llm"),
        ("http://localhost:8000/v1#top", "http://localhost:8000/v1"),
        (" http://localhost:8000/v1\n", "http://localhost:8000/v1"),
        (f"{AZURE}?{VERSION}", f"{AZURE}?{VERSION}"),
        (f"{AZURE}/?{VERSION}", f"{AZURE}?{VERSION}"),
        (f"{AZURE}/chat/completions?{VERSION}", f"{AZURE}?{VERSION}"),
        (
            f"http://proxy/azure/openai/deployments/gpt?{VERSION}",
            f"http://proxy/azure/openai/deployments/gpt?{VERSION}",
        ),
        ("https://mine.openai.azure.com", "https://mine.openai.azure.com/openai/v1"),
        ("https://mine.openai.azure.com/openai/", "https://mine.openai.azure.com/openai/v1"),
        ("https://mine.openai.azure.com/openai/v1/", "https://mine.openai.azure.com/openai/v1"),
        (
            f"https://mine.services.ai.azure.com/models/chat/completions?{VERSION}",
            f"https://mine.services.ai.azure.com/models?{VERSION}",
        ),
    ],
)
def test_what_an_address_means(url: str, likeliest: str):
    address = parse_address(url)
    assert address.with_query(base_urls(address.url)[0]) == likeliest


@pytest.mark.parametrize("url", [f"{AZURE}?{VERSION}", "http://h/v1", "https://mine.openai.azure.com"])
def test_an_exact_address_is_the_only_one(url: str):
    assert len(base_urls(parse_address(url).url)) == 1


def test_an_address_without_a_version_is_tried_with_and_without_one():
    assert base_urls("http://h/llm") == ("http://h/llm/v1", "http://h/llm")
    assert base_urls("http://h/chat/completions") == ("http://h", "http://h/v1")


def test_the_deployment_is_the_model_of_its_address():
    assert deployed_model(AZURE) == "gpt-4o"
    assert deployed_model("https://mine.openai.azure.com/openai/v1") is None


@pytest.mark.parametrize(
    ("base", "key", "headers"),
    [
        ("http://localhost:8000/v1", "sk-1", {"Authorization": "Bearer sk-1"}),
        (AZURE, "0123", {"api-key": "0123"}),
        ("https://mine.openai.azure.com/openai/v1", "0123", {"api-key": "0123"}),
        ("https://mine.openai.azure.us/openai/v1", "0123", {"api-key": "0123"}),
        ("https://mine.services.ai.azure.com/models", "0123", {"api-key": "0123"}),
        (AZURE, "eyJhbGciOi.eyJhdWQi.c2ln", {"Authorization": "Bearer eyJhbGciOi.eyJhdWQi.c2ln"}),
        ("https://apim/openai/deployments/gpt", "0123", {"Authorization": "Bearer 0123", "api-key": "0123"}),
        ("https://openai.azure.com.example.org/v1", "0123", {"Authorization": "Bearer 0123"}),
        (AZURE, None, {}),
    ],
)
def test_a_key_travels_in_the_header_that_the_server_reads(base: str, key: str | None, headers: dict[str, str]):
    assert key_headers(base, key) == headers


@pytest.mark.parametrize("key", ["sk-example\r", " sk-example\n", "sk-example\t"])
def test_white_space_around_a_key_is_stripped(key: str):
    assert clean_api_key(key) == "sk-example"


@pytest.mark.parametrize("key", ["“sk-example”", "sk-exa\nmple", "sk-\x7fexample", "sk-example…", "\ufeffsk-example"])
def test_a_key_that_no_header_can_carry_is_refused_without_showing_it(key: str):
    with pytest.raises(EndpointError, match="characters that cannot be sent") as caught:
        clean_api_key(key)
    assert "example" not in caught.value.message + caught.value.hint
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("key", [None, "", " \n"])
def test_an_empty_key_is_none(key: str | None):
    assert clean_api_key(key) is None


@pytest.mark.parametrize(
    ("base", "final", "new"),
    [
        ("http://h/v1", "https://h/v1/models", "https://h/v1"),
        ("http://h:8000/v1", "https://h/api/v1/models", "https://h/api/v1"),
        ("http://u:p@h/v1", "https://h/v1/models", "https://u:p@h/v1"),
        ("http://h/v1", "http://h:9000/v1/models?x=1", "http://h:9000/v1"),
        ("http://h/v1", "http://h/new/v1/models?key=1", "http://h/new/v1"),
        ("https://h/v1", "http://h/v1/models", None),
        ("http://h/v1", "http://other/v1/models", None),
        ("http://h/v1", "https://h/login", None),
    ],
)
def test_a_redirect_moves_the_api_but_not_to_another_host(base: str, final: str, new: str | None):
    assert redirected_base(base, final) == new


def test_messages_show_no_secret_of_an_address():
    assert without_secrets("http://me:s3cret@h:1/v1?key=s3cret") == "http://h:1/v1"
