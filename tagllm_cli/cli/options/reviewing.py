"""Options of `review`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tagllm_cli.cli.options.base import FLAG, input_option, output_option, run_option

ReviewOut = Annotated[Path, output_option("--out", metavar="FILE", help="HTML page to write.")]
SecondTable = Annotated[
    Path | None,
    input_option("--second", metavar="TABLE", help="Another table of the same images: ask where the two differ."),
]
ReviewTruth = Annotated[
    Path | None,
    input_option("--truth", metavar="FILE", help="Human labels: ask where they and the table differ."),
]
ReviewLabels = Annotated[str | None, input_option("--labels", metavar="LABEL,...", help="Only these labels.")]
ReviewLimit = Annotated[int, run_option("--limit", metavar="N", min=1, help="How many pairs to ask about at most.")]
Again = Annotated[bool, run_option("--again", metavar=FLAG, help="Also ask about pairs that people decided.")]
Blind = Annotated[bool, output_option("--blind", metavar=FLAG, help="Hide what was said before, until H is pressed.")]
ReviewConcepts = Annotated[
    Path | None,
    input_option("--concepts", metavar="FILE", help="Concept cards to show, as `disambiguate` took them."),
]
