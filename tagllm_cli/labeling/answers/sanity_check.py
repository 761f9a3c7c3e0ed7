"""Sanity check: do the first answers of a long run make sense? Pure functions over a sample of answers."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tagllm_cli.labeling.answers.words import REFUSAL

SAMPLE_IMAGES = 32
# A sample smaller than this proves nothing about the next million images.
ENOUGH_ANSWERS = 12
REASONING = re.compile(
    r"^\W*(<think|<\|?(thinking|reasoning)|(okay|alright|so), (so|let)|let('s| me) (think|look|see|start|analy[sz]e)"
    r"|got it, |the user (wants|asks|is asking)|first, )",
    re.IGNORECASE,
)
# What an answer that has no yes or no in it begins with, where the model reasons first.
_REASONING_TOKEN = re.compile(r"<\|?think(ing)?\|?>|okay|ok|alright|so|let|got|first|hmm|wait", re.IGNORECASE)
_DO_NOT_REASON = "take the Instruct variant of the model, or switch reasoning off (--chat-template-kwargs)"


@dataclass(frozen=True, slots=True)
class ListAnswers:
    """A sample of list answers: their texts, how many were cut off, and how many names did and did not map.

    `unreadable` are the texts of those that are in no form that can be read. `names_given` says whether the question
    listed the names to choose from.
    """

    texts: Sequence[str]
    truncated: int
    mapped: int
    unmatched: int
    unreadable: Sequence[str] = ()
    names_given: bool = True


def complain_about_lists(answers: ListAnswers) -> str | None:
    """Return what is wrong with list answers in a sentence with advice, None when nothing is."""
    count = len(answers.texts)
    if count < ENOUGH_ANSWERS:
        return None
    if spoken := _complain_about_style(answers.texts):
        return spoken
    if answers.truncated > count / 5:
        advice = "raise max_tokens in the template, or take a model that answers briefly"
        return f"{answers.truncated} of {count} answers were cut off; {advice}"
    if len(answers.unreadable) > count / 5:
        advice = "ask in the template for names separated by commas and nothing else, or take a model that keeps to it"
        example = _shorten(answers.unreadable)
        return f"{len(answers.unreadable)} of {count} answers are in no form that can be read ({example}); {advice}"
    names = answers.mapped + answers.unmatched
    if answers.names_given and names >= ENOUGH_ANSWERS and answers.mapped < 0.3 * names:
        return (
            f"only {answers.mapped} of the {names} names in the answers are in the vocabulary "
            f"(an answer: {_shorten(answers.texts)}); "
            "check that the model sees images and understands the vocabulary's language"
        )
    return None


def complain_about_yes_no(
    first_logprobs: Sequence[Mapping[str, float]], masses: Sequence[float], texts: Sequence[str]
) -> str | None:
    """Return what is wrong with yes/no answers (`masses`: each one's P(yes or no)), None when nothing is."""
    if len(masses) < ENOUGH_ANSWERS:
        return None
    if spoken := _complain_about_style(texts):
        return spoken
    middle = statistics.median(masses)
    if middle >= 0.5:
        return None
    likeliest = Counter(max(tokens, key=lambda token: tokens[token]) for tokens in first_logprobs if tokens)
    tokens = ", ".join(repr(token) for token, _ in likeliest.most_common(3)) or "no log-probabilities at all"
    reasoned = sum(count for token, count in likeliest.items() if _REASONING_TOKEN.fullmatch(token.strip()))
    advice = "add the model's own words for yes and no to the template, or ask in its language"
    if reasoned > len(masses) / 2:
        advice = f"these begin to reason; {_DO_NOT_REASON}"
    return (
        f"half of the answers put less than {middle:.0%} of their probability on yes and no "
        f"(most likely first tokens: {tokens}); {advice}"
    )


def _complain_about_style(texts: Sequence[str]) -> str | None:
    refused = [text for text in texts if REFUSAL.search(text)]
    if len(refused) > len(texts) / 5:
        advice = "take another model or reword the template"
        return f"{len(refused)} of {len(texts)} answers are refusals ({_shorten(refused)}); {advice}"
    reasoned = [text for text in texts if REASONING.search(text)]
    if len(reasoned) > len(texts) / 5:
        return f"{len(reasoned)} of {len(texts)} answers start with reasoning ({_shorten(reasoned)}); {_DO_NOT_REASON}"
    return None


def _shorten(texts: Sequence[str]) -> str:
    longest = max(texts, key=len)
    return repr(longest if len(longest) <= 60 else longest[:57] + "...")
