"""Labels out, corrected in another program's own format, and back in: no rerun of anything loses the correction."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tagllm_cli.labeling.thresholds import Thresholds
from tests.support.annotation_tools import cvat_export, datumaro_export, fiftyone_export, label_studio_export
from tests.support.browser import chromium
from tests.support.command_line import one_object, tagllm
from tests.support.decisions import human_labels_of, labels_of, table_rows
from tests.support.photo_software import add_keyword, edit_caption, remove_keyword
from tests.support.rule_engine import RuleEngine
from tests.support.workspace import LABELS, Workspace

IMAGE = "003.png"


class Trip:
    """A labeled folder of images; a person turns round two labels of one of them."""

    def __init__(self, root: Path) -> None:
        self.work = Workspace(root, 6)
        self.work.both()
        self.table, self.folder = self.work.labels_out, root
        self.before = labels_of(self.table, IMAGE)
        listed = {entry.name for entry in table_rows(self.table)[IMAGE].labels or ()}
        # The model proposed one of them and said no; the page asks about nothing else.
        self.added, self.removed = min(listed - self.before), min(self.before)

    @property
    def changes(self) -> Mapping[str, Mapping[str, str]]:
        """What the person says, by image and label."""
        return {IMAGE: {self.removed: "no", self.added: "yes"}}

    def export(self, format_: str, name: str = "", *options: str) -> Path:
        """Export the table through the command line."""
        out = self.folder / (name or format_)
        result = tagllm(["export", str(self.table), "--format", format_, "--out", str(out), *options])
        assert result.exit_code == 0, result.output
        return out

    def back(self, file: Path, *options: str) -> None:
        """Import a file through the command line, twice; then run everything again, in every way."""
        words = ["import", str(self.table), str(file), *options, "--json"]
        result = tagllm(words)
        assert result.exit_code == 0, result.output
        assert one_object(result.stdout)["recorded"] >= 2
        self.check()
        shown = self.table.read_bytes()
        assert one_object(tagllm(words).stdout)["recorded"] == 0
        assert self.table.read_bytes() == shown
        work = self.work
        first, second = work.both()
        assert second is not None
        assert first.stats.asked + second.stats.asked == 0
        assert self.table.read_bytes() == shown
        self.table.unlink()
        work.disambiguate(offline=True)
        assert self.table.read_bytes() == shown
        work.disambiguate({"thresholds": Thresholds(0.95)})
        self.check()
        work.engine = RuleEngine()
        work.candidates({"group_size": 3}, replan=True)
        work.disambiguate(replan=True)
        self.check()

    def check(self) -> None:
        """The table says what the person said, and the person's other images are as they were."""
        found = human_labels_of(self.table, IMAGE)
        assert (found[self.removed], found[self.added]) == ("no", "yes")
        now = labels_of(self.table, IMAGE)
        assert self.added in now
        assert self.removed not in now

    @property
    def others(self) -> set[str]:
        """The other images about which somebody is said to have decided something."""
        return {image for image in table_rows(self.table) if image != IMAGE and human_labels_of(self.table, image)}


@pytest.fixture
def trip(tmp_path: Path) -> Trip:
    return Trip(tmp_path)


def test_a_long_csv_in_a_spreadsheet(trip: Trip) -> None:
    path = trip.export("csv-long", "long.csv")
    with path.open(encoding="utf-8", newline="") as file:
        header, *lines = csv.reader(file)
    image, label, decision = (header.index(name) for name in ("image", "label", "decision"))
    for line in lines:
        if (line[image], line[label]) == (IMAGE, trip.removed):
            line[decision] = "no"
    added = [""] * len(header)
    added[image], added[label], added[decision] = IMAGE, trip.added, "Yes"
    lines = [line for line in lines if (line[image], line[label]) != (IMAGE, trip.added)] + [added]
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *lines])
    trip.back(path, "--only-changes", "--who", "ann")
    assert trip.others == set()


def test_a_wide_csv(trip: Trip) -> None:
    path = trip.export("csv-wide", "wide.csv")
    with path.open(encoding="utf-8", newline="") as file:
        header, *lines = csv.reader(file)
    for line in lines:
        if line[0] == IMAGE:
            line[header.index(trip.removed)], line[header.index(trip.added)] = "0", "1"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *lines])
    trip.back(path, "--only-changes")
    assert trip.others == set()


