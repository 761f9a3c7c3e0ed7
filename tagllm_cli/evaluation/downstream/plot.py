"""The curves: mAP on the test images after each epoch, for each label set, readable without colour."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tagllm_cli.errors import UsageError
from tagllm_cli.evaluation.downstream.result import Downstream, SetResult
from tagllm_cli.evaluation.entries import Array
from tagllm_cli.store.atomic import replacing

# Okabe and Ito's palette, and a line style and a marker each, so that no reader depends on colour.
_LINES = (
    ("#0072B2", "--", "o"),
    ("#D55E00", ":", "s"),
    ("#009E73", "-.", "^"),
    ("#CC79A7", (0, (1, 3)), "D"),
    ("#E69F00", (0, (6, 3)), "v"),
)
_TRUTH = ("#000000", "-", "*")
_STYLE = {
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25, "font.size": 11,
    "axes.titlesize": 12, "axes.titlelocation": "left", "legend.frameon": False,
    "svg.hashsalt": "tagllm",
}  # fmt: skip
_MARKS = 8  # on each line


def draw(found: Downstream, path: Path) -> None:
    """Write the curves as the file's name says: PNG, SVG or PDF. A band is from the lowest to the highest seed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with pyplot.rc_context(_STYLE):
        figure, axes = pyplot.subplots(figsize=(7.5, 4.8), layout="constrained")
        *others, truth = found.sets
        for each, line in zip((truth, *others), (_TRUTH, *_LINES * len(others)), strict=False):
            _line(axes, each, line)
        axes.set(xlabel="epoch", ylabel=f"mAP on {found.test_images:,} test images")
        axes.set_title(f"{found.backbone}, {len(truth.maps)} seeds; band: lowest to highest seed")
        axes.set_ylim(bottom=0)
        axes.set_xlim(left=0.5)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(title="trained on", loc="lower right", handlelength=4)
        metadata = {"Date": None} if path.suffix.lower() == ".svg" else None
        with replacing(path, UsageError) as new:
            figure.savefig(new, dpi=150, format=path.suffix.lower()[1:], metadata=metadata)
        pyplot.close(figure)


def _line(axes: Any, each: SetResult, line: tuple[str, Any, str]) -> None:
    color, style, marker = line
    curves = _padded(each)
    epochs = np.arange(1, curves.shape[1] + 1)
    low, middle, high = np.nanmin(curves, 0), np.nanmean(curves, 0), np.nanmax(curves, 0)
    axes.fill_between(epochs, low, high, color=color, alpha=0.15, linewidth=0)
    marks = {"marker": marker, "markersize": 10 if marker == "*" else 6, "markevery": max(1, len(epochs) // _MARKS)}
    label = f"{each.name}: {each.map.value:.3f} [{each.map.low:.3f}, {each.map.high:.3f}]"
    axes.plot(epochs, middle, linestyle=style, color=color, label=label, **marks)


def _padded(each: SetResult) -> Array:
    """Return the curves as one array [seeds, epochs], NaN after the end of those that stopped early."""
    longest = max(map(len, each.curves))
    return np.array([[*curve, *[np.nan] * (longest - len(curve))] for curve in each.curves])
