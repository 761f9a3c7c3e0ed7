"""What the README may claim: differences between cells with their intervals, and the goals of the ablation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tests.ablation.bootstrap import Interval, Metric, f1, recall, samples
from tests.ablation.design import (
    BARE,
    BINARY,
    BOTH,
    CONTROLS,
    COOCCURRING,
    DESCRIPTION,
    DISJOINT,
    DOSES,
    MAIN,
    NONE,
    RANDOM,
    RANDOM_TWICE,
    REPEATED,
    SIMILAR,
    Concepts,
    Place,
    Strategy,
)
from tests.ablation.measure import SUBSETS, difference
from tests.ablation.study import Results

METRICS: Mapping[str, Metric] = {"OF1": f1, "recall": recall}

LEAST_RECALL, MOST_CANDIDATES, MOST_TOKENS = 0.97, 1.8, 1 / 3


@dataclass(frozen=True, slots=True)
class Difference:
    """How much higher a metric is in one cell than in another, on a subset of the labels."""

    name: str
    metric: str
    subset: str
    gain: Interval


@dataclass(frozen=True, slots=True)
class Goal:
    """One thing that was to be reached, what was found, and whether that reaches it."""

    wanted: str
    found: str
    is_met: bool


@dataclass(frozen=True, slots=True)
class Dose:
    """The gain of some cards over the bare question at one setting of the ambiguity dial, on a subset of the labels."""

    concepts: Concepts
    other_sense: float
    subset: str
    gain: Interval


def _main(strategy: Strategy, concepts: Concepts = NONE) -> Place:
    return Place(MAIN, strategy, concepts)


def _contrasts() -> Iterator[tuple[str, str, str, Place, Place]]:
    """Yield (name, metric, subset of labels, cell, the cell that it is compared with)."""
    bare = _main(BOTH, BARE)
    for concepts in (DESCRIPTION, SIMILAR, *CONTROLS):
        for subset in SUBSETS:
            yield f"{concepts.title} − bare, both arms", "OF1", subset, _main(BOTH, concepts), bare
    yield "bare yes/no − no disambiguation, both arms", "OF1", "all", bare, _main(BOTH)
    similar = _main(BOTH, SIMILAR)
    yield "similar named − description alone, both arms", "OF1", "all", similar, _main(BOTH, DESCRIPTION)
    yield f"{SIMILAR.title} − {REPEATED.title}", "OF1", "all", similar, _main(BOTH, REPEATED)
    yield "both arms − binary, with cards", "OF1", "all", similar, _main(BINARY, SIMILAR)
    for strategy in (COOCCURRING, DISJOINT):
        for metric in ("recall", "OF1"):
            yield f"{strategy.title} − random groups", metric, "all", _main(strategy), _main(RANDOM)
    for strategy in (COOCCURRING, DISJOINT, RANDOM, RANDOM_TWICE):
        yield f"both arms − {strategy.title}", "recall", "all", _main(BOTH), _main(strategy)
    yield f"both arms − {RANDOM_TWICE.title}", "OF1", "all", _main(BOTH), _main(RANDOM_TWICE)


def differences(results: Results) -> list[Difference]:
    """Return the differences between cells that are there."""
    return [
        Difference(name, metric, subset, Interval.of(difference(METRICS[metric], results[one], results[other], subset)))
        for name, metric, subset, one, other in _contrasts()
        if one in results and other in results
    ]


def doses(results: Results) -> list[Dose]:
    """Return the gains over the bare question, cards and controls, at each setting of the ambiguity dial."""
    found = []
    for concepts in (SIMILAR, *CONTROLS):
        for subset in SUBSETS:
            for dose in DOSES:
                one, bare = Place(dose, BOTH, concepts), Place(dose, BOTH, BARE)
                if one in results and bare in results:
                    gain = Interval.of(difference(f1, results[one], results[bare], subset))
                    found.append(Dose(concepts, dose, subset, gain))
    return found


def response(results: Results) -> Interval | None:
    """Return how much more cards gain on ambiguous labels at the highest dose than at none; None: not measured.

    The scenes differ between doses, so each dose is drawn on its own.
    """
    gains = []
    for seed, dose in enumerate((DOSES[-1], DOSES[0])):
        one, bare = Place(dose, BOTH, SIMILAR), Place(dose, BOTH, BARE)
        if one not in results or bare not in results:
            return None
        gains.append(difference(f1, results[one], results[bare], "ambiguous", seed))
    return Interval.of(gains[0] - gains[1])


def goals(results: Results, found: list[Difference]) -> list[Goal]:
    """Return the goals that can be judged by the cells that are there."""
    return [*_candidate_goals(results), *_cost_goals(results), *_card_goals(found)]


def _candidate_goals(results: Results) -> Iterator[Goal]:
    both = results.get(_main(BOTH))
    if both is None:
        return
    score = both.scores["all"]
    bounds = Interval.of(samples(recall, both.counts["all"]))
    text = f"{score.or_:.4f} [{bounds.low:.4f}, {bounds.high:.4f}]"
    yield Goal(f"candidate recall of both arms ≥ {LEAST_RECALL}", text, score.or_ >= LEAST_RECALL)
    ratio = score.mean_predicted / score.mean_true
    text = f"{ratio:.2f} × ({score.mean_predicted:.2f} of {score.mean_true:.2f})"
    yield Goal(f"candidates of both arms ≤ {MOST_CANDIDATES} × true labels", text, ratio <= MOST_CANDIDATES)


def _cost_goals(results: Results) -> Iterator[Goal]:
    shares = [_token_share(results, column) for column in (NONE, SIMILAR)]
    if shares[0] is not None:
        whole = "" if shares[1] is None else f"; {shares[1]:.3f} with both disambiguated with cards"
        yield Goal(
            "tokens computed by both arms ≤ 1/3 of exhaustive binary",
            f"{shares[0]:.3f}{whole}",
            shares[0] <= MOST_TOKENS,
        )


def _token_share(results: Results, concepts: Concepts) -> float | None:
    both, binary = results.get(_main(BOTH, concepts)), results.get(_main(BINARY, concepts))
    if both is None or binary is None or not binary.cost.computed_tokens:
        return None
    return both.cost.computed_tokens / binary.cost.computed_tokens


def _card_goals(found: list[Difference]) -> Iterator[Goal]:
    gains = {each.name: each.gain for each in found if each.metric == "OF1" and each.subset == "all"}
    for concepts in (SIMILAR, *CONTROLS):
        gain = gains.get(f"{concepts.title} − bare, both arms")
        if gain is not None:
            text = f"{gain.value:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]"
            if concepts in CONTROLS:
                yield Goal(f"{concepts.title} gain nothing: OF1 not above bare", text, not gain.is_above_zero)
            else:
                wanted = f"{concepts.title}: OF1 above bare by more than the interval"
                yield Goal(wanted, text, gain.is_above_zero)
