"""The page of `tagllm diff` in Chromium: filters, light and dark, phones, hostile names, pictures of both sources."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Page

from tagllm_cli.errors import UsageError
from tagllm_cli.evaluation.diff.diff import DiffOptions, diff_tables
from tagllm_cli.evaluation.report.report import ReportOptions, write_report
from tests.evaluation.diff.worlds import rewritten
from tests.evaluation.report.tables import FAILED, HOSTILE, HOSTILE_FILE, Said, write
from tests.support.browser import Browser, browser

__all__ = ["browser"]

BEFORE: dict[str, Said] = {
    "same.jpg": [("cat", 0.9), ("dog", 0.1)],
    "turned.jpg": [("cat", 0.9), ("dog", 0.2), ("cup", 0.8)],
    "gone.jpg": [("cat", 0.7)],
    "old name.jpg": [("dog", 0.3)],
    "broken.jpg": [("cup", 0.9)],
    HOSTILE_FILE: [(HOSTILE, 0.55)],
}
AFTER: dict[str, Said] = {
    "same.jpg": [("cat", 0.8), ("dog", 0.3)],
    "turned.jpg": [("cat", 0.1), ("dog", None), ("cup", 0.9)],
    "new name.jpg": [("dog", 0.95)],
    "new.jpg": [("cup", 0.9)],
    HOSTILE_FILE: [(HOSTILE, 0.45)],
}


def tables(folder: Path) -> tuple[Path, Path]:
    """Write two tables of six images each, which differ in most; return their paths."""
    first = write(folder / "a.parquet", folder / "images", BEFORE)
    images = folder / "images"
    (images / "new name.jpg").write_bytes((images / "old name.jpg").read_bytes())
    second = write(folder / "b.parquet", images, AFTER, [FAILED])
    rewritten(second, lambda row: replace(row, uri=row.image_id))
    return first, second


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    first, second = tables(folder)
    (folder / "images/broken.jpg").write_bytes(b"no image")
    summary = diff_tables(first, second, DiffOptions(page=folder / "diff.html"))
    assert summary.images["renamed"] == 1
    assert any("without a picture: 1, for" in warning for warning in summary.warnings)
    return folder / "diff.html"


@pytest.fixture
def tab(page: Path, browser: Browser) -> Iterator[Page]:
    with browser.open(page) as tab:
        yield tab


def names(tab: Page) -> list[str]:
    return [text or "" for text in tab.locator(".card .head bdi").all_text_contents()]


ALL = {"turned.jpg", "gone.jpg", "new name.jpg", "new.jpg", "broken.jpg", HOSTILE_FILE}

pytestmark = pytest.mark.slow


def test_every_image_with_a_flip_is_shown_with_what_both_tables_say(tab: Page) -> None:
    assert set(names(tab)) == ALL
    card = tab.locator(".card", has_text="turned.jpg")
    assert card.locator(".flip").all_text_contents() == [
        "− cat yes 0.90 → no 0.10model's answer",
        "? dog no 0.20 → unknownmodel's answer",
    ]
    assert "both say cup" in (card.text_content() or "")
    assert "was old name.jpg" in (tab.locator(".card", has_text="new name.jpg").text_content() or "")
    assert "B: truncated_file: <b>it ends early</b>" in (
        tab.locator(".card", has_text="broken.jpg").text_content() or ""
    )


def test_hostile_names_are_text(tab: Page) -> None:
    assert HOSTILE_FILE in names(tab)
    assert HOSTILE in (tab.locator("#label-table").text_content() or "")
    assert HOSTILE in (tab.locator("#by-label").text_content() or "")
    assert tab.locator("#cards img").count() == 5
    assert tab.locator("img:not([src^='data:image/webp'])").count() == 0
    assert tab.evaluate("[...document.scripts].length") == 2
    tab.locator(".card", has_text="onmouseover").hover()


def test_filters_by_label_change_cause_and_name(tab: Page) -> None:
    tab.select_option("#by-label", label="cup")
    assert set(names(tab)) == {"broken.jpg", "new.jpg"}
    tab.select_option("#by-cause", label="failure")
    assert names(tab) == ["broken.jpg"]
    assert tab.locator("#found").text_content() == "1 of 6 images"
    tab.click("#clear")
    tab.select_option("#by-kind", "added")
    assert set(names(tab)) == {"new name.jpg", "new.jpg"}
    tab.click("#clear")
    tab.select_option("#by-cause", label="image removed")
    assert names(tab) == ["gone.jpg"]
    tab.click("#clear")
    tab.keyboard.press("/")
    tab.keyboard.type("OLD NAME")
    assert names(tab) == ["new name.jpg"]
    tab.fill("#search", "nothing like it")
    assert "No image matches" in (tab.locator("#cards").text_content() or "")
    tab.click("#clear")
    assert set(names(tab)) == ALL


def test_a_label_of_the_table_shows_its_flips_and_columns_sort(tab: Page) -> None:
    tab.get_by_role("button", name="dog", exact=True).click()
    assert set(names(tab)) == {"turned.jpg", "new name.jpg"}
    assert tab.locator("tr.chosen td.name").text_content() == "dog"
    assert tab.locator(".flip.apart").count() == 1  # of turned.jpg, the flip of another label
    tab.get_by_role("button", name="dog", exact=True).click()
    assert set(names(tab)) == ALL
    tab.click("#label-table th button:text-is('label')")
    assert tab.locator("#label-table td.name").all_text_contents() == [HOSTILE, "cat", "cup", "dog"]


def test_dark_and_narrow(page: Path, browser: Browser) -> None:
    with browser.open(page, width=390, dark=True) as tab:
        assert tab.evaluate("document.documentElement.scrollWidth") == 390
        assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 26)"
        assert set(names(tab)) == ALL


def test_tables_that_agree_have_a_page_that_says_so(tmp_path: Path, browser: Browser) -> None:
    first, _ = tables(tmp_path)
    assert not diff_tables(first, first, DiffOptions(page=tmp_path / "same.html")).warnings
    with browser.open(tmp_path / "same.html") as tab:
        assert "No label differs." in (tab.locator("#cards").text_content() or "")


def test_only_a_page_of_ours_is_replaced_and_the_images_may_have_moved(tmp_path: Path) -> None:
    first, second = tables(tmp_path)
    (tmp_path / "images").rename(tmp_path / "moved")
    page = tmp_path / "page.html"
    write_report(first, page, None, ReportOptions())
    options = DiffOptions(page=page, root=str(tmp_path / "moved"))
    assert diff_tables(first, second, options).warnings == []
    with pytest.raises(UsageError, match="nowhere"):
        diff_tables(first, second, replace(options, root=str(tmp_path / "nowhere")))
    page.write_text("mine")
    with pytest.raises(UsageError, match="holds something else"):
        diff_tables(first, second, options)
