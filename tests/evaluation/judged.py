"""Comparisons made of arrays: probabilities of candidates, and what is in the images."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tagllm_cli.evaluation.entries import PREDICTED, Comparison, Entries, Judgments
from tagllm_cli.evaluation.truth.matching import ImageMatch, NameMatch
from tagllm_cli.records import Status

Array = npt.NDArray[Any]


def comparison_of(probability: Array, judgment: Array, listed: Array | None = None) -> Comparison:
    """Return a comparison of `probability` float [images, labels], NaN where undecided, and `judgment` (-1, 0, 1).

    Entries are those `listed`, all by default; a probability above 0.5 is a yes.
    """
    images, labels = judgment.shape
    rows, places = np.nonzero(np.ones_like(judgment, bool) if listed is None else listed)
    known = probability[rows, places].astype(np.float32)
    names = [f"label {number}" for number in range(labels)]
    ids = [f"{number}.jpg" for number in range(images)]
    entries = Entries(
        ids,
        [Status.OK] * images,
        np.zeros(images, np.int32),
        np.zeros(images, np.int32),
        names,
        (),
        rows,
        places,
        np.nan_to_num(known),
        known,
        (np.nan_to_num(known) > 0.5).astype(np.int8) * np.int8(PREDICTED),
        np.zeros(len(rows), np.uint64),
    )
    judged = Judgments(np.arange(judgment.size), judgment.ravel().astype(np.int8), 0)
    matched = ImageMatch({each: each for each in ids}, (), ())
    named = NameMatch({each: each for each in names}, (), ())
    return Comparison("labels", entries, judged, matched, named, {Status.OK: images})
