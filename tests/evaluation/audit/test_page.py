"""The page of an audit in Chromium: answers by key and by touch, kept, undone, saved, and estimated from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Page

from tagllm_cli.evaluation.audit.create import create_audit
from tagllm_cli.evaluation.audit.design import load_design
from tagllm_cli.evaluation.audit.summary import evaluate_audit
from tagllm_cli.store.table import open_table, write_table
from tagllm_cli.vocabulary.model import Label, Vocabulary
from tests.evaluation.audit.folder import Audited, audited
from tests.support.browser import Browser, browser

__all__ = ["browser"]
pytestmark = pytest.mark.slow

HOSTILE = "</script><img src=x onerror=alert(1)>'\"&amp;\u202e"


@pytest.fixture(scope="module")
def some(tmp_path_factory: pytest.TempPathFactory) -> Audited:
    """An audit of 60 pairs, with pictures."""
    return audited(tmp_path_factory.mktemp("audited"), paint=True)


def shown(tab: Page) -> tuple[str, str]:
    """Return image and label of the pair that is shown."""
    return tab.locator("#name").text_content() or "", tab.locator("#label").text_content() or ""


def done(tab: Page) -> int:
    return int(tab.locator("#done").text_content() or "")


def test_a_person_answers_by_key_saves_and_gets_the_figures(some: Audited, browser: Browser) -> None:
    with browser.open(some.audit / "audit.html") as tab:
        for _ in range(60):
            image, label = shown(tab)
            assert tab.locator("#image").evaluate("each => each.complete && each.naturalWidth") == 64
            tab.keyboard.press("y" if label in some.true[image] else "n")
        assert "All pairs are answered" in (tab.locator("#said").text_content() or "")
        with tab.expect_download() as saved:
            tab.click("#download")
        assert saved.value.suggested_filename == "answers.csv"
        saved.value.save_as(some.audit / "answers.csv")
    typed = evaluate_audit(some.table, some.audit / "answers.csv")
    written = evaluate_audit(some.table, some.answer("filled.csv"))
    assert replace(typed, audit=written.audit) == written
    assert typed.yes + typed.no == 60


def test_pairs_are_shown_in_the_order_in_which_they_were_drawn(some: Audited, browser: Browser) -> None:
    pairs = load_design(some.audit).pairs
    with browser.open(some.audit / "audit.html") as tab:
        for pair in pairs[:5]:
            assert shown(tab) == (pair.image, pair.label)
            tab.keyboard.press("ArrowRight")


def test_answers_survive_a_reload_and_are_undone(some: Audited, browser: Browser) -> None:
    with browser.open(some.audit / "audit.html") as tab:
        first = shown(tab)
        for key in "ynu":
            tab.keyboard.press(key)
        fourth = shown(tab)
        tab.reload()
        assert (done(tab), shown(tab)) == (3, fourth)  # goes on where nothing is answered yet
        tab.keyboard.press("y")
        tab.keyboard.press("z")
        assert (done(tab), shown(tab)) == (3, fourth)
        for _ in range(3):
            tab.keyboard.press("ArrowLeft")
        assert shown(tab) == first
        assert tab.locator("[data-answer=yes]").get_attribute("aria-pressed") == "true"
        tab.keyboard.press("n")
        assert (done(tab), shown(tab)) == (3, fourth)  # the next one that is open
        tab.reload()
        assert done(tab) == 3


def test_j_goes_to_what_was_passed_over(some: Audited, browser: Browser) -> None:
    with browser.open(some.audit / "audit.html") as tab:
        tab.keyboard.press("ArrowRight")
        second = shown(tab)
        tab.keyboard.press("ArrowRight")
        for _ in range(58):
            tab.keyboard.press("u")
        assert done(tab) == 58
        tab.keyboard.press("y")  # the first one
        assert shown(tab) == second
        tab.keyboard.press("ArrowLeft")
        tab.keyboard.press("j")
        assert shown(tab) == second
        assert tab.locator("#open").is_enabled()


def test_two_audits_in_one_browser_keep_their_answers_apart(some: Audited, browser: Browser, tmp_path: Path) -> None:
    create_audit(some.table, tmp_path / "second", size=60, seed=1)
    with browser.open(some.audit / "audit.html") as tab:
        tab.keyboard.press("y")
        kept = tab.evaluate("Object.entries(localStorage)")
    with browser.open(tmp_path / "second" / "audit.html") as tab:
        tab.evaluate("kept => kept.forEach(([key, value]) => localStorage.setItem(key, value))", kept)
        tab.reload()
        assert (len(kept), done(tab)) == (1, 0)


def test_a_phone_has_buttons_to_touch_and_nothing_beside_the_screen(some: Audited, browser: Browser) -> None:
    with browser.open(some.audit / "audit.html", width=390, height=844) as tab:
        for answer in ("yes", "no", "unsure"):
            button = tab.locator(f"[data-answer={answer}]")
            box = button.bounding_box()
            assert box is not None
            assert box["height"] >= 44
            assert 0 <= box["x"] < box["x"] + box["width"] <= 390
            assert box["y"] + box["height"] <= 844
            button.click()
        assert done(tab) == 3
        assert tab.evaluate("document.documentElement.scrollWidth") == 390


def test_the_card_is_shown_and_nothing_of_the_model(some: Audited, browser: Browser) -> None:
    with browser.open(some.audit / "audit.html", dark=True) as tab:
        while shown(tab)[1] != "dog":
            tab.keyboard.press("ArrowRight")
        assert tab.locator("#card").text_content() == "Here it means a domestic dog, not a wolf."
        assert tab.locator("#similar").text_content() == "Not to be confused with: cat"
        text = (tab.locator("body").text_content() or "").lower()
        assert not any(word in text.split('"pairs"')[0] for word in ("probability", "predicted", "score"))


def test_hostile_names_are_shown_saved_and_do_nothing(some: Audited, browser: Browser, tmp_path: Path) -> None:
    label = f"=cmd|{HOSTILE}"
    rows = [
        replace(
            row,
            image_id=f"{place}{HOSTILE}",
            labels=tuple(replace(each, name=label if each.name == "cat" else each.name) for each in row.labels or ()),
        )
        for place, row in enumerate(some.rows)
    ]
    info = open_table(some.table).info
    hostile = Vocabulary("v", (Label(label, description=HOSTILE), *info.vocabulary.labels[1:]))
    write_table(tmp_path / "labels.parquet", replace(info, vocabulary=hostile), rows)
    create_audit(tmp_path / "labels.parquet", tmp_path / "audit", size=40)
    pairs = load_design(tmp_path / "audit").pairs
    with browser.open(tmp_path / "audit" / "audit.html") as tab:
        for pair in pairs:
            assert shown(tab) == (pair.image, pair.label)
            tab.keyboard.press("n")
        assert tab.locator("img").count() == 1
        with tab.expect_download() as saved:
            tab.click("#download")
        saved.value.save_as(tmp_path / "audit" / "answers.csv")
    text = (tmp_path / "audit" / "answers.csv").read_text(encoding="utf-8-sig")
    assert f'"\'=cmd|{HOSTILE.replace(chr(34), chr(34) * 2)}"' in text
    found = evaluate_audit(tmp_path / "labels.parquet", tmp_path / "audit" / "answers.csv")
    assert (found.no, found.warnings) == (40, ())


def test_without_storage_the_page_says_so(some: Audited, browser: Browser) -> None:
    with browser.open(some.audit / "audit.html") as tab:
        tab.evaluate("void (Storage.prototype.setItem = () => { throw new Error('full'); })")
        tab.keyboard.press("y")
        assert "keeps nothing" in (tab.locator("#said").text_content() or "")
        assert done(tab) == 1
