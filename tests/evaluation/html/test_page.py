"""A page is one file that loads nothing, and text of a table never runs in it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tagllm_cli.evaluation.html.page import embedded_json, render
from tests.support.browser import Browser, browser

__all__ = ["browser"]

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\u2028'\"&amp;\u202e.jpg"


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """A page whose script shows the data that it carries."""
    folder = tmp_path / "shown"
    folder.mkdir()
    (folder / "shown.html").write_text(
        '{% extends "base.html" %}{% block content %}<main><p id="given">{{ name }}</p><p id="shown"></p></main>'
        "{% endblock %}"
    )
    (folder / "shown.css").write_text("#shown { color: rgb(1, 2, 3); }")
    (folder / "shown.js").write_text('document.getElementById("shown").textContent = pageData().name;')
    out = tmp_path / "shown.html"
    text = render(folder, "shown", {"name": HOSTILE}, {"title": f"about {HOSTILE}", "name": HOSTILE})
    out.write_text(text, encoding="utf-8")
    return out


def test_text_that_would_end_the_script_stays_data() -> None:
    text = embedded_json({HOSTILE: [HOSTILE]})
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == {HOSTILE: [HOSTILE]}


def test_data_that_no_browser_could_read_is_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        embedded_json([float("nan")])


@pytest.mark.slow
def test_hostile_text_is_shown_and_does_nothing(page: Path, browser: Browser) -> None:
    with browser.open(page) as tab:
        assert tab.locator("#shown").text_content() == HOSTILE
        assert tab.locator("#given").text_content() == HOSTILE
        assert tab.title().startswith("about </script>")
        assert tab.locator("img").count() == 0
        assert tab.locator("#shown").evaluate("each => getComputedStyle(each).color") == "rgb(1, 2, 3)"


@pytest.mark.slow
def test_light_and_dark_follow_the_system_until_one_is_chosen(page: Path, browser: Browser) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    with browser.open(page) as tab:
        light = tab.evaluate(background)
        tab.click("#theme")
        dark = tab.evaluate(background)
        tab.reload()
        assert tab.evaluate(background) == dark
    with browser.open(page, dark=True) as tab:
        assert tab.evaluate(background) == dark != light


@pytest.mark.slow
@pytest.mark.parametrize(
    "attempt",
    [
        "fetch('https://example.org').catch(() => 0)",
        "document.body.append(Object.assign(new Image(), {src: 'https://example.org/a.png'}))",
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'document.title = 1'}))",
    ],
)
def test_the_policy_forbids_the_network_and_other_scripts(page: Path, browser: Browser, attempt: str) -> None:
    with pytest.raises(AssertionError, match="Content Security Policy"):
        _evaluate(browser, page, attempt)


def _evaluate(browser: Browser, page: Path, script: str) -> None:
    with browser.open(page) as tab:
        tab.evaluate(f"() => {{ {script} }}")
        tab.wait_for_timeout(100)
