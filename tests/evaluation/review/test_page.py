"""The page of a review in Chromium: decided by key and touch, kept, taken back, saved, and read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from tagllm_cli.evaluation.human_labels.base import HumanLabels
from tagllm_cli.evaluation.human_labels.readers.page_answers import is_review, read_review
from tagllm_cli.evaluation.report.subject import read_subject
from tagllm_cli.evaluation.review.create import ReviewOptions, choose, create_review
from tagllm_cli.evaluation.truth.base import TableContext, TruthFile
from tagllm_cli.records import Row
from tagllm_cli.store.table import open_table, write_table
from tagllm_cli.vocabulary.model import Label, Vocabulary
from tests.evaluation.review.tables import decided, painted, save
from tests.support.browser import Browser, browser
from tests.support.command_line import tagllm
from tests.support.workspace import Workspace

__all__ = ["browser"]
pytestmark = pytest.mark.slow

HOSTILE = "</script><img src=x onerror=alert(1)>'\"&amp;\u202e"


@pytest.fixture(scope="module")
def some(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of 30 images with pictures, and a page of 40 pairs."""
    folder = tmp_path_factory.mktemp("reviewed")
    path, _ = painted(folder)
    create_review(path, folder / "review.html", ReviewOptions(limit=40))
    return path


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A run of 12 images with its evidence, and a page of 30 pairs."""
    work = Workspace(tmp_path_factory.mktemp("run"), 12)
    in_thread(work.both)
    create_review(work.labels_out, work.labels_out.with_name("review.html"), ReviewOptions(limit=30))
    return work


def in_thread(run: Callable[[], object]) -> None:
    """Run something with a loop of its own: Playwright's runs in this thread."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(run).result()


def page_of(table: Path) -> Path:
    return table.with_name("review.html")


def shown(tab: Page) -> tuple[str, str]:
    """Return image and label of the pair that is shown."""
    return tab.locator("#name").text_content() or "", tab.locator("#label").text_content() or ""


def done(tab: Page) -> int:
    return int(tab.locator("#done").text_content() or "")


def start(tab: Page, name: str = "Ann") -> None:
    tab.fill("#who", name)
    tab.keyboard.press("Enter")


def press(tab: Page, keys: str) -> None:
    for key in keys:
        tab.keyboard.press(key)


def saved(tab: Page, path: Path) -> HumanLabels:
    """Save the decisions, and read the file."""
    with tab.expect_download() as download:
        tab.click("#download")
    assert download.value.suggested_filename == "decisions.jsonl"
    download.value.save_as(path)
    assert is_review(TruthFile(path))
    return read_review(TruthFile(path))


def said(found: HumanLabels) -> Mapping[tuple[str, str], str]:
    return {(each.image, each.label): each.decision for each in found.statements}


def test_a_person_decides_by_key_reloads_goes_on_and_saves(some: Path, browser: Browser, tmp_path: Path) -> None:
    began = datetime.now(UTC)
    given: dict[tuple[str, str], str] = {}
    words = {"y": "yes", "n": "no", "u": "unknown"}
    with browser.open(page_of(some)) as tab:
        start(tab)
        for number in range(20):
            key = "ynu"[number % 3]
            assert shown(tab) not in given
            given[shown(tab)] = words[key]
            tab.keyboard.press(key)
        tab.reload()
        assert done(tab) == 20
        assert not tab.locator("#ask").is_visible()
        for key in "nny":
            given[shown(tab)] = words[key]
            tab.keyboard.press(key)
        found = saved(tab, tmp_path / "decisions.jsonl")
        assert "Saved 23 decisions" in (tab.locator("#said").text_content() or "")
    assert said(found) == given
    fingerprints = {row.image_id: row.fingerprint.hex() for row in open_table(some).rows()}
    for each in found.statements:
        assert (each.who, each.fingerprint) == ("Ann", fingerprints[each.image])
        assert each.when is not None
        assert began.timestamp() - 1 <= each.when / 1e6 <= datetime.now(UTC).timestamp()
    context = TableContext([row.image_id for row in open_table(some).rows()], open_table(some).info.vocabulary)
    assert read_review(TruthFile(tmp_path / "decisions.jsonl", table=context)).warnings == ()


@pytest.fixture(scope="module")
def decided_by_key(work: Workspace, browser: Browser) -> Mapping[tuple[str, str], str]:
    """20 pairs, decided by key, with a reload between them; the file lies beside the table."""
    given: dict[tuple[str, str], str] = {}
    with browser.open(work.labels_out.with_name("review.html")) as tab:
        start(tab)
        for number in range(20):
            key, word = (("y", "yes"), ("n", "no"), ("u", "unknown"))[number % 3]
            given[shown(tab)] = word
            tab.keyboard.press(key)
            if number == 10:
                tab.reload()
        saved(tab, work.labels_out.with_name("decisions.jsonl"))
    return given


