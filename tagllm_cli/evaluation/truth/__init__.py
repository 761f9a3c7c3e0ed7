"""Ground truth: human labels from any format, matched with a table's images and vocabulary.

`registry` lists the formats, one module each; `base` holds the records; `matching` finds which image and which label of
the truth is which of the table.
"""

from tagllm_cli.evaluation.truth.base import TableContext, Truth, TruthOptions
from tagllm_cli.evaluation.truth.matching import ImageMatch, NameMatch, match_images, match_names
from tagllm_cli.evaluation.truth.registry import load_truth

__all__ = [
    "ImageMatch",
    "NameMatch",
    "TableContext",
    "Truth",
    "TruthOptions",
    "load_truth",
    "match_images",
    "match_names",
]
