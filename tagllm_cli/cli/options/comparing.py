"""Options of `diff` and of `vocab suggest`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tagllm_cli.cli.options.base import FLAG, input_option, model_option, output_option

DiffPage = Annotated[
    Path | None,
    output_option("--html", metavar="FILE", help="HTML page to write, which shows the images with flips."),
]
DiffImages = Annotated[
    int,
    output_option("--images", metavar="N", min=0, help="Images on the page: of each cause those that tell most."),
]
DiffRoot = Annotated[
    str | None,
    input_option("--root", metavar="PLACE", help="Folder or URL where the images of B are now, if they moved."),
]
Examples = Annotated[int, output_option("--limit", metavar="N", min=0, help="Flips to list, those that tell most.")]
FailOver = Annotated[
    list[str] | None,
    output_option(
        "--fail-over",
        metavar="SHARE=VALUE",
        help="Exit with 1 above it, as labels=0.02; also images, unknown, added, removed; repeatable.",
    ),
]
SuggestOut = Annotated[
    Path | None,
    output_option("--out", metavar="FILE", help="Vocabulary file to write: the old one with the suggestions, to edit."),
]
MinImages = Annotated[
    int, output_option("--min-images", metavar="N", min=1, help="Images of which a name must be said at least.")
]
MostNames = Annotated[
    int, output_option("--limit", metavar="N", min=0, help="Names to suggest at most, the most frequent ones.")
]
SortNames = Annotated[
    bool,
    model_option("--sort", metavar=FLAG, help="Have an LLM sort the names into the categories, and find synonyms."),
]