def test_decisions_are_imported_and_the_next_run_keeps_them(
    work: Workspace, decided_by_key: Mapping[tuple[str, str], str]
) -> None:
    table = work.labels_out
    command = f"import {table} {table.with_name('decisions.jsonl')}"
    taken = tagllm(command)
    assert taken.exit_code == 0, taken.output

    def by_people() -> dict[tuple[str, str], str]:
        listed = [(row.image_id, each) for row in open_table(table).rows() for each in row.labels or ()]
        return {(image, each.name): str(each.decision) for image, each in listed if each.source == "human"}

    assert by_people() == decided_by_key
    create_review(table, table.with_name("second.html"), ReviewOptions(limit=1000))
    asked = choose(read_subject(table, None, ())).pairs
    assert not set(asked) & decided_by_key.keys()
    assert '"recorded": 0' in tagllm(f"{command} --json").stdout
    first = table.read_bytes()
    in_thread(work.disambiguate)
    assert (by_people(), table.read_bytes()) == (decided_by_key, first)


def test_nothing_is_decided_without_a_name(some: Path, browser: Browser) -> None:
    with browser.open(page_of(some)) as tab:
        tab.keyboard.press("y")
        assert done(tab) == 0
        assert "name" in (tab.locator("#said").text_content() or "")
        assert tab.locator("#who").evaluate("each => each === document.activeElement")
        tab.keyboard.type("yn")  # a name, no answers
        tab.keyboard.press("Enter")
        tab.keyboard.press("y")
        assert (done(tab), tab.locator("#personName").text_content()) == (1, "yn")


def test_keys_skip_go_back_undo_and_find_what_is_open(some: Path, browser: Browser) -> None:
    with browser.open(page_of(some)) as tab:
        start(tab)
        first = shown(tab)
        tab.keyboard.press("s")
        second = shown(tab)
        press(tab, "yy")
        assert done(tab) == 2
        tab.keyboard.press("z")
        assert done(tab) == 1
        press(tab, "z")
        assert (done(tab), shown(tab)) == (0, second)
        tab.keyboard.press("ArrowLeft")
        assert shown(tab) == first
        tab.keyboard.press("n")
        tab.keyboard.press("ArrowLeft")
        assert tab.locator(".answers [data-answer=no]").get_attribute("aria-pressed") == "true"
        tab.keyboard.press("x")
        assert done(tab) == 0
        tab.keyboard.press("j")
        assert shown(tab) == second
        tab.keyboard.press("g")
        assert shown(tab)[0] != second[0]


def test_a_decision_that_was_saved_is_withdrawn_when_it_is_taken_back(
    some: Path, browser: Browser, tmp_path: Path
) -> None:
    with browser.open(page_of(some)) as tab:
        start(tab)
        pair = shown(tab)
        press(tab, "yn")
        assert said(saved(tab, tmp_path / "first.jsonl"))[pair] == "yes"
        tab.keyboard.press("ArrowLeft")
        tab.keyboard.press("ArrowLeft")
        assert shown(tab) == pair
        tab.keyboard.press("x")
        assert done(tab) == 1
        assert said(saved(tab, tmp_path / "second.jsonl"))[pair] == "withdrawn"


def test_all_labels_of_an_image_are_decided_together(some: Path, browser: Browser, tmp_path: Path) -> None:
    with browser.open(page_of(some)) as tab:
        start(tab)
        while tab.locator("#labels li").count() < 3:
            tab.keyboard.press("g")
        tab.keyboard.press("a")
        image, count = shown(tab)[0], tab.locator("#labels li").count()
        for _ in range(count):
            assert shown(tab)[0] == image
            tab.keyboard.press("n")
        assert shown(tab)[0] != image
        tab.locator("#labels li").nth(0).locator("button").nth(1).click()
        found = said(saved(tab, tmp_path / "decisions.jsonl"))
        assert sorted(found.values()) == sorted(["no"] * count + ["yes"])


