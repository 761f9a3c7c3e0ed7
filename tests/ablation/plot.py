"""The ablation at a glance: what a strategy costs and brings, and what cards gain as names become more ambiguous."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.ablation.bootstrap import Interval, f1, samples
from tests.ablation.claims import Dose
from tests.ablation.design import (
    ALL,
    BARE,
    BINARY,
    BOTH,
    COLUMNS,
    COOCCURRING,
    DESCRIPTION,
    DISJOINT,
    MAIN,
    NONE,
    OPEN,
    PLACEBO,
    RANDOM,
    REPEATED,
    SHUFFLED,
    SIMILAR,
    STRATEGIES,
    Place,
)
from tests.ablation.measure import Measured
from tests.ablation.study import Results

# Okabe and Ito's palette: told apart also without seeing all colours.
_COLOURS: Mapping[str, str] = {
    OPEN.name: "#999999", ALL.name: "#56B4E9", BINARY.name: "#D55E00", RANDOM.name: "#E69F00",
    COOCCURRING.name: "#009E73", DISJOINT.name: "#CC79A7", BOTH.name: "#0072B2",
}  # fmt: skip
_MARKS = {NONE.name: "o", BARE.name: "s", DESCRIPTION.name: "^", SIMILAR.name: "*"}
_SIZES = {SIMILAR.name: 12}
# Cards and controls: (column, subset of the labels) -> (what it is called, colour, mark, line style).
_GAINS = {
    (SIMILAR.name, "ambiguous"): ("cards, ambiguous labels", "#0072B2", "*", "-"),
    (SIMILAR.name, "unambiguous"): ("cards, other labels", "#56B4E9", "*", "--"),
    (REPEATED.name, "ambiguous"): ("name repeated, ambiguous", "#009E73", "D", "-"),
    (PLACEBO.name, "ambiguous"): ("placebo, ambiguous", "#999999", "s", "-"),
    (SHUFFLED.name, "ambiguous"): ("shuffled, ambiguous", "#D55E00", "v", "-"),
}
_STYLE = {
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25, "font.size": 11,
    "axes.titlesize": 13, "axes.titleweight": "bold", "axes.titlelocation": "left", "legend.frameon": False,
}  # fmt: skip


def draw(results: Results, doses: Sequence[Dose], path: Path) -> None:
    """Write the two panels as a PNG file of 1680 x 780 pixels; a panel without measurements stays empty."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with pyplot.rc_context(_STYLE):
        figure, (left, right) = pyplot.subplots(1, 2, figsize=(14, 6.5), width_ratios=(3, 2), layout="constrained")
        _cost_and_value(left, results)
        _gains(right, doses)
        figure.savefig(path, dpi=120)
        pyplot.close(figure)


def _cost_and_value(axes: Any, results: Results) -> None:
    from matplotlib.lines import Line2D

    shown = []
    for strategy in STRATEGIES:
        places = [place for column in COLUMNS if (place := Place(MAIN, strategy, column)) in results]
        if places:
            _path(axes, _COLOURS[strategy.name], [(place.concepts.name, results[place]) for place in places])
            shown.append(Line2D([], [], color=_COLOURS[strategy.name], linewidth=4, label=strategy.title))
    axes.set(xscale="log", xlabel="prompt tokens computed per image", ylabel="OF1, with 95% interval")
    axes.set_title("What it costs, and what it brings")
    axes.set_xticks((100, 200, 500, 1_000, 2_000, 5_000))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.minorticks_off()
    axes.margins(x=0.06)
    marks = [
        Line2D([], [], linestyle="", marker=_MARKS[column.name], color="#444444", markersize=9, label=column.title)
        for column in COLUMNS
    ]
    below = {"loc": "upper center", "columnspacing": 1.2, "handletextpad": 0.5, "handlelength": 1.2}
    axes.add_artist(axes.legend(handles=shown, ncols=4, bbox_to_anchor=(0.5, -0.11), **below))
    axes.legend(handles=marks, ncols=4, bbox_to_anchor=(0.5, -0.22), **below)


def _path(axes: Any, colour: str, cells: Sequence[tuple[str, Measured]]) -> None:
    """Draw one strategy's way from its candidates to its tables, from left to right as it costs more."""
    tokens = [found.cost.computed_tokens / len(found.ids) for _, found in cells]
    levels = [Interval.of(samples(f1, found.counts["all"])) for _, found in cells]
    axes.plot(tokens, [level.value for level in levels], color=colour, alpha=0.45, linewidth=1.5)
    for (column, _), token, level in zip(cells, tokens, levels, strict=True):
        axes.errorbar(
            token, level.value, _reach([level]), color=colour, capsize=2, elinewidth=1, marker=_MARKS[column],
            markersize=_SIZES.get(column, 7), markeredgecolor="white", markeredgewidth=0.6,
        )  # fmt: skip


def _gains(axes: Any, doses: Sequence[Dose]) -> None:
    axes.axhline(0, color="black", linewidth=0.8)
    for (column, subset), (title, colour, mark, style) in _GAINS.items():
        line = [dose for dose in doses if (dose.concepts.name, dose.subset) == (column, subset)]
        if not line:
            continue
        dials, gains = [dose.other_sense for dose in line], [dose.gain for dose in line]
        values = [gain.value for gain in gains]
        axes.errorbar(
            dials, values, _reach(gains), color=colour, marker=mark, markersize=_SIZES.get(column, 6), capsize=3,
            linestyle=style, label=title,
        )  # fmt: skip
        if column == SIMILAR.name and subset == "ambiguous":
            for dial, value in zip(dials, values, strict=True):
                axes.annotate(f"{value:+.2f}", (dial, value), (0, 9), textcoords="offset points", ha="center", size=9)
    axes.set(xlabel="ambiguity dial: share of other senses", ylabel="gain in OF1 over bare yes/no, with 95% interval")
    axes.set_title("What cards gain")
    if doses:
        axes.legend(loc="upper center", ncols=2, bbox_to_anchor=(0.5, -0.11), columnspacing=1.2)
        axes.set_xticks(sorted({dose.other_sense for dose in doses}))
        axes.xaxis.set_major_formatter("{x:.2f}")


def _reach(intervals: Sequence[Interval]) -> list[list[float]]:
    """How far intervals reach down and up from their values, as matplotlib wants it."""
    return [[each.value - each.low for each in intervals], [each.high - each.value for each in intervals]]
