"""The likely cause of each flip: the first that holds, in the order of `Cause`.

What is certain comes first: an image or an answer is missing, a person decided, other bytes. Then what can be computed:
the second table's answer under the first table's thresholds, mass and votes gives the first table's decision; or the
label was a candidate in one table only, so nothing was asked in the other. Then what was changed on purpose and may
well be it: model, pixels, concept card, prompt, groups. What is left is another answer to the same question.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import numpy as np

from tagllm_cli.evaluation.diff.pairs import THERE, Images, Pairs, union_names
from tagllm_cli.evaluation.diff.settings import Differences
from tagllm_cli.evaluation.diff.side import NO, NOTHING, STATUSES, UNKNOWN, YES, Side
from tagllm_cli.evaluation.entry_arrays import Array
from tagllm_cli.records import Status


class Cause(StrEnum):
    """Why a label flipped, in the order in which causes are looked for."""

    IMAGE_ADDED = "image added"
    IMAGE_REMOVED = "image removed"
    PEOPLE = "people"
    FAILURE = "failure"
    VOCABULARY = "vocabulary"
    IMAGE_BYTES = "image bytes"
    THRESHOLDS = "thresholds"
    CANDIDATES = "candidates"
    MODEL = "model"
    PIXELS = "pixels"
    CARD = "concept card"
    PROMPT = "prompt"
    GROUPS = "groups"
    ANSWER = "model's answer"


CAUSES = tuple(Cause)
MEANINGS: Mapping[Cause, str] = {
    Cause.IMAGE_ADDED: "only B has the image",
    Cause.IMAGE_REMOVED: "only A has the image",
    Cause.PEOPLE: "a person decided in one of the tables",
    Cause.FAILURE: "one table has no answer: the image or the request failed, or is pending",
    Cause.VOCABULARY: "only one vocabulary has the label",
    Cause.IMAGE_BYTES: "the image has other bytes",
    Cause.THRESHOLDS: "B's answer under A's thresholds, mass and votes would give A's decision",
    Cause.CANDIDATES: "the label was a candidate in one table only; nothing was asked in the other",
    Cause.MODEL: "another model answered",
    Cause.PIXELS: "the image was shown at another size",
    Cause.CARD: "the label's concept card says something else",
    Cause.PROMPT: "the question is worded otherwise",
    Cause.GROUPS: "the label was asked about by another strategy, or in other groups",
    Cause.ANSWER: "the same question got another answer: batches and kernels round differently",
}


class Attribution:
    """Attributes flips of two tables to causes."""

    def __init__(self, sides: tuple[Side, Side], images: Images, settings: Differences) -> None:
        self._sides, self._images, self._settings = sides, images, settings
        self._is_label_stage = sides[0].table.info.stage == "labels"
        own = [frozenset(side.names) for side in sides]
        self._only_one = np.array([(name in own[0]) != (name in own[1]) for name in union_names(*sides)], bool)

    def causes(self, flips: Pairs) -> Array:
        """Return the cause of each flip as its place in CAUSES, int8."""
        images, settings, labels = self._images, self._settings, flips.labels
        everywhere = np.ones(len(labels), bool)
        held: dict[Cause, Array] = {
            Cause.IMAGE_ADDED: images.first[flips.images] < 0,
            Cause.IMAGE_REMOVED: images.second[flips.images] < 0,
            Cause.PEOPLE: self._entries(flips, 0, "human", False) | self._entries(flips, 1, "human", False),
            Cause.FAILURE: self._failed(flips, 0) | self._failed(flips, 1),
            Cause.VOCABULARY: self._only_one[labels],
            Cause.IMAGE_BYTES: images.replaced[flips.images],
            Cause.THRESHOLDS: self._limits_flip(flips),
            Cause.CANDIDATES: everywhere & self._is_label_stage & ((flips.places[0] < 0) != (flips.places[1] < 0)),
            Cause.MODEL: everywhere & settings.model,
            Cause.PIXELS: everywhere & settings.pixels,
            Cause.CARD: settings.cards[labels],
            Cause.PROMPT: settings.prompts[labels],
            Cause.GROUPS: settings.groups[labels],
        }
        tested = list(held.values())
        return np.select(tested, [CAUSES.index(cause) for cause in held], CAUSES.index(Cause.ANSWER)).astype(np.int8)

    def probabilities(self, flips: Pairs, side: int) -> Array:
        """Return the probabilities of one table, float32, NaN where it has none."""
        return self._entries(flips, side, "probabilities", np.nan)

    def _entries(self, flips: Pairs, side: int, name: str, missing: float | bool) -> Array:
        values, places = getattr(self._sides[side], name), flips.places[side]
        found: Array = np.full(len(places), missing, values.dtype)
        found[places >= 0] = values[places[places >= 0]]
        return found

    def _failed(self, flips: Pairs, side: int) -> Array:
        """Tell where a table has no whole answer about the image, and none about the label."""
        rows = (self._images.first, self._images.second)[side][flips.images]
        statuses = np.append(self._sides[side].statuses, np.int8(STATUSES.index(Status.OK)))  # -1: no such image
        unanswered = np.isnan(self._entries(flips, side, "masses", np.nan)) & (flips.states[side] == UNKNOWN)
        is_whole = statuses[rows] == STATUSES.index(Status.OK)
        return np.asarray(~is_whole & ((flips.states[side] == NOTHING) | unanswered))

    def _limits_flip(self, flips: Pairs) -> Array:
        settings, labels = self._settings, flips.labels
        differ = settings.limits_differ[labels]
        if not differ.any():
            return differ
        by_votes = np.zeros(len(labels), bool)
        if not self._is_label_stage:
            for side, other in ((0, 1), (1, 0)):
                too_few = self._entries(flips, side, "votes", 0) < settings.limits[other].min_votes
                by_votes |= (flips.kinds(side) == THERE) & too_few & (self._entries(flips, side, "votes", 0) > 0)
        probabilities, masses = (self._entries(flips, 1, name, np.nan) for name in ("probabilities", "masses"))
        first = settings.limits[0]
        would = np.where(probabilities > first.thresholds[labels], YES, NO)
        would = np.where(masses < np.float32(first.min_mass), UNKNOWN, would)
        known = ~np.isnan(probabilities) | (masses < np.float32(first.min_mass))
        # Too little mass for B and enough for A: what A's rule would have made of it is not on record, but not this.
        by_mass = (flips.states[1] == UNKNOWN) & (masses >= np.float32(first.min_mass))
        answered_both = (flips.places[0] >= 0) & (flips.places[1] >= 0)
        return np.asarray(differ & (by_votes | (answered_both & ((known & (would == flips.states[0])) | by_mass))))