def test_answers_are_hidden_on_demand_and_from_the_start_where_the_page_is_blind(
    some: Path, browser: Browser, tmp_path: Path
) -> None:
    save(tmp_path / "other.parquet", list(open_table(some).rows()))
    create_review(some, tmp_path / "blind.html", ReviewOptions(limit=40, blind=True, second=tmp_path / "other.parquet"))
    with browser.open(page_of(some)) as tab:
        assert "This table" in (tab.locator("#answers-given").text_content() or "")
        tab.keyboard.press("h")
        assert tab.locator("#answers-given").text_content() == ""
        tab.reload()
        assert tab.locator("#answers-given").text_content() == ""
    with browser.open(tmp_path / "blind.html") as tab:
        assert not tab.locator("#answers-given").is_visible()
        assert tab.locator("#hide").get_attribute("aria-expanded") == "false"
        tab.keyboard.press("h")
        text = tab.locator("#answers-given").text_content() or ""
        assert "proposed by one" in text
        assert "other.parquet" in text


def test_progress_of_each_label_is_counted_and_leads_to_it(some: Path, browser: Browser) -> None:
    with browser.open(page_of(some)) as tab:
        start(tab)
        tab.click("details:has(#by-label) summary")
        row = tab.locator("#by-label tr", has_text="person")
        row.locator("button").click()
        assert shown(tab)[1] == "person"
        tab.keyboard.press("y")
        assert row.locator("td").nth(1).text_content() == "1"


def test_the_picture_is_magnified_by_key_and_by_click(some: Path, browser: Browser) -> None:
    with browser.open(page_of(some)) as tab:
        width = tab.locator("#image").evaluate("each => each.clientWidth")
        tab.keyboard.press("m")
        assert tab.locator("#image").evaluate("each => each.clientWidth") > 2 * width
        tab.click("#image")
        assert tab.locator("#image").evaluate("each => each.clientWidth") == width


def test_a_phone_has_buttons_to_touch_and_nothing_beside_the_screen(some: Path, browser: Browser) -> None:
    with browser.open(page_of(some), width=390, height=844, dark=True) as tab:
        start(tab, "Somebody with a long name")
        for answer in ("yes", "no", "unknown"):
            button = tab.locator(f".answers [data-answer={answer}]")
            box = button.bounding_box()
            assert box is not None
            assert box["height"] >= 44
            assert 0 <= box["x"] < box["x"] + box["width"] <= 390
            assert box["y"] + box["height"] <= 844
            button.click()
        assert done(tab) == 3
        assert tab.evaluate("document.documentElement.scrollWidth") == 390


def test_a_screen_reader_finds_names_roles_and_states(some: Path, browser: Browser) -> None:
    with browser.open(page_of(some)) as tab:
        start(tab)
        image, label = shown(tab)
        assert tab.get_by_role("heading", name=label).is_visible()
        assert tab.get_by_role("img", name=f"Image {image}").is_visible()
        for name in ("Yes", "No", "Unsure"):
            assert tab.get_by_role("group", name="Decision").get_by_role("button", name=name).is_visible()
        assert tab.get_by_role("button", name="Undo").is_disabled()
        nameless = "[...document.querySelectorAll('button')].filter(each => !each.textContent.trim())"
        assert tab.evaluate(f"{nameless}.length") == 0


def test_hostile_names_and_cards_are_shown_saved_and_do_nothing(some: Path, browser: Browser, tmp_path: Path) -> None:
    table = open_table(some)
    label = f"=cmd|{HOSTILE}"
    rows = [
        replace(
            row,
            image_id=f"{place}{HOSTILE}",
            labels=tuple(replace(each, name=label if each.name == "cat" else each.name) for each in row.labels or ()),
        )
        for place, row in enumerate(table.rows())
    ]
    hostile = Vocabulary("v", (Label(label, description=HOSTILE), *table.info.vocabulary.labels[1:]))
    write_table(tmp_path / "labels.parquet", replace(table.info, vocabulary=hostile), rows)
    create_review(tmp_path / "labels.parquet", tmp_path / "review.html", ReviewOptions(limit=40))
    with browser.open(tmp_path / "review.html") as tab:
        start(tab, HOSTILE)
        pairs = []
        for _ in range(40):
            pairs.append(shown(tab))
            tab.keyboard.press("n")
        assert tab.locator("img").count() == 1
        found = saved(tab, tmp_path / "decisions.jsonl")
    assert said(found) == dict.fromkeys(pairs, "no")
    assert any(name == label for _, name in pairs)


def test_without_storage_the_page_says_so(some: Path, browser: Browser) -> None:
    with browser.open(page_of(some)) as tab:
        start(tab)
        tab.evaluate("void (Storage.prototype.setItem = () => { throw new Error('full'); })")
        tab.keyboard.press("y")
        assert "keeps nothing" in (tab.locator("#said").text_content() or "")
        assert done(tab) == 1


