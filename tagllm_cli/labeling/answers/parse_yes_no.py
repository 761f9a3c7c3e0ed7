"""Decide yes or no from the log-probabilities of the first answer token."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tagllm_cli.labeling.answers.parse_list import _plain
from tagllm_cli.records import Decision


@dataclass(frozen=True, slots=True)
class YesNo:
    """A yes/no answer: P(yes | yes or no) in [0, 1], None when unknown; `mass` = P(yes or no) in [0, 1]."""

    decision: Decision
    probability: float | None
    mass: float


def is_yes(probability: float, threshold: float) -> bool:
    """Return whether a probability or score decides yes: only above the threshold, both in [0, 1].

    The one rule for stages and exports.

    >>> is_yes(0.51, 0.5), is_yes(0.5, 0.5)
    (True, False)
    """
    return probability > threshold


def yes_no(
    first_logprobs: Mapping[str, float],
    yes: Sequence[str],
    no: Sequence[str],
    min_mass: float = 0.5,
    threshold: float = 0.5,
) -> YesNo:
    """Decide from the first answer token: yes where P(yes) / (P(yes) + P(no)) is above `threshold`, else no.

    `first_logprobs` maps likely first tokens to natural log-probabilities; every token that is one of the forms `yes`
    or `no`, apart from case and the space before it, counts. A mass on them below `min_mass` is `unknown`, not no.

    >>> yes_no({" Yes": math.log(0.6), "yes": math.log(0.2), "No": math.log(0.2)}, ["yes"], ["no"]).decision
    <Decision.YES: 'yes'>
    """
    tokens = [(token.strip().lstrip("\u2581\u0120").strip().casefold(), each) for token, each in first_logprobs.items()]
    for_yes, for_no = (
        sum(math.exp(min(logprob, 0.0)) for token, logprob in tokens if token in accepted)
        for accepted in (_plain(tuple(yes)), _plain(tuple(no)))
    )
    mass = for_yes + for_no
    # The comparison is false for NaN too.
    if not mass >= min_mass or mass == 0:
        return YesNo(Decision.UNKNOWN, None, mass if mass > 0 else 0.0)
    probability = for_yes / mass
    return YesNo(Decision.YES if is_yes(probability, threshold) else Decision.NO, probability, min(mass, 1.0))
