"""What a report says: evaluate's figures, every cell of the gallery, failures, answers that no label stands for."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tagllm_cli.errors import SourceError, UsageError
from tagllm_cli.evaluation.report.report import ReportOptions, ReportSummary, write_report
from tagllm_cli.evaluation.summary import evaluate_table
from tests.bench.tables import tables
from tests.cli.test_info import labeled, workspace
from tests.evaluation.report.tables import HOSTILE, HOSTILE_FILE, SAID, other, small
from tests.support.workspace import Workspace

__all__ = ["labeled", "workspace"]


def data_of(page: Path) -> Any:
    """Return what the page's script shows."""
    found = re.search('<script type="application/json" id="data">(.*?)</script>', page.read_text("utf-8"), re.DOTALL)
    assert found
    return json.loads(found[1])


def reported(table: Path, **options: Any) -> tuple[ReportSummary, Any, str]:
    out = table.with_name("report.html")
    summary = write_report(table, out, None, ReportOptions(**options))
    return summary, data_of(out), out.read_text("utf-8")


def test_figures_are_those_of_evaluate(tmp_path: Path) -> None:
    table, truth = tables(tmp_path, images=400)
    expected = evaluate_table(table, truth).evaluation
    summary, data, page = reported(table, truth=truth, images=50)
    assert summary.measured is not None
    assert summary.measured.evaluation == expected
    shown = dict(re.findall(r'data-figure="(\w+)"><span[^>]*>\w+</span><span class="value">([^<]+)', page))
    figures = expected.to_json()
    assert shown == {name: f"{figures[name.lower()]:.3f}" for name in ("OP", "OR", "OF1", "CP", "CR", "CF1")} | {
        "mAP": f"{figures['map']:.3f}"
    }
    rows = {row["name"]: row for row in data["rows"]}
    for label in expected.labels:
        found = rows[label.name]
        assert (found["support"], found["predicted"], found["yes"]) == (label.support, label.predicted, label.predicted)
        assert (found["precision"], found["recall"], found["f1"]) == pytest.approx(
            (label.precision, label.recall, label.f1), abs=1e-4
        )


def test_what_makes_the_figures_doubtful_is_on_the_page_in_the_card_and_in_the_summary(tmp_path: Path) -> None:
    table, _ = small(tmp_path)
    truth = tmp_path / "few.csv"
    truth.write_text("image,cat,dog\nright.jpg,1,\nwrong.jpg,,\nelsewhere.jpg,1,1\n")
    card = tmp_path / "card.md"
    summary = write_report(table, tmp_path / "page.html", card, ReportOptions(truth=truth))
    expected = evaluate_table(table, truth)
    assert [line for line in expected.warnings if line not in summary.warnings] == []
    not_judged = "not judged and count in no figure"
    assert not_judged in " ".join(summary.warnings)
    for text in ((tmp_path / "page.html").read_text("utf-8"), card.read_text("utf-8")):
        assert not_judged in text
        assert "judges no label absent" in text
        assert "images were compared" in text


def test_a_card_says_all_that_is_known_about_an_image(tmp_path: Path) -> None:
    table, truth = small(tmp_path)
    _, data, _ = reported(table, truth=truth, others=[other(tmp_path)])
    images = {image["name"]: image for image in data["images"]}
    number = {name: place for place, name in enumerate(data["labels"])}
    assert set(images) == {*SAID, "broken.jpg"}

    def lines(image: str) -> dict[str, Any]:
        """What is said by label: our answer, probability, truth, arms, person, other tables."""
        names = {place: name for name, place in number.items()}
        return {names[line[0]]: tuple(line[1:7]) for line in images[image]["labels"]}

    assert lines("right.jpg") == {"cat": (1, 0.9, 1, 1, 0, 1), "dog": (0, 0.1, 0, 1, 0, 0)}
    assert lines("wrong.jpg") == {"dog": (1, 0.8, 0, 1, 0, 0), "cup": (1, 0.95, 1, 1, 0, 1)}
    assert lines("missed.jpg") == {"cat": (0, 0.3, 1, 1, 0, 0), "dog": (3, None, 1, 0, 0, 1)}
    assert lines("undecided.jpg") == {"cup": (2, None, 1, 1, 0, 0)}
    assert lines(HOSTILE_FILE) == {HOSTILE: (1, 0.55, 1, 1, 0, 0)}
    assert {name for name, image in images.items() if image["covered"]} == {"right.jpg", "wrong.jpg", "missed.jpg"}
    assert images["wrong.jpg"]["unmatched"] == ["teapot"]
    assert images["broken.jpg"]["error"].startswith("truncated_file")
    assert images["broken.jpg"]["reason"].startswith("vanished")
    assert all(image["picture"].startswith("data:image/webp;base64,") for image in images.values() if image["labels"])