def test_what_is_kept_and_makes_no_sense_is_left_out(some: Path, browser: Browser) -> None:
    with browser.open(page_of(some)) as tab:
        start(tab)
        tab.keyboard.press("y")
        name = tab.evaluate(
            "Object.keys(localStorage).find(each => each.startsWith('tagllm-review-') && each.length > 40)"
        )
        kept: dict[str, Any] = json.loads(tab.evaluate("name => localStorage.getItem(name)", name))
        kept["answers"] |= {"gone": ["yes", "2026-01-01T00:00:00Z", "Ann"]}
        tab.evaluate("([name, text]) => localStorage.setItem(name, text)", [name, json.dumps(kept)])
        tab.reload()
        assert done(tab) == 1
        tab.evaluate("name => localStorage.setItem(name, '{\"answers\": [1')", name)
        tab.reload()
        assert done(tab) == 0


def test_a_page_of_decided_pairs_tells_who_decided_them(some: Path, browser: Browser, tmp_path: Path) -> None:
    rows: list[Row] = decided(list(open_table(some).rows()), "cat")
    write_table(tmp_path / "labels.parquet", open_table(some).info, rows)
    options = ReviewOptions(limit=40, again=True, labels=("cat",))
    create_review(tmp_path / "labels.parquet", tmp_path / "review.html", options)
    with browser.open(tmp_path / "review.html") as tab:
        assert "decided by a person" in (tab.locator("#answers-given").text_content() or "")


def test_a_page_that_is_kept_nowhere_asks_before_it_is_closed(some: Path, browser: Browser, tmp_path: Path) -> None:
    leaves = "window.dispatchEvent(new Event('beforeunload', { cancelable: true }))"
    with browser.open(page_of(some)) as tab:
        start(tab)
        tab.keyboard.press("y")
        assert tab.evaluate(leaves)  # the browser keeps it
        tab.evaluate("void (Storage.prototype.setItem = () => { throw new Error('full'); })")
        tab.keyboard.press("y")
        assert not tab.evaluate(leaves)
        saved(tab, tmp_path / "decisions.jsonl")
        assert tab.evaluate(leaves)


def test_what_is_taken_back_is_later_than_what_was_saved_whatever_the_clock(
    some: Path, browser: Browser, tmp_path: Path
) -> None:
    with browser.open(page_of(some)) as tab:
        start(tab)
        tab.keyboard.press("y")
        (first,) = saved(tab, tmp_path / "first.jsonl").statements
        tab.clock.set_fixed_time("2020-01-01")
        tab.keyboard.press("z")
        (second,) = saved(tab, tmp_path / "second.jsonl").statements
    assert (first.decision, second.decision) == ("yes", "withdrawn")
    assert first.when is not None
    assert second.when is not None
    assert second.when > first.when


def test_an_undone_change_leaves_the_decision_of_who_made_it(some: Path, browser: Browser, tmp_path: Path) -> None:
    with browser.open(page_of(some)) as tab:
        start(tab)
        pair = shown(tab)
        tab.keyboard.press("y")
        saved(tab, tmp_path / "first.jsonl")
        tab.click("#person")
        start(tab, "Bob")
        press(tab, "n")
        tab.keyboard.press("ArrowLeft")
        tab.keyboard.press("ArrowLeft")
        assert shown(tab) == pair
        press(tab, "nz")
        found = {(each.image, each.label): each for each in saved(tab, tmp_path / "second.jsonl").statements}
    assert (found[pair].decision, found[pair].who) == ("yes", "Ann")


def test_the_focus_stays_on_the_button_that_answered(some: Path, browser: Browser) -> None:
    with browser.open(page_of(some)) as tab:
        start(tab)
        while tab.locator("#labels li").count() < 3:
            tab.keyboard.press("g")
        tab.keyboard.press("a")
        button = tab.locator("#labels li").nth(1).locator("button").nth(2)
        button.focus()
        tab.keyboard.press("Enter")
        assert button.evaluate("each => each === document.activeElement")
        assert button.get_attribute("aria-pressed") == "true"


@pytest.mark.parametrize("width", [390, 1280])
def test_long_words_do_not_widen_the_page(some: Path, browser: Browser, tmp_path: Path, width: int) -> None:
    table, long = open_table(some), "x" * 400
    labels = [replace(each, description=long, similar=(long,)) for each in table.info.vocabulary.labels]
    vocabulary = Vocabulary("v", tuple(labels))
    write_table(tmp_path / "labels.parquet", replace(table.info, vocabulary=vocabulary), list(table.rows()))
    create_review(tmp_path / "labels.parquet", tmp_path / "review.html", ReviewOptions(limit=40))
    with browser.open(tmp_path / "review.html", width=width) as tab:
        start(tab)
        assert tab.evaluate("document.documentElement.scrollWidth") == width
