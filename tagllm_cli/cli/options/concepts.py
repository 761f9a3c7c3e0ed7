"""Options of `concepts` and of `vocab scenes`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tagllm_cli.cli.options.base import FLAG, input_option, output_option, run_option

CardsOut = Annotated[
    Path,
    output_option("--out", metavar="FILE", help="Card file to write; an existing one is revised."),
]
ScenesOut = Annotated[
    Path,
    output_option("--out", metavar="FILE", help="File of scenes to write."),
]
ValidationTable = Annotated[
    Path | None,
    input_option("--table", metavar="TABLE", help="Candidate or label table whose images the cards are validated on."),
]
ValidationTruth = Annotated[
    Path | None,
    input_option("--truth", metavar="FILE", help="Human labels of some of these images, as `evaluate` takes them."),
]
ValidationImages = Annotated[
    str | None,
    input_option("--images", metavar="SOURCE", help="Images to validate the cards on, where there is no table."),
]
ValidationSeed = Annotated[int, run_option("--seed", metavar="N", help="Seed of the validation set.")]
Rounds = Annotated[
    int, run_option("--rounds", metavar="N", min=1, help="Maximum of rounds; ends when no card changes.")
]
Review = Annotated[
    bool,
    run_option("--review", metavar=FLAG, help="Accept, edit or reject each card in the terminal."),
]
OnlyLabels = Annotated[
    str | None,
    input_option("--labels", metavar="LABEL,...", help="Only these labels."),
]
