"""The export formats by name. To add one: a module with a `FORMAT`, and its name in the two lines below.

Each export has a dataset card: the `README.md` of a folder, `OUT.card.md` beside a file. One that somebody edited or
wrote is left alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tagllm_cli.errors import UsageError
from tagllm_cli.export import (
    captions,
    coco,
    csv_file,
    csv_long,
    csv_wide,
    cvat,
    datumaro,
    fiftyone,
    flat_parquet,
    hf,
    imagefolder,
    jsonl,
    label_studio,
    numpy_file,
    webdataset,
    xmp,
    yolo_cls,
)
from tagllm_cli.export.base import ExportSettings, ExportSummary, Format, export_card
from tagllm_cli.export.options import checked_options
from tagllm_cli.export.settings import check_settings
from tagllm_cli.store.atomic import check_replaceable, check_writable_path

CARD_ENDING = ".card.md"

_MODULES = (
    *(coco, csv_file, csv_long, csv_wide, jsonl, numpy_file, flat_parquet, hf, imagefolder, webdataset),
    *(label_studio, cvat, fiftyone, datumaro, yolo_cls, captions, xmp),
)

FORMATS: Mapping[str, Format] = {each.FORMAT.name: each.FORMAT for each in _MODULES}


def export_table(
    path: Path,
    format_: str,
    out: Path,
    settings: ExportSettings = ExportSettings(),  # noqa: B008 (frozen)
) -> ExportSummary:
    """Export the table at `path`, with its dataset card.

    Raises UsageError for an unknown format, settings that it cannot take, an unusable table or an occupied `out`.
    """
    from tagllm_cli.store.dataset_card import put_card
    from tagllm_cli.store.table import open_table

    places = check_export(format_, out, settings)
    table = open_table(path)
    form = FORMATS[format_]
    options = checked_options(format_, form.options, settings.format_options)
    settings = replace(settings, format_options=options)
    summary = _united([form.export(table, place, replace(settings, only=only)) for only, place in places.items()])
    if summary.card is not None or not form.has_card:
        return summary
    card = out.with_name(f"{out.name}{CARD_ENDING}")
    written = put_card(card, export_card(table, summary, settings))
    return replace(summary, card=card, card_kept=not written)


def outputs(format_: str, out: Path, settings: ExportSettings) -> Mapping[str, Path]:
    """Return the files or folders that an export writes, by split (""; all in one).

    >>> split = ExportSettings(split=(("train", 0.9), ("test", 0.1)))
    >>> [str(each) for each in outputs("coco", Path("a/labels.json"), split).values()]
    ['a/labels.train.json', 'a/labels.test.json']
    """
    if not settings.split or FORMATS[format_].lays_out_splits:
        return {"": out}
    return {name: out.with_name(f"{out.stem}.{name}{out.suffix}") for name, _ in settings.split}


def check_export(format_: str, out: Path, settings: ExportSettings) -> Mapping[str, Path]:
    """Return `outputs`. Looks at no table.

    Raises UsageError for what `check_format` does, and for places that are occupied or cannot be written.
    """
    check_format(format_, settings)
    places = outputs(format_, out, settings)
    for place in places.values():
        check_writable_path(place, may_be_folder=True)
        check_replaceable(place, FORMATS[format_].is_ours)
    return places


def check_format(format_: str, settings: ExportSettings) -> None:
    """Raise UsageError for an unknown format, and for settings that make no sense or that it cannot take."""
    form = FORMATS.get(format_)
    if form is None:
        raise UsageError(f"there is no export format {format_!r}", f"Use one of {', '.join(FORMATS)}.")
    check_settings(settings, form.name, form.image_modes, holds_unknown=form.holds_unknown, has_shards=form.has_shards)
    checked_options(form.name, form.options, settings.format_options)


def _united(summaries: Sequence[ExportSummary]) -> ExportSummary:
    """Return the summary of exports that have no image in common."""
    first = summaries[0]
    if len(summaries) == 1:
        return first
    left_out, by_label = (
        sum((Counter(getattr(each, name)) for each in summaries), Counter[str]()) for name in ("left_out", "by_label")
    )
    return replace(
        first,
        files=tuple(file for each in summaries for file in each.files),
        images=sum(each.images for each in summaries),
        labels=sum(each.labels for each in summaries),
        unknown=sum(each.unknown for each in summaries),
        elsewhere=sum(each.elsewhere for each in summaries),
        human=sum(each.human for each in summaries),
        left_out=dict(sorted(left_out.items())),
        by_label=by_label,
        splits={name: count for each in summaries for name, count in each.splits.items()},
        notes=tuple(dict.fromkeys(note for each in summaries for note in each.notes)),
    )
