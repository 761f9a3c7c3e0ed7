"""Options of `tagllm export`: the format, and what is exported of the table."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from tagllm_cli.cli.options.base import FLAG, output_option
from tagllm_cli.export.registry import FORMATS
from tagllm_cli.export.settings import UNKNOWNS

ExportFormat = StrEnum("ExportFormat", list(FORMATS))  # type: ignore[misc]
Undecided = StrEnum("Undecided", list(UNKNOWNS))  # type: ignore[misc]
_LISTED = "\n\n".join(f"{name}: {form.help}." for name, form in FORMATS.items())


def _formats(incomplete: str) -> Iterator[tuple[str, str]]:
    """Yield what a shell shows when it completes a format: names with a phrase each."""
    yield from ((name, form.help) for name, form in FORMATS.items() if name.startswith(incomplete))


Format = Annotated[
    ExportFormat,
    output_option("--format", autocompletion=_formats, metavar="FORMAT", help=f"Format to write.\n\n{_LISTED}"),
]
ExportOut = Annotated[Path, output_option("--out", metavar="PATH", help="File or folder to write.")]
ScoreThreshold = Annotated[
    float | None,
    output_option("--threshold", metavar="P", min=0, max=1, help="Take labels by score instead of by decision."),
]
ExportLabels = Annotated[
    str | None,
    output_option("--labels", metavar="NAMES", help="Labels to export, with commas, or @FILE with a name per line."),
]
MinProbability = Annotated[
    float | None,
    output_option(
        "--min-probability",
        metavar="P",
        min=0,
        max=1,
        help="A yes of the model with less is taken for undecided; people's stand.",
    ),
]
Unknown = Annotated[
    Undecided | None,
    output_option(
        "--unknown",
        help="Undecided labels: keep them as such (not every format can), drop their images, or count them as yes.",
    ),
]
IncludeUnknown = Annotated[
    bool,
    output_option("--include-unknown", metavar=FLAG, help="The same as --unknown yes."),
]
Shares = Annotated[
    str | None,
    output_option("--split", metavar="SHARES", help="Splits to divide the images into, as train=.8,val=.1,test=.1."),
]
SplitSeed = Annotated[int, output_option("--seed", metavar="N", min=0, help="Seed of --split.")]
GroupBy = Annotated[
    str | None,
    output_option(
        "--group-by",
        metavar="folder|COLUMN",
        help="What --split keeps together: images of a folder, or of one value in a column of the source.",
    ),
]
Copy = Annotated[bool, output_option("--copy", metavar=FLAG, help="Copy the images, from any source.")]
Link = Annotated[
    bool,
    output_option(
        "--link",
        metavar=FLAG,
        help="Link the images: hard links where they work. A tool that changes them in their place changes yours.",
    ),
]
Reference = Annotated[
    bool, output_option("--reference", metavar=FLAG, help="Name the images by absolute path or URL, and write none.")
]
_OPTIONS = "; ".join(f"{name}: {', '.join(form.options)}" for name, form in FORMATS.items() if form.options)
FormatOptions = Annotated[
    list[str] | None,
    output_option(
        "--option",
        metavar="KEY=VALUE",
        help=f"An option of one format, which may be repeated. {_OPTIONS}.",
    ),
]
ShardSize = Annotated[
    str | None,
    output_option("--shard-size", metavar="SIZE", help="webdataset, hf: images or bytes per file, as 10000 or 500MB."),
]
NoEmbed = Annotated[bool, output_option("--no-embed", metavar=FLAG, help="hf: the same as --reference.")]
