"""Questions about a scene with their answers, in the tool's wording and in paraphrases, for training and score card.

Every function is pure: the same random generator in the same state gives the same question. What is held out of
training: the frames under `held_out` in frames.yaml, a quarter of each thing's attribute combinations, and every
combination that a description in vocab/scenes.yaml uses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from tests.demo import descriptions
from tests.demo.things import ALIKE, MEANS, NAMES, THINGS
from tests.demo.wordings import frames, located, meanings, quoted, render, synonyms, wording_of


@dataclass(frozen=True, slots=True)
class Mention:
    """Where a question names or describes something, for the auxiliary losses of training."""

    end: int
    """Offset of the character after the mention in the question's text."""
    things: tuple[str, ...]
    """Ids of the things that are meant; empty for a name of something that is in no scene."""
    described: bool
    """True at the end of a description, False at the end of a bare name."""


@dataclass(frozen=True, slots=True)
class Question:
    """A user text and what the model should answer."""

    kind: str
    """Template: group, all, open, verify, verify_card or meaning."""
    text: str
    answer: str
    mentions: tuple[Mention, ...] = ()


_LISTS: tuple[Callable[[Sequence[str]], str], ...] = (
    lambda names: "\n- " + "\n- ".join(names),
    lambda names: "\n" + "\n".join(names),
    lambda names: "; ".join(names),
    lambda names: ", ".join(f'"{name}"' for name in names),
    lambda names: "\n".join(f"{number}. {name}" for number, name in enumerate(names, 1)),
)


def listing(present: Sequence[str]) -> str:
    """The answer that lists names: in alphabetical order, or "none"."""
    return ", ".join(sorted(present, key=str.casefold)) or "none"


def group(
    rng: Random, shown: frozenset[str], labels: Sequence[str], kind: str = "group", wording: str = ""
) -> Question:
    """Which of `labels` show? Names of things, synonyms or names of nothing; `shown` are ids of things."""
    written = [quoted(label) for label in labels]
    free = wording == ""
    text = wording or wording_of(rng, kind)
    style = rng.choice(_LISTS) if free and rng.random() < 0.25 else ", ".join
    listed = style(written)
    full = render(text, labels=listed)
    at, mentions, known = full.index(listed), [], {**synonyms(), **meanings()}
    for label, name in zip(labels, written, strict=True):
        at = full.index(name, at) + len(name)
        mentions.append(Mention(at, known.get(label, known.get(label.lower(), ())), False))
    present = [label for label, mention in zip(labels, mentions, strict=True) if shown.intersection(mention.things)]
    return Question(kind, full, listing(present), tuple(mentions))


def _labels(rng: Random, shown: frozenset[str]) -> list[str]:
    """A group as training asks it: 1 to 60 labels, what shows more often than by chance."""
    size = 12 if rng.random() < 0.25 else rng.randint(1, 20) if rng.random() < 0.85 else rng.randint(21, 60)
    chance = rng.choice((0.0, 0.3, 0.8))
    names = [name for name, things in meanings().items() if shown.intersection(things) and rng.random() < chance]
    names = names[:size]
    others = rng.sample(NAMES, len(NAMES))
    strange = rng.choice((0.0, 0.0, 0.15, 0.5))
    for name in others:
        if len(names) >= size:
            break
        pick = str(rng.choice(frames()["absent"])) if rng.random() < strange else name
        if pick not in names:
            names.append(pick)
    if rng.random() < 0.25:
        swap = {things: word for word, things in rng.sample(sorted(synonyms().items()), len(synonyms()))}
        names = [swap.get(meanings().get(name, ()), name) if rng.random() < 0.5 else name for name in names]
    if rng.random() < 0.05:
        names = [name.capitalize() for name in names]
    names = list(dict.fromkeys(names))
    rng.shuffle(names)
    return names


def everything(rng: Random, shown: frozenset[str]) -> Question:
    """The whole vocabulary at once, in file, alphabetical or random order."""
    order = rng.choice((list, sorted, lambda names: rng.sample(names, len(names))))
    return group(rng, shown, order(NAMES), "all")


def open_list(rng: Random, shown: frozenset[str], wording: str = "") -> Question:
    """List what shows; the answer uses the 60 names."""
    present = [name for name, things in meanings().items() if shown.intersection(things)]
    return Question("open", wording or wording_of(rng, "open"), listing(present))


def verify(name: str, things: Sequence[str], shown: frozenset[str], wording: str) -> Question:
    """Is NAME visible? Any of `things` counts."""
    text, ends = located(wording, name=name)
    mention = Mention(ends["name"], tuple(things), False)
    return Question("verify", text, "yes" if shown.intersection(things) else "no", (mention,))


