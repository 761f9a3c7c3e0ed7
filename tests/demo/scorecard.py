"""How good the demo model is, through real vLLM, on scenes it has not seen: `python -m tests.demo.scorecard [--write]`.

Truth is what the dataset means: the other sense of an ambiguous name is not there. Every scene gets each of the 60
names in one of five group questions, and 16 names (the 8 ambiguous ones and 8 others) in yes/no questions, however
rare they are.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from random import Random

import numpy as np

from tests.demo import descriptions, wordings
from tests.demo.scenes import Dials, Scene, draw
from tests.demo.served import Ask, Served, Told
from tests.demo.things import MEANS, NAMES

FIRST_SEED = 4000  # seeds 2000 to 2059 were looked at while the model was trained
BEGIN, END = "<!-- scorecard: begin -->", "<!-- scorecard: end -->"
SETTINGS = {  # as DIALS.md lists them, at the easiest first
    "other_sense": (0.0, 1 / 3, 2 / 3),
    "alike": (0.0, 0.2, 0.4),
    "company": (0.0, 0.5, 0.9),
    "smallest": (0.45, 0.16, 0.08),  # at 0.45 this dial does nothing: all things are large
}
_AT_ONCE = 50  # scenes whose requests are handed to vLLM together


@dataclass(frozen=True, slots=True)
class Asked:
    """A request with what it is about: kind of question, names asked, which of them the dataset says are there."""

    kind: str
    names: tuple[str, ...]
    there: frozenset[str]
    ask: Ask


@dataclass(slots=True)
class RunStats:
    """Decisions counted."""

    right: int = 0
    extra: int = 0
    missed: int = 0

    def add(self, said: bool, true: bool) -> None:
        """Counts one decision."""
        self.right += said and true
        self.extra += said and not true
        self.missed += true and not said

    def scores(self) -> tuple[float, float, float]:
        """Precision, recall and F1, 0 to 1; 0 where nothing was said or there."""
        precision = self.right / max(self.right + self.extra, 1)
        recall = self.right / max(self.right + self.missed, 1)
        return precision, recall, 2 * self.right / max(2 * self.right + self.extra + self.missed, 1)


class Results:
    """Tallies per kind of question, for unambiguous and ambiguous names apart, and all yes/no probabilities."""

    def __init__(self) -> None:
        """Starts empty."""
        self.tallies: dict[tuple[str, bool], RunStats] = {}
        self.odds: dict[str, list[tuple[float, bool]]] = {}
        self.outside = 0

    def add(self, asked: Asked, told: Told) -> None:
        """Counts one answer."""
        if asked.kind.startswith("verify"):
            name = asked.names[0]
            said = {name} if told.p_yes > 0.5 else set()
            # A bare ambiguous name means both things to the model: its doubt is not about what the dataset means.
            if asked.kind != "verify" or name not in MEANS:
                self.odds.setdefault(asked.kind, []).append((told.p_yes, name in asked.there))
        else:
            said = {word.strip() for word in told.text.split(",")} - {"none", ""}
            self.outside += len(said - set(asked.names))
        for name in asked.names:
            self.tallies.setdefault((asked.kind, name in MEANS), RunStats()).add(name in said, name in asked.there)

    def f1(self, kind: str, ambiguous: bool) -> float:
        """F1 of a kind of question."""
        return self.tallies[kind, ambiguous].scores()[2]


def calibration_error(pairs: Sequence[tuple[float, bool]], bins: int = 15) -> float:
    """Expected calibration error of P(yes), 0 to 1: mean gap between probability and truth over bins of equal width.

    >>> calibration_error([(0.75, True), (0.75, True), (0.75, True), (0.75, False)])
    0.0
    """
    chance, true = np.array([p for p, _ in pairs]), np.array([t for _, t in pairs], float)
    place = np.minimum((chance * bins).astype(int), bins - 1)
    gaps = [abs(chance[place == b].sum() - true[place == b].sum()) for b in range(bins)]
    return float(sum(gaps) / len(pairs))


def listing_questions(scene: Scene, seed: int, kinds: Iterable[str]) -> Iterator[Asked]:
    """Five group questions of 12, the whole vocabulary, the open question; as far as they are in `kinds`."""
    rng, there = Random(seed), frozenset(placed.label for placed in scene.placed if placed.label)
    names = rng.sample(NAMES, len(NAMES))
    cut = {
        "group": [names[start : start + 12] for start in range(0, len(names), 12)],
        "all": [list(NAMES)],
        "open": [list(NAMES)],
    }
    for kind in kinds:
        template = wordings.templates()[kind]
        for labels in cut[kind]:
            text = wordings.render(str(template["text"]), labels=", ".join(labels))
            yield Asked(kind, tuple(labels), there, Ask(scene.pixels, str(seed), text, int(template["max_tokens"])))


def yes_no_questions(scene: Scene, seed: int, kinds: Iterable[str], others: int) -> Iterator[Asked]:
    """Yes/no about the ambiguous names and `others` more: bare ("verify"), with the description of vocab/scenes.yaml
    ("verify_card"), with one in a wording that training never used ("verify_card, own wording")."""
    rng, there = Random(seed), frozenset(placed.label for placed in scene.placed if placed.label)
    cards = {label["name"]: label for label in wordings.vocabulary()}
    names = [*MEANS, *rng.sample([name for name in NAMES if name not in MEANS], others)]
    for kind in kinds:
        for name in names:
            card = cards[name]
            similar, description = ", ".join(card.get("similar", ())), str(card["description"])
            if kind == HELD_OUT:
                similar, description = "", descriptions.unseen_frame(rng, MEANS.get(name, name))
            template = wordings.templates()[kind.split(",")[0]]
            text = wordings.render(str(template["text"]), name=name, description=description, similar=similar)
            yield Asked(kind, (name,), there, Ask(scene.pixels, str(seed), text, 1))


HELD_OUT = "verify_card, own wording"


def measure(
    served: Served, count: int, dials: Dials, lists: Sequence[str], asks: Sequence[str], others: int
) -> Results:
    """Asks about `count` scenes from FIRST_SEED on and counts the answers."""
    results = Results()
    for start in range(FIRST_SEED, FIRST_SEED + count, _AT_ONCE):
        batch: list[Asked] = []
        for seed in range(start, min(start + _AT_ONCE, FIRST_SEED + count)):
            scene = draw(seed, dials)
            batch += listing_questions(scene, seed, lists)
            batch += yes_no_questions(scene, seed, asks, others)
        # The same seed at other dials is another picture: the key under which vLLM keeps it has to say so.
        told = served.ask([replace(asked.ask, key=f"{asked.ask.key} {dials}") for asked in batch])
        for asked, answer in zip(batch, told, strict=True):
            results.add(asked, answer)
        print(f"{dials}: {start + _AT_ONCE - FIRST_SEED} of {count} scenes", file=sys.stderr)
    return results


def speed(served: Served, count: int) -> str:
    """Answers `count` scenes x 8 group questions; says how long it took and what the prefix cache saved."""
    asks = []
    for seed in range(FIRST_SEED + 100_000, FIRST_SEED + 100_000 + count):
        scene, template = draw(seed), wordings.templates()["group"]
        for start in range(0, len(NAMES), 8):
            text = wordings.render(str(template["text"]), labels=", ".join(NAMES[start : start + 8]))
            asks.append(Ask(scene.pixels, f"speed {seed}", text, int(template["max_tokens"])))
    began = time.monotonic()
    told = served.ask(asks)
    seconds = time.monotonic() - began
    share = sum(answer.cached_tokens for answer in told) / sum(answer.prompt_tokens for answer in told)
    return (
        f"{count} scenes x 8 group questions: {seconds:.0f} s, {len(asks) / seconds:.0f} requests/s, "
        f"{share:.0%} of the prompt tokens from the prefix cache."
    )


def kinds_table(results: Results) -> list[str]:
    """Precision, recall, F1 per kind of question."""
    head = "| question | names | precision | recall | F1 | calibration error |"
    lines = [head, "| --- | --- | --- | --- | --- | --- |"]
    kinds = list(dict.fromkeys(kind for kind, _ in results.tallies))
    for kind, ambiguous in product(kinds, (False, True)):
        tally = results.tallies[kind, ambiguous]
        numbers = " | ".join(f"{score:.3f}" for score in tally.scores())
        pairs = results.odds.get(kind)
        error = f"{calibration_error(pairs):.3f}" if pairs and not ambiguous else ""
        lines.append(f"| {kind} | {'ambiguous' if ambiguous else 'unambiguous'} | {numbers} | {error} |")
    return lines


def dials_table(served: Served, count: int) -> list[str]:
    """What each dial does at three settings, the others at their defaults."""
    columns = (
        "dial", "setting", "group F1, unambiguous", "group F1, ambiguous", "bare precision", "bare F1",
        "described precision", "described F1", "description gains",
    )  # fmt: skip
    lines = [f"| {' | '.join(columns)} |", "|" + " --- |" * len(columns)]
    for dial, settings in SETTINGS.items():
        for setting in settings:
            results = measure(
                served, count, replace(Dials(), **{dial: setting}), ["group"], ["verify", "verify_card"], 0
            )
            bare, card = (results.tallies[kind, True].scores() for kind in ("verify", "verify_card"))
            numbers = [results.f1("group", False), results.f1("group", True), bare[0], bare[2], card[0], card[2]]
            cells = " | ".join(f"{number:.3f}" for number in numbers)
            lines.append(f"| {dial} | {setting:.2f} | {cells} | {card[2] - bare[2]:+.3f} |")
    return lines


def card(served: Served, scenes: int, dial_scenes: int) -> str:
    """The whole score card as Markdown."""
    asks = ["verify", "verify_card", HELD_OUT]
    results = measure(served, scenes, Dials(), ["group", "all", "open"], asks, 8)
    intro = (
        f"{scenes:,} scenes from seed {FIRST_SEED} on, default dials; calibration error in 15 bins, over all names of "
        f"the kind (bare: the unambiguous ones). {results.outside} names in answers to lists were not in the list."
    )
    dials = (
        f"Each dial at three settings, {dial_scenes} scenes each, the others at their defaults; bare and described are "
        "yes/no questions about the ambiguous names, described by vocab/scenes.yaml."
    )
    blocks = [[intro], kinds_table(results), [dials], dials_table(served, dial_scenes), [speed(served, 200)]]
    return "\n\n".join("\n".join(lines) for lines in blocks)


def write(text: str, readme: Path) -> None:
    """Puts the card between its two markers in `readme`. Raises ValueError if they are not there."""
    before, begin, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{readme} lacks the markers {BEGIN} and {END}")
    readme.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", type=Path, default=Path(__file__).with_name("model"))
    parser.add_argument("--scenes", type=int, default=1000)
    parser.add_argument("--dial-scenes", type=int, default=200, help="scenes for each setting of each dial")
    parser.add_argument("--write", action="store_true", help="put the card into README.md too")
    arguments = parser.parse_args()
    text = card(Served(arguments.model), arguments.scenes, arguments.dial_scenes)
    print(text)
    if arguments.write:
        write(text, Path(__file__).with_name("README.md"))


if __name__ == "__main__":
    main()