def test_failures_and_unknown_answers_are_counted(tmp_path: Path) -> None:
    table, _ = small(tmp_path)
    summary, data, page = reported(table)
    assert summary.measured is None
    assert data["curves"] is None
    assert sum(data["histogram"]["all"]) == 6
    assert "No truth was given" in page
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", page)
    assert cells[cells.index("truncated_file") + 1] == "1"
    assert cells[cells.index("teapot") + 1] == "2"
    assert summary.reasons == {"vanished": 1}


def test_tables_are_compared_cell_by_cell(tmp_path: Path) -> None:
    table, _ = small(tmp_path)
    _, _, page = reported(table, others=[other(tmp_path)])
    assert "other.parquet: 3 images in both, 50.0% of the labels given by either are given by both" in page
    section = page[page.index('<section id="agreement">') :]
    rows = [re.findall(r"<td[^>]*>([^<]*)</td>", row) for row in re.findall("<tr>(.*?)</tr>", section, re.DOTALL)][1:4]
    assert rows == [
        ["dog", "0", "1", "1", "0.0%"],
        ["cat", "1", "0", "0", "100.0%"],
        ["cup", "1", "0", "0", "100.0%"],
    ]


def test_figures_of_the_tables_stand_side_by_side(tmp_path: Path) -> None:
    table, truth = small(tmp_path)
    _, _, page = reported(table, truth=truth, others=[other(tmp_path)])
    section = page[page.index('<section id="compared">') : page.index('<section id="agreement">')]
    assert "tables on the 3 images and 4 labels that all have" in section
    rows = [re.findall(r"<td[^>]*>([^<]*)</td>", row) for row in re.findall("<tr>(.*?)</tr>", section, re.DOTALL)]
    figures = {row[0]: row[1:4] for row in rows if len(row) == 10}
    assert figures == {"labels": ["0.6667", "0.5000", "0.5714"], "other": ["1.0000", "0.7500", "0.8571"]}


def test_runs_prices_and_both_stages_are_in_the_page(labeled: Workspace) -> None:
    from tagllm_cli.evaluation.cost import Prices

    out = labeled.labels_out.with_name("labels.parquet")
    for ending in (".parquet", ".evidence"):
        labeled.labels_out.with_suffix(ending).rename(out.with_suffix(ending))
        labeled.out.with_suffix(ending).rename(out.with_suffix(f".candidates{ending}"))
    _, _, page = reported(out, prices=Prices(gpu_hour=3600.0))
    section = page[page.index('<section id="cost">') :]
    assert all(f">{what}</td>" in section for what in ("candidates", "labels", "together", "people"))


def test_quality_stands_beside_cost_where_runs_are_on_record(labeled: Workspace) -> None:
    truth = labeled.out.with_name("truth.csv")
    truth.write_text("image,label\n" + "".join(f"{number:03d}.png,cat\n" for number in range(4)))
    _, data, page = reported(labeled.labels_out, truth=truth, others=[labeled.out])
    labels, candidates = data["frontier"]["tables"]
    assert labels["missing"] == ["candidates"]
    assert candidates["frontier"] == ["of1", "cf1", "map"]
    assert candidates["per_1000_images"]["gpu_seconds"] > 0
    section = page[page.index('<section id="frontier">') : page.index('<section id="slices">')]
    assert "quality against cost for 1,000 images" in section
    assert "what it cost is not known" in section


def test_a_wrong_root_is_refused_before_anything_is_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table, truth = small(tmp_path)
    monkeypatch.setattr("tagllm_cli.evaluation.report.report.read_subject", None)
    with pytest.raises(SourceError, match="there is no folder"):
        reported(table, truth=truth, root=str(tmp_path / "nowhere"))


def test_no_other_file_is_overwritten(tmp_path: Path) -> None:
    table, _ = small(tmp_path)
    out = tmp_path / "page.html"
    out.write_text("<!doctype html><p>mine")
    with pytest.raises(UsageError, match="holds something else"):
        write_report(table, out, None, ReportOptions())
    assert out.read_text() == "<!doctype html><p>mine"
    out.unlink()
    write_report(table, out, None, ReportOptions())
    write_report(table, out, None, ReportOptions(images=2))
    assert len(data_of(out)["images"]) == 2


def test_pictures_stay_within_their_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table, _ = small(tmp_path)
    monkeypatch.setattr("tagllm_cli.evaluation.report.report.MOST_PICTURE_BYTES", 3000)
    _, data, _ = reported(table)
    assert 0 < sum(len(image["picture"]) for image in data["images"]) < 3000 * 4 / 3 + 6 * 40
