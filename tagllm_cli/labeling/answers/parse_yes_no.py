"""Decide yes or no from the log-probabilities of the first answer token."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tagllm_cli.labeling.answers.lexicon import plain_forms
from tagllm_cli.records import Decision


@dataclass(frozen=True, slots=True)
class YesNo:
    """A yes/no answer: P(yes | yes or no) in [0, 1], None when unknown; `mass` = P(yes or no) in [0, 1]."""

    decision: Decision
    probability: float | None
    mass: float


# What a tokenizer puts before a word (a space, a newline), and marks that open an answer: `"Yes`, `**Yes`.
_AROUND = " \t\r\n\u2581\u0120\u010a*_`\"'\u2018\u2019\u201c\u201d\u300c\u300e([{<.,:;!"


def is_yes(probability: float, threshold: float) -> bool:
    """Return whether a probability or score decides yes: only above the threshold, both in [0, 1] and `as_stored`.

    The one rule for stages and exports.

    >>> is_yes(0.51, 0.5), is_yes(0.5, 0.5)
    (True, False)
    """
    return probability > threshold


def as_stored(value: float) -> float:
    """Return a probability, score or threshold as tables hold it, in float32.

    0.4 is 0.40000000596 there: above 0.4, unless both are rounded. All that decides is, so that it decides alike.
    """
    return array("f", [value])[0]


def yes_no(
    first_logprobs: Mapping[str, float],
    yes: Sequence[str],
    no: Sequence[str],
    min_mass: float = 0.5,
    threshold: float = 0.5,
) -> YesNo:
    """Decide from the first answer token: yes where P(yes) / (P(yes) + P(no)) is above `threshold` (`is_yes`), else no.

    `first_logprobs` maps likely first tokens to natural log-probabilities; every token that is one of the forms `yes`
    or `no`, apart from case and from space, quotes and asterisks around it, counts. A mass on them below `min_mass` is
    `unknown`, not no.

    >>> yes_no({" Yes": math.log(0.6), "yes": math.log(0.2), "No": math.log(0.2)}, ["yes"], ["no"]).decision
    <Decision.YES: 'yes'>
    """
    tokens = [(token.strip(_AROUND).casefold(), each) for token, each in first_logprobs.items()]
    for_yes, for_no = (
        sum(math.exp(min(logprob, 0.0)) for token, logprob in tokens if token in accepted)
        for accepted in (plain_forms(tuple(yes)), plain_forms(tuple(no)))
    )
    mass = for_yes + for_no
    # The comparison is false for NaN too.
    if not mass >= min_mass or mass == 0:
        return YesNo(Decision.UNKNOWN, None, mass if mass > 0 else 0.0)
    probability = as_stored(for_yes / mass)
    return YesNo(
        Decision.YES if is_yes(probability, as_stored(threshold)) else Decision.NO, probability, min(mass, 1.0)
    )
