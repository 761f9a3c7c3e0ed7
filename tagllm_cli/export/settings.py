"""What an export takes of a table: the settings that all formats share."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tagllm_cli.errors import UsageError, VocabularyError
from tagllm_cli.export.splits import Shares, check_shares

_SIZE = re.compile(r"(?P<number>\d+(\.\d+)?)\s*((?P<unit>[kMGT])(?P<binary>i)?B)?", re.IGNORECASE)
IMAGES = ("copy", "link", "reference")
UNKNOWNS = ("keep", "drop", "yes")


@dataclass(frozen=True, slots=True)
class ExportSettings:
    """What counts as a label of an image, which images are taken, and where they are.

    Human decisions stand in any case.

    Args:
        root: where the images are now, for formats that hold them (None: where the table says).
        threshold: in [0, 1), takes the labels whose score is above it; None: the decisions `yes`.
        thresholds: a file of thresholds of single labels (`tagllm calibrate`); `threshold` is that of the others.
        labels: names of the labels that are exported; (): all.
        min_probability: in [0, 1]; a `yes` of the model with less is taken for undecided.
        unknown: `keep` asks for a format that holds undecided labels, `drop` leaves images out that have any, `yes`
            counts them as present. None: formats that hold them do, others leave these labels out.
        split: names and shares of splits, which sum to 1; (): none.
        seed: of the splits.
        group_by: what stays together in one split: None for copies of an image, `folder`, or a column of the source.
        images: `copy`, `link` or `reference`, for formats that hold images; None: what the format does by default.
        format_options: what `--option key=value` says about this format alone (`Format.options`).
        shard_images: images per shard, for formats that have shards; 0: what the format does by default.
        shard_bytes: bytes per shard, likewise.
        only: the split that is written, where each has its own file; "": all.
    """

    root: str | None = None
    threshold: float | None = None
    thresholds: Path | None = None
    labels: tuple[str, ...] = ()
    min_probability: float | None = None
    unknown: str | None = None
    split: Shares = ()
    seed: int = 0
    group_by: str | None = None
    images: str | None = None
    format_options: Mapping[str, str] = field(default_factory=dict)
    shard_images: int = 0
    shard_bytes: int = 0
    only: str = ""


def check_settings(
    settings: ExportSettings, format_: str, modes: tuple[str, ...], *, holds_unknown: bool, has_shards: bool = False
) -> None:
    """Raise UsageError for what makes no sense, and for what a format cannot do.

    `modes` are those of IMAGES that it can do, () for a format without images; `holds_unknown` tells whether it tells
    undecided labels from absent ones.
    """
    if settings.min_probability is not None and not 0 <= settings.min_probability <= 1:
        raise UsageError(f"--min-probability {settings.min_probability} is not from 0 to 1", "For example 0.8.")
    if settings.unknown not in (None, *UNKNOWNS):
        raise UsageError(
            f"--unknown {settings.unknown} is none of {', '.join(UNKNOWNS)}", "For example --unknown drop."
        )
    if settings.unknown == "keep" and not holds_unknown:
        hint = "Use --unknown drop, or a format such as jsonl, csv-long or numpy."
        raise UsageError(f"{format_} cannot tell undecided labels from absent ones", hint)
    if settings.split:
        check_shares(settings.split)
    elif settings.group_by is not None:
        raise UsageError("--group-by says what stays together in a split, and there is no --split", "Add --split.")
    if (settings.shard_images or settings.shard_bytes) and not has_shards:
        raise UsageError(f"{format_} has no shards, whose size could be chosen", "Leave out --shard-size.")
    _check_images(settings, format_, modes)


def _check_images(settings: ExportSettings, format_: str, modes: tuple[str, ...]) -> None:
    if settings.images is None or settings.images in modes:
        return
    if not modes:
        message, hint = f"{format_} holds no images: there is nothing to {settings.images}", "Leave it out."
    else:
        message = f"{format_} cannot {settings.images} images"
        hint = f"It can {' and '.join(modes)}: {', '.join(f'--{mode}' for mode in modes)}."
    raise UsageError(message, hint)


def shard_size(text: str | None) -> tuple[int, int]:
    """Return images and bytes per shard, one of them 0, from a number of images or a size. Raises UsageError.

    >>> shard_size("10000"), shard_size("1.5 GB"), shard_size("500MiB")
    ((10000, 0), (0, 1500000000), (0, 524288000))
    """
    if text is None:
        return 0, 0
    found = _SIZE.fullmatch(text.strip())
    if found is None or (found["unit"] is None and "." in found["number"]) or not float(found["number"]):
        raise UsageError(f"--shard-size takes images or bytes, not {text!r}", "For example 10000, or 500MB.")
    if found["unit"] is None:
        return int(found["number"]), 0
    power = "kmgt".index(found["unit"].lower()) + 1
    return 0, int(float(found["number"]) * (1024 if found["binary"] else 1000) ** power)


def label_names(entries: Iterable[str]) -> tuple[str, ...]:
    """Return names of labels: the entries, and for `@FILE` the lines of that file. Raises UsageError."""
    from tagllm_cli.resources import read_text

    names: list[str] = []
    for entry in entries:
        if not entry.startswith("@"):
            names.append(entry)
            continue
        try:
            lines = read_text(Path(entry[1:])).splitlines()
        except VocabularyError as error:
            raise UsageError(error.message, error.hint) from error
        found = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        if not found:
            raise UsageError(f"{entry[1:]} names no label", "Write the name of a label on each line.")
        names += found
    return tuple(dict.fromkeys(names))


def chosen_unknown(unknown: str | None, *, include_unknown: bool) -> str | None:
    """Return which of UNKNOWNS is chosen, `include_unknown` being the older word for `yes`. Raises UsageError."""
    if include_unknown and unknown not in (None, "yes"):
        raise UsageError(f"--include-unknown is --unknown yes, and --unknown {unknown} is given, too", "Leave one out.")
    return "yes" if include_unknown else unknown


def chosen_images(*, copy: bool, link: bool, reference: bool, no_embed: bool = False) -> str | None:
    """Return which of IMAGES is chosen, None for none; `no_embed` is the older word for `reference`.

    Raises UsageError for two at once.
    """
    if no_embed and (copy or link):
        other = "copy" if copy else "link"
        raise UsageError(f"--no-embed is --reference, and --{other} is given, too", "Leave one out.")
    given = [name for name, is_given in zip(IMAGES, (copy, link, reference or no_embed), strict=True) if is_given]
    if len(given) > 1:
        message = f"{' and '.join(f'--{name}' for name in given)} exclude each other"
        raise UsageError(message, "Choose one of them.")
    return given[0] if given else None
