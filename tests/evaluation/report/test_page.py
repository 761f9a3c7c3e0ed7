"""The report in Chromium: filters, keys, curves, light and dark, hostile names, five thousand images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page

from tagllm_cli.evaluation.report.report import ReportOptions, write_report
from tests.bench.tables import tables
from tests.evaluation.report.tables import HOSTILE, HOSTILE_FILE, other, small
from tests.support.browser import Browser, browser

__all__ = ["browser"]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of six images with a truth, beside another table."""
    folder = tmp_path_factory.mktemp("small")
    table, truth = small(folder)
    write_report(table, folder / "report.html", None, ReportOptions(truth=truth, others=[other(folder)]))
    return folder / "report.html"


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with a gallery of five thousand images."""
    folder = tmp_path_factory.mktemp("large")
    table, truth = tables(folder, images=6000)
    write_report(table, folder / "report.html", None, ReportOptions(truth=truth, images=5000))
    return folder / "report.html"


@pytest.fixture
def tab(page: Path, browser: Browser) -> Iterator[Page]:
    with browser.open(page) as tab:
        yield tab


def names(tab: Page) -> list[str]:
    """The names of the images that are shown."""
    return [text or "" for text in tab.locator(".card .head bdi").all_text_contents()]


ALL = ["right.jpg", "wrong.jpg", "missed.jpg", "undecided.jpg", HOSTILE_FILE, "broken.jpg"]


def test_hostile_names_are_text(tab: Page) -> None:
    assert names(tab) == ALL
    assert HOSTILE in (tab.locator("#label-table").text_content() or "")
    assert tab.locator("#cards img").count() == 5  # the one that failed has a reason
    assert tab.locator("img:not([src^='data:image/webp'])").count() == 0
    assert tab.evaluate("[...document.scripts].length") == 2
    tab.locator(".card", has_text="onmouseover").hover()
    tab.locator(".card", has_text="onmouseover").click()
    assert "alert(4)" in (tab.locator("dialog .concept").text_content() or "")


def test_no_table_is_wider_than_its_panel_on_a_wide_page(tab: Page) -> None:
    wide = "[...document.querySelectorAll('.scroll')].filter((each) => each.scrollWidth > each.clientWidth + 1).length"
    assert tab.locator("#compared .panel").count() == 2
    assert tab.evaluate(wide) == 0


def test_filters_show_the_images_that_match(tab: Page) -> None:
    kinds = {
        "error": ["wrong.jpg", "missed.jpg", "undecided.jpg"],
        "wrong": ["wrong.jpg"],
        "missed": ["missed.jpg", "undecided.jpg"],
        "differs": ["wrong.jpg", "missed.jpg"],
        "": ALL,
    }
    for kind, expected in kinds.items():
        tab.select_option("#by-kind", kind)
        assert names(tab) == expected, kind
    tab.select_option("#by-label", label="cup")
    assert names(tab) == ["wrong.jpg", "undecided.jpg"]
    tab.select_option("#by-kind", "right")
    assert names(tab) == ["wrong.jpg"]
    tab.click("#clear")
    tab.fill("#from", "0.5")
    tab.fill("#to", "0.6")
    assert names(tab) == [HOSTILE_FILE]
    tab.click("#clear")
    tab.fill("#search", "RIGHT")
    assert names(tab) == ["right.jpg"]
    assert tab.locator("#found").text_content() == "1 of 6 images"
    tab.fill("#search", "nothing like it")
    assert "No image matches" in (tab.locator("#cards").text_content() or "")
    tab.click("#clear")
    tab.select_option("#order", "errors")
    assert names(tab)[0] == "missed.jpg"


def test_a_label_of_the_table_chooses_its_images_and_its_curve(tab: Page) -> None:
    tab.get_by_role("button", name="cup", exact=True).click()
    assert names(tab) == ["wrong.jpg", "undecided.jpg"]
    assert "Dashed with points: the chosen label" in (tab.locator("#plots").text_content() or "")
    tab.get_by_role("button", name="cup", exact=True).click()
    assert names(tab) == ALL


def test_the_label_table_is_worst_first_and_sorts(tab: Page) -> None:
    def labels() -> list[str]:
        return [text[:3] for text in tab.locator("#label-table td.name").all_text_contents()]

    assert labels() == ["dog", "cat", "cup", "<im"]
    tab.click("#label-table th button:text-is('label')")
    assert labels() == ["<im", "cat", "cup", "dog"]
    tab.click("#label-table th button:text-is('label')")
    assert labels() == ["dog", "cup", "cat", "<im"]


def test_keys_move_open_and_close(tab: Page) -> None:
    def current() -> str:
        return tab.locator(".card.current bdi").first.text_content() or ""

    tab.keyboard.press("j")
    tab.keyboard.press("j")
    assert current() == "wrong.jpg"
    tab.keyboard.press("k")
    assert current() == "right.jpg"
    tab.keyboard.press("Enter")
    assert tab.locator("dialog .top bdi").text_content() == "right.jpg"
    tab.keyboard.press("ArrowRight")
    assert tab.locator("dialog .top bdi").text_content() == "wrong.jpg"
    rows = [text.strip() for text in tab.locator("dialog tbody tr:not(:has(.concept))").all_text_contents()]
    assert rows[0].startswith("✕dogyes0.800no")
    tab.keyboard.press("Escape")
    assert tab.locator("dialog[open]").count() == 0
    assert current() == "wrong.jpg"
    tab.keyboard.press("e")
    assert tab.locator("#by-kind").input_value() == "error"
    tab.keyboard.press("/")
    tab.keyboard.type("je")
    assert tab.locator("#search").input_value() == "je"
    assert tab.locator("#by-kind").input_value() == "error"


def test_dark_mode_redraws_the_curves(page: Path, browser: Browser) -> None:
    ink = "document.querySelector('canvas').getContext('2d').getImageData(0, 0, 400, 200).data.join()"
    with browser.open(page) as tab:
        light = tab.evaluate(ink)
        tab.click("#theme")
        assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 26)"
        assert tab.evaluate(ink) != light


def test_nothing_is_wider_than_a_phone(page: Path, browser: Browser) -> None:
    with browser.open(page, width=390) as tab:
        assert tab.evaluate("document.documentElement.scrollWidth") == 390
        assert names(tab) == ALL
        tab.locator(".card").first.click()
        box = tab.locator("dialog").bounding_box()
        assert box is not None
        assert box["width"] <= 390


def test_five_thousand_images_are_drawn_as_they_come_into_view(large: Path, browser: Browser) -> None:
    with browser.open(large) as tab:
        assert tab.locator("#found").text_content() == "5,000 of 5,000 images"
        assert tab.locator(".card").count() <= 120
        for _ in range(3):
            before = tab.locator(".card").count()
            tab.locator("#end").scroll_into_view_if_needed()
            tab.wait_for_function("before => document.querySelectorAll('.card').length > before", arg=before)
        tab.select_option("#by-kind", "error")
        found = tab.locator("#found").text_content() or ""
        assert 0 < int(found.split()[0].replace(",", "")) < 5000
        assert tab.locator(".card").count() <= 120
        assert tab.locator(".chip.wrong, .chip.missed").count() >= tab.locator(".card").count()