def test_our_json_lines_changed_by_a_program(trip: Trip) -> None:
    path = trip.export("jsonl", "labels.jsonl")
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for each in records:
        if IMAGE in each.values():
            each["labels"] = [name for name in each["labels"] if name != trip.removed] + [trip.added]
    path.write_text("".join(json.dumps(each) + "\n" for each in records), encoding="utf-8")
    trip.back(path, "--complete", "--only-changes")
    assert trip.others == set()


def test_a_few_decisions_in_our_own_csv(trip: Trip) -> None:
    path = trip.folder / "corrections.csv"
    path.write_text(f"image,label,decision\n{IMAGE},{trip.removed},nein\n{IMAGE},{trip.added},ja\n")
    trip.back(path)
    assert trip.others == set()


def test_coco_json(trip: Trip) -> None:
    path = trip.export("coco", "coco.json")
    value = json.loads(path.read_text(encoding="utf-8"))
    ids = {each["name"]: each["id"] for each in value["categories"]}
    (image,) = (each["id"] for each in value["images"] if each["file_name"] == IMAGE)
    value["annotations"] = [
        each for each in value["annotations"] if (each["image_id"], each["category_id"]) != (image, ids[trip.removed])
    ] + [{"id": 10_000, "image_id": image, "category_id": ids[trip.added], "bbox": [0, 0, 1, 1], "area": 1}]
    path.write_text(json.dumps(value))
    trip.back(path, "--complete", "--only-changes")
    assert trip.others == set()


def test_label_studio(trip: Trip) -> None:
    exported = label_studio_export(trip.export("label-studio"), trip.changes, trip.folder / "project.json")
    trip.back(exported, "--complete")
    assert human_labels_of(trip.table, IMAGE).keys() == set(LABELS)
    assert trip.others == set()  # nobody has opened these tasks


@pytest.mark.parametrize("by_attribute", [True, False])
def test_cvat(trip: Trip, by_attribute: bool) -> None:
    out = trip.folder / "task.zip"
    exported = cvat_export(trip.export("cvat"), trip.changes, out, by_attribute=by_attribute)
    trip.back(exported, "--complete", "--only-changes")
    assert trip.others == set()


@pytest.mark.slow
def test_fiftyone(trip: Trip) -> None:
    exported = fiftyone_export(trip.export("fiftyone"), trip.changes, trip.folder / "corrected")
    trip.back(exported)
    assert trip.others == set()


def test_datumaro(trip: Trip) -> None:
    exported = datumaro_export(trip.export("datumaro"), trip.changes, trip.folder / "corrected")
    trip.back(exported)
    assert trip.others == set()


def test_photo_software(trip: Trip) -> None:
    out = trip.export("xmp")
    add_keyword(out / f"{IMAGE}.xmp", trip.added)
    remove_keyword(out / f"{IMAGE}.xmp", trip.removed)
    trip.back(out)
    assert trip.others == set()


def test_captions(trip: Trip) -> None:
    out = trip.export("captions")
    edit_caption(next(out.rglob(f"{IMAGE.removesuffix('.png')}.txt")), add=trip.added, remove=trip.removed)
    trip.back(out)
    assert trip.others == set()


@pytest.mark.slow
def test_our_page(trip: Trip) -> None:
    page = trip.folder / "review.html"
    assert tagllm(["review", str(trip.table), "--out", str(page), "--limit", "500"]).exit_code == 0
    decisions = trip.folder / "decisions.jsonl"
    with ThreadPoolExecutor(1) as thread:  # Chromium's events and those of a run do not go together in one
        assert thread.submit(decide, page, trip.changes[IMAGE], decisions).result() == {}
    trip.back(decisions)
    assert trip.others == set()


def decide(page: Path, changes: Mapping[str, str], out: Path) -> dict[str, str]:
    """Decide about labels of an image by keyboard, and skip all others; return what the page did not ask about."""
    left = dict(changes)
    with chromium() as browser, browser.open(page) as tab:
        tab.fill("#who", "Ann")
        tab.keyboard.press("Enter")
        for _ in range(len(LABELS) * 6):
            label = tab.locator("#label").text_content() or ""
            is_asked = tab.locator("#name").text_content() == IMAGE and label in left
            tab.keyboard.press(left.pop(label)[0] if is_asked else "s")
            if not left:
                break
        with tab.expect_download() as download:
            tab.click("#download")
        download.value.save_as(out)
    return left
