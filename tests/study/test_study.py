"""The study's table, and that figures on record are measured again only where a table is newer."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.study import __main__ as study
from tests.study.summary import to_markdown


def _found(closed: dict[str, float] | None) -> dict[str, Any]:
    quality = {"of1": 0.9, "cf1": 0.8, "map": 0.7, "intervals": {key: [0.6, 0.95] for key in ("of1", "cf1", "map")}}
    cost = {"together": {"per_1000_images": 0.25}, "human": {"per_1000_images": 105.0}}
    figure = {"value": 0.02, "low": 0.01, "high": 0.03}
    sets = [{"name": name, "map": figure} for name in ("tagllm", "plain", "truth")]
    ap = [{"name": name, "ap": {"tagllm": 0.5, "plain": 0.25, "truth": None}} for name in ("mouse", "car")]
    ap.append({"name": "mouse", "ap": {"tagllm": 0.7, "plain": 0.35, "truth": 0.75}})
    ap.append({"name": "car", "ap": {"tagllm": 0.1, "plain": 0.2, "truth": 0.3}})
    gaps = [{"plain": "plain", "gap": figure, "gain": figure, "closed": closed}]
    trained = {"backbone": "ResNet", "seeds": 3, "training_images": 2524, "test_images": 1076, "sets": sets}
    trained |= {"gaps": gaps, "labels": ap}
    qualities = {"plain": quality, "tagllm": quality, "downstream": {"downstream": trained}}
    return {"plain cost": cost, "tagllm cost": cost, **qualities}


def test_the_table_has_quality_classifier_and_price() -> None:
    lines = to_markdown(_found({"value": 0.9, "low": 0.7, "high": 1.2})).splitlines()
    (row,) = (line for line in lines if line.startswith("| plain"))
    cells = ("0.9000 [0.6000, 0.9500]", "0.8000 [0.6000, 0.9500]", "0.7000 [0.6000, 0.9500]")
    assert row == f"| plain: one question | {' | '.join(cells)} | 0.0200 [0.0100, 0.0300] | 0.250 |"
    assert "Share of the gap closed: 90% [70%, 120%]." in lines
    assert "Mean AP of 8 ambiguous labels: tagllm 0.6000, plain 0.3000, truth 0.7500." in lines


def test_a_gap_within_noise_is_called_that() -> None:
    assert "Share of the gap closed: not measurable, the gap is not beyond noise." in to_markdown(_found(None))


def test_figures_on_record_are_measured_again_where_a_table_is_newer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = study.Study(tmp_path, gpu_price=2.5, seeds=3)
    for table in (chosen.plain, chosen.tagllm):
        table.touch()
        os.utime(table, (1, 1))
    ran: list[str] = []

    def run(command: list[str], *, captured: bool) -> str:
        ran.append(command[0])
        return json.dumps({"run": len(ran)})

    monkeypatch.setattr(study, "_run", run)
    measured = [study._measured(chosen, "plain", ["evaluate", "a"])["run"] for _ in range(2)]
    assert (measured, ran) == ([1, 1], ["evaluate"])
    assert study._measured(chosen, "plain", ["evaluate", "b"]) == {"run": 2}
    os.utime(chosen.plain, (2**33, 2**33))
    assert study._measured(chosen, "plain", ["evaluate", "b"]) == {"run": 3}
