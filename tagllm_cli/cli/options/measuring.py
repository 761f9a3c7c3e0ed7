"""Options of the commands that measure a table: evaluate, calibrate, audit, report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tagllm_cli.cli.options.base import (
    FLAG,
    INTERVALS,
    LEFT_OUT_NUMBERS,
    SUSPECTS,
    input_option,
    model_option,
    output_option,
    price_option,
    run_option,
)

FailUnder = Annotated[
    list[str] | None,
    output_option("--fail-under", metavar="METRIC=VALUE", help="Exit with 1 below it, as of1=0.9; repeatable."),
]
MinOverlap = Annotated[
    float,
    output_option(
        "--min-overlap",
        metavar="P",
        min=0,
        max=1,
        help="--fail-under fails when a smaller share of the truth's images is in the table.",
    ),
]
Overall = Annotated[bool, output_option("--overall", metavar=FLAG, help="Leave out the figures of single labels.")]
IncludeHuman = Annotated[
    bool,
    input_option("--include-human", metavar=FLAG, help="Count labels that people decided, too."),
]
ThresholdMetric = Annotated[
    str,
    output_option(
        "--metric", metavar="METRIC", help="f1; precision=P, then the most recall; recall=R, then the least yes."
    ),
]
CalibrationTruth = Annotated[
    Path | None,
    input_option("--truth", metavar="FILE", help="Human labels of some images; without them --bias alone decides."),
]
BiasImages = Annotated[
    int | None,
    model_option(
        "--bias",
        metavar="N",
        min=1,
        help="Ask all questions about N blank and N shuffled images, and use the bias where it helps.",
    ),
]
ThresholdsOut = Annotated[
    Path,
    output_option("--out", metavar="FILE", help="File of thresholds to write, for --thresholds."),
]
Folds = Annotated[
    int,
    run_option(
        "--folds", metavar="N", min=3, help="Parts of the images: each is measured by thresholds from the others."
    ),
]
FoldSeed = Annotated[int, run_option("--seed", metavar="N", min=0, help="Seed of the folds and of resampling.")]
OtherTables = Annotated[
    list[Path] | None,
    input_option("--compare", metavar="TABLE", help="Another table of the same images; repeatable."),
]
IntervalRounds = Annotated[
    int | None,
    output_option(
        INTERVALS,
        metavar="[ROUNDS]",
        min=20,
        help=f"95% intervals of all figures, by resampling the images ({LEFT_OUT_NUMBERS[INTERVALS]} times).",
    ),
]
Details = Annotated[
    bool,
    output_option(
        "--details",
        metavar=FLAG,
        help="Figures of parts (frequency, size, arms, probability); confused labels; reliability.",
    ),
]
SuspectCount = Annotated[
    int | None,
    output_option(
        SUSPECTS,
        metavar="[K]",
        min=1,
        help=f"Who is wrong where people disagree: the first {LEFT_OUT_NUMBERS[SUSPECTS]} pairs of either kind.",
    ),
]
SuspectsOut = Annotated[
    Path | None, output_option("--suspects-out", metavar="FILE", help="CSV file for all pairs of --suspects.")
]
CandidateTable = Annotated[
    Path | None,
    price_option("--candidates", metavar="TABLE", help="What the label tables were made from, if not by `tagllm run`."),
]
ResamplingSeed = Annotated[int, output_option("--seed", metavar="N", min=0, help="Seed of --intervals and --compare.")]
AuditAnswers = Annotated[
    Path | None,
    input_option(
        "--audit", metavar="FILE", help="Answers about the pairs that `tagllm audit` drew, instead of --truth."
    ),
]
AuditOut = Annotated[
    Path, output_option("--out", metavar="FOLDER", help="Folder to write: a page, a CSV and the design.")
]
AuditSize = Annotated[
    int,
    run_option(
        "--size", metavar="N", min=1, help="How many pairs of image and label to draw; some may stay unanswered."
    ),
]
AuditSeed = Annotated[int, run_option("--seed", metavar="N", min=0, help="Seed of the sample.")]
AuditConcepts = Annotated[
    Path | None,
    input_option("--concepts", metavar="FILE", help="Concept cards to show, as `disambiguate` took them."),
]
ReportOut = Annotated[Path | None, output_option("--out", metavar="FILE", help="HTML page to write.")]
CardOut = Annotated[
    Path | None,
    output_option("--card", metavar="FILE", help="Dataset card to write, as the Hugging Face Hub reads it."),
]
Truth = Annotated[
    Path | None,
    input_option("--truth", metavar="FILE", help="Human labels: CSV, COCO JSON, or a label table."),
]
ReportImages = Annotated[
    int,
    output_option(
        "--images", metavar="N", min=0, help="Images in the gallery: by errors, doubt, disagreement; some at random."
    ),
]
ReportSeed = Annotated[int, output_option("--seed", metavar="N", min=0, help="Seed of the images at random.")]