def verify_card(
    name: str, description: str, means: Sequence[str], shown: frozenset[str], wording: str, similar: str = ""
) -> Question:
    """Is NAME, in the sense of `description`, visible? `means` are the ids that name and description both fit."""
    text, ends = located(wording, similar=similar, name=name, description=description)
    bare = {**synonyms(), **meanings()}.get(name, ())
    mentions = (Mention(ends["name"], bare, False), Mention(ends["description"], tuple(means), True))
    return Question("verify_card", text, "yes" if shown.intersection(means) else "no", mentions)


def _rival(rng: Random, shown: frozenset[str]) -> str:
    """A thing to ask about: half of the time any, which is seldom there, else one that is there or easily mistaken."""
    if rng.random() < 0.5:
        return rng.choice(list(THINGS))
    pairs = [pair for pair in ALIKE if shown.intersection(pair)]
    if pairs and rng.random() < 0.4:
        return rng.choice(rng.choice(pairs))
    if shown and rng.random() < 0.5:
        return rng.choice(sorted(shown))
    return rng.choice(list(THINGS))


def _asked(rng: Random, shown: frozenset[str]) -> Question:
    """A yes/no question without a description."""
    if rng.random() < 0.1:
        name = str(rng.choice(frames()["absent"]))
        return verify(quoted(name), (), shown, wording_of(rng, "verify"))
    thing = THINGS[_rival(rng, shown)]
    words = [word for word, things in synonyms().items() if things == (thing.id,)]
    if words and rng.random() < 0.2:
        return verify(rng.choice(words), (thing.id,), shown, wording_of(rng, "verify"))
    return verify(thing.name, meanings()[thing.name], shown, wording_of(rng, "verify"))


def _similar(rng: Random, thing: str) -> str:
    """What the description warns of: names, synonyms, or a description of the name's other sense; often nothing."""
    if rng.random() < 0.5:
        return ""
    partner = [THINGS[other].name for pair in ALIKE if thing in pair for other in pair if other != thing]
    names = [name for name in NAMES if name != THINGS[thing].name]
    rivals = [other for other in meanings()[THINGS[thing].name] if other != thing]
    if rivals and rng.random() < 0.4:
        words = [word for word, things in synonyms().items() if things == (rivals[0],)]
        return rng.choice([*words, descriptions.describe(rng, rivals[0])])
    chosen = [*partner, *rng.sample(names, rng.randint(1, 3))][: rng.randint(1, 3)]
    return rng.choice((", ", ", ", " or ", " and ")).join(dict.fromkeys(chosen))


def _carded(rng: Random, shown: frozenset[str]) -> Question:
    """A yes/no question with a description."""
    wording, dice = wording_of(rng, "verify_card"), rng.random()
    if dice < 0.2:
        # A name that says nothing: only the description can answer, by whatever fits all of it.
        thing = _rival(rng, shown)
        values = descriptions.attributes(rng, thing, least=2)
        name = rng.choice(
            (f"item {rng.randint(1, 99)}", f"class {rng.choice('ABCDEFGH')}", "target", "category 7", "it")
        )
        means = tuple(other for other in THINGS if set(values) <= descriptions.values_of(other))
        return verify_card(name, descriptions.phrase(rng, thing, values), means, shown, wording)
    if dice < 0.24:
        thing, other = rng.sample(list(THINGS), 2)
        if THINGS[thing].name != THINGS[other].name and shown:
            thing = rng.choice(sorted(shown))
            fits = not set(values := descriptions.attributes(rng, other)) - descriptions.values_of(thing)
            means = (thing,) if fits else ()
            return verify_card(THINGS[thing].name, descriptions.phrase(rng, other, values), means, shown, wording)
    ambiguous = [thing for name in MEANS for thing in meanings()[name]]
    near = [thing for thing in ambiguous if shown.intersection(meanings()[THINGS[thing].name])]
    if dice < 0.7:
        thing = rng.choice(near) if near and rng.random() < 0.6 else rng.choice(ambiguous)
    else:
        thing = _rival(rng, shown)
    name, similar = THINGS[thing].name, _similar(rng, thing)
    return verify_card(name, descriptions.describe(rng, thing), (thing,), shown, wording, similar)


def meaning(rng: Random) -> Question:
    """What does NAME look like? Both senses for an ambiguous name, in either order; no image goes with it."""
    name = rng.choice(NAMES) if rng.random() < 0.9 else str(rng.choice(frames()["absent"]))
    senses = [descriptions.plain(rng, thing) for thing in meanings().get(name, ())]
    rng.shuffle(senses)
    answer = " or ".join(senses) or "something that I have not seen"
    return Question("meaning", render(wording_of(rng, "meaning"), name=quoted(name)), answer)


def about(rng: Random, shown: frozenset[str]) -> Question:
    """A random question about a picture, as training draws them."""
    dice = rng.random()
    if dice < 0.33:
        return group(rng, shown, _labels(rng, shown))
    if dice < 0.37:
        return everything(rng, shown)
    if dice < 0.45:
        return open_list(rng, shown)
    return _asked(rng, shown) if dice < 0.6 else _carded(rng, shown)
