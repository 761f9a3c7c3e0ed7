"""The page of `tagllm diff --html`: what flipped, by label and cause, with the images; one file that loads nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

import tagllm_cli
from tagllm_cli.evaluation.diff.causes import CAUSES, MEANINGS
from tagllm_cli.evaluation.diff.compare import Comparison, kinds_of
from tagllm_cli.evaluation.diff.pairs import THERE
from tagllm_cli.evaluation.diff.side import STATES
from tagllm_cli.evaluation.diff.summary import DiffSummary
from tagllm_cli.evaluation.entry_arrays import Array
from tagllm_cli.evaluation.html.page import is_page, render
from tagllm_cli.evaluation.html.thumbnails import Thumbnail, Wanted, make_thumbnails
from tagllm_cli.evaluation.report.contents import numeric
from tagllm_cli.evaluation.report.report import MOST_PICTURE_BYTES, PICTURE_BYTES
from tagllm_cli.evaluation.report.rows import RowDetails, read_rows
from tagllm_cli.store.atomic import replacing

HERE = Path(__file__).parent / "html"


@dataclass(frozen=True, slots=True)
class _Shown:
    """The images on the page, in the order in which they tell most, and their rows by side and image."""

    images: list[int]
    rows: tuple[dict[int, RowDetails], dict[int, RowDetails]]


def write_page(out: Path, summary: DiffSummary, images: int, root: str | None) -> list[str]:
    """Write the page with up to so many images, and return warnings. `root` is where B's images are now.

    Raises UsageError where `out` holds anything but a page of ours, SourceError where nothing is at `root`.
    """
    found = summary.comparison
    shown = _choose(found, images)
    pictures = _pictures(found, shown, root)
    data = {
        "labels": list(found.names),
        "states": list(STATES),
        "causes": [[cause.value, MEANINGS[cause]] for cause in CAUSES],
        "rows": _rows(summary),
        "images": _cards(found, shown, pictures),
    }
    lacking = Counter(each.reason.partition(":")[0] for each in pictures if not each.webp)
    counts = ", ".join(f"{why} ({count:,})" for why, count in lacking.most_common())
    warnings = [f"images of the page without a picture: {lacking.total():,}, for {counts}"] if lacking else []
    with replacing(out, is_ours=is_page) as new:
        text = render(HERE, "diff", data, _values(summary, shown, warnings), libraries=["gallery"])
        new.write_text(text, encoding="utf-8")
    return warnings


def _choose(found: Comparison, most: int) -> _Shown:
    """Choose the images of the flips that tell most, each once."""
    chosen: dict[int, None] = {}
    for place, flips in found.telling.in_turn():
        if len(chosen) == most:
            break
        chosen[int(flips.images[place])] = None
    rows = []
    for side, at in zip(found.sides, (found.images.first, found.images.second), strict=True):
        row_of = {image: int(at[image]) for image in chosen if at[image] >= 0}
        details = read_rows(side.table, sorted(row_of.values())).details
        rows.append({image: details[row] for image, row in row_of.items()})
    return _Shown(list(chosen), (rows[0], rows[1]))


def _pictures(found: Comparison, shown: _Shown, root: str | None) -> list[Thumbnail]:
    """Return the pictures of the chosen images: from B's source, and from A's where only A has the image."""
    limit = min(MOST_PICTURE_BYTES, PICTURE_BYTES * len(shown.images))
    taken: dict[int, Thumbnail] = {}
    for number in (1, 0):
        side, details = found.sides[number], shown.rows[number]
        at = (found.images.first, found.images.second)[number]
        images = sorted((image for image in details if image not in taken), key=lambda image: int(at[image]))
        wanted = [
            Wanted(side.ids[int(at[image])].as_py(), details[image].uri, details[image].fingerprint) for image in images
        ]
        part = limit * len(wanted) // max(1, len(shown.images))
        taken |= zip(images, make_thumbnails(side.table.info.source, root, wanted, part), strict=True)
    return [taken[image] for image in shown.images]


def _cards(found: Comparison, shown: _Shown, pictures: Sequence[Thumbnail]) -> list[dict[str, Any]]:
    """Return a card for each image.

    `flips` are lists [label, kind, [state, state], [probability or null, probability or null], cause]; `kept` are
    labels to which both tables say yes.
    """
    numbers = np.sort(np.array(shown.images, np.int64))
    pairs, flips = found.flips_of(numbers)
    kept = pairs.taken((pairs.kinds(0) == THERE) & (pairs.kinds(1) == THERE))
    kinds = kinds_of(*flips.states)
    cards = []
    for image, picture in zip(shown.images, pictures, strict=True):
        at = range(*np.searchsorted(flips.images, (image, image + 1)).tolist())
        both = kept.labels[slice(*np.searchsorted(kept.images, (image, image + 1)))]
        name, earlier = found.image_name(image)
        details = [rows.get(image) for rows in shown.rows]
        lines = [
            [
                int(flips.labels[place]),
                int(kinds[place]),
                flips.states[:, place].tolist(),
                _known(flips.probabilities[:, place]),
                int(flips.causes[place]),
            ]
            for place in sorted(at, key=lambda place: -float(flips.moves[place]))
        ]
        cards.append(
            {
                "name": name,
                "earlier": earlier,
                "errors": ["" if each is None else each.error for each in details],
                "picture": picture.url,
                "shown": [picture.width, picture.height],
                "reason": picture.reason,
                "flips": lines,
                "kept": both.tolist(),
            }
        )
    return cards


def _known(values: Array) -> list[float | None]:
    return [None if np.isnan(each) else round(float(each), 4) for each in values]


def _rows(summary: DiffSummary) -> list[dict[str, Any]]:
    number = {name: place for place, name in enumerate(summary.comparison.names)}
    return [{**row, "label": number[row["name"]]} for row in summary.labels]


def _values(summary: DiffSummary, shown: _Shown, warnings: Sequence[str]) -> dict[str, Any]:
    first, second = (side.table.path for side in summary.comparison.sides)
    return {
        "title": f"{first.name} → {second.name}" if first.name != second.name else f"{first} → {second}",
        "first": str(first),
        "second": str(second),
        "lines": replace(summary, page=None).lines(),
        "tables": summary.reasons(),
        "numeric": numeric,
        "warnings": [*summary.warnings, *warnings],
        "shown": len(shown.images),
        "with_flips": summary.comparison.counts.flipped,
        "version": tagllm_cli.__version__,
        "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }
