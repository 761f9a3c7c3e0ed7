"""The study's table: a line per label set, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from tests.demo.things import MEANS

_COLUMNS = ("labels", "OF1", "CF1", "mAP", "mAP of a classifier trained on them", "price of 1,000 images")


def to_markdown(found: Mapping[str, Any]) -> str:
    """Return the table and the share of the gap closed, from the JSON of the study's commands by name."""
    downstream = found["downstream"]["downstream"]
    trained = {each["name"]: _interval(each["map"]) for each in downstream["sets"]}
    rows = [
        ("plain: one question", *_quality(found["plain"]), trained["plain"], _price(found["plain cost"])),
        ("TagLLM: groups, cards", *_quality(found["tagllm"]), trained["tagllm"], _price(found["tagllm cost"])),
        ("truth", "1", "1", "1", trained["truth"], f"{found['plain cost']['human']['per_1000_images']:.2f} (people)"),
    ]
    lines = ["", _line(_COLUMNS), _line(["---"] * len(_COLUMNS)), *map(_line, rows), ""]
    gap = downstream["gaps"][0]
    lines.append(f"Truth over plain labels, downstream: {_interval(gap['gap'], '+')}.")
    lines.append(f"TagLLM over plain labels, downstream: {_interval(gap['gain'], '+')}.")
    closed = gap["closed"]
    share = "not measurable, the gap is not beyond noise" if closed is None else _percent(closed)
    lines.append(f"Share of the gap closed: {share}.")
    images = f"{downstream['training_images']:,} images, tested on the truth of {downstream['test_images']:,} others"
    lines.append(f"Mean AP of {len(MEANS)} ambiguous labels: {_subset(downstream, ambiguous=True)}.")
    lines.append(f"Mean AP of the others: {_subset(downstream, ambiguous=False)}.")
    lines.append(f"{downstream['backbone']}, {downstream['seeds']} seeds, trained on {images}; 95% intervals.")
    return "\n".join(lines)


def _quality(evaluation: Mapping[str, Any]) -> Sequence[str]:
    ends = evaluation["intervals"]
    return tuple(f"{evaluation[name]:.4f} [{ends[name][0]:.4f}, {ends[name][1]:.4f}]" for name in ("of1", "cf1", "map"))


def _subset(downstream: Mapping[str, Any], *, ambiguous: bool) -> str:
    """Return each classifier's AP, the mean over some labels that test images have."""
    some = [each["ap"] for each in downstream["labels"] if (each["name"] in MEANS) is ambiguous]
    names = [each["name"] for each in downstream["sets"]]
    return ", ".join(f"{name} {fmean(ap[name] for ap in some if ap[name] is not None):.4f}" for name in names)


def _price(cost: Mapping[str, Any]) -> str:
    return f"{cost['together']['per_1000_images']:.3f}"


def _interval(figure: Mapping[str, float], sign: str = "") -> str:
    return f"{figure['value']:{sign}.4f} [{figure['low']:{sign}.4f}, {figure['high']:{sign}.4f}]"


def _percent(figure: Mapping[str, float]) -> str:
    return f"{figure['value']:.0%} [{figure['low']:.0%}, {figure['high']:.0%}]"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
