"""The demo model's questions: true answers, nothing from the held-out side, and rows that train what vLLM will ask."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
import torch

from tests.demo import descriptions, modelling, questions, reading, wordings
from tests.demo.questions import Question
from tests.demo.things import MEANS, NAMES, THINGS


def _scenes(count: int) -> list[tuple[Random, frozenset[str]]]:
    rng = Random(5)
    return [(Random(seed), frozenset(rng.sample(list(THINGS), rng.randint(0, 8)))) for seed in range(count)]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """The tokenizer that training builds."""
    return modelling.build_tokenizer(wordings.corpus())


def test_the_same_generator_gives_the_same_question() -> None:
    """Nothing but the generator decides."""
    for seed in range(200):
        shown = frozenset({"car", "mouse/device"})
        assert questions.about(Random(seed), shown) == questions.about(Random(seed), shown)


def test_lists_name_what_shows_in_alphabetical_order() -> None:
    """Either sense of a name counts; the order of the question does not."""
    asked = questions.group(Random(1), frozenset({"mouse/device", "cow"}), ["taxi", "mouse", "cow", "zebra"])
    assert asked.answer == "cow, mouse"
    assert questions.group(Random(1), frozenset({"cow"}), ["taxi"]).answer == "none"
    assert questions.open_list(Random(1), frozenset({"bat/cricket", "apple"})).answer == "apple, bat"


def test_answers_are_true_in_random_questions() -> None:
    """Recomputes every answer from the mentions, which carry what is meant."""
    kinds = set()
    for rng, shown in _scenes(800):
        asked = questions.about(rng, shown)
        kinds.add(asked.kind)
        if asked.kind.startswith("verify"):
            assert asked.answer == ("yes" if shown & set(asked.mentions[-1].things) else "no")
        else:
            listed = [] if asked.answer == "none" else asked.answer.split(", ")
            assert listed == sorted(set(listed), key=str.casefold)
            if asked.kind != "open":
                assert len(listed) == sum(bool(shown & set(mention.things)) for mention in asked.mentions)
    assert kinds == {"group", "all", "open", "verify", "verify_card"}


@pytest.mark.parametrize("name", sorted(MEANS))
def test_a_description_settles_which_sense_is_asked_for(name: str) -> None:
    """Both senses are asked about alike, and a bare name takes either."""
    first, second = wordings.meanings()[name]
    wording = str(wordings.templates()["verify_card"]["text"])
    for shown, other in ((first, second), (second, first)):
        bare = questions.verify(name, (first, second), frozenset({shown}), "{{ name }}?")
        assert bare.answer == "yes"
        for meant, answer in ((shown, "yes"), (other, "no")):
            text = descriptions.describe(Random(3), meant)
            assert questions.verify_card(name, text, (meant,), frozenset({shown}), wording).answer == answer


def test_mentions_end_where_names_and_descriptions_end() -> None:
    """Also where a name is a part of other words: "cat" in "category"."""
    asked = questions.verify("cat", ("cat",), frozenset(), "Look for this category: {{ name }}. Is it there?")
    assert asked.text[: asked.mentions[0].end].endswith(": cat")
    card = questions.verify_card("bow", "a red bow", ("bow/ribbon",), frozenset(), "{{ name }} is {{ description }}.")
    assert [card.text[: mention.end] for mention in card.mentions] == ["bow", "bow is a red bow"]


def test_training_never_describes_by_what_is_held_out() -> None:
    """Neither by a held-out combination, nor in the words of vocab/scenes.yaml, nor in a held-out frame."""
    published = {str(label["description"]) for label in wordings.vocabulary()}
    openings = {frame.split("{")[0].strip() for frame in wordings.frames()["held_out"]} - {""}
    for thing in THINGS:
        rng = Random(thing)
        for _ in range(60):
            values = descriptions.attributes(rng, thing)
            assert not descriptions.held_out(thing, frozenset(values))
            text = descriptions.phrase(rng, thing, values)
            assert all(value in text for value in values)
            assert text not in published
            assert not any(text.startswith(opening) for opening in openings)


def test_a_quarter_of_the_combinations_and_every_published_one_are_held_out() -> None:
    """The share is near a quarter, and each description of the vocabulary uses a combination kept out of training."""
    rng, info = Random(2), []
    for thing in THINGS:
        combinations = {frozenset(rng.sample(sorted(descriptions.values_of(thing)), 3)) for _ in range(40)}
        info += [descriptions.held_out(thing, values) for values in combinations]
    assert 0.2 < sum(info) / len(info) < 0.3
    for label in wordings.vocabulary():
        thing = MEANS.get(label["name"], label["name"])
        used = frozenset(value for value in descriptions.values_of(thing) if value in label["description"])
        assert descriptions.held_out(thing, used)


def test_names_with_commas_or_quotes_are_quoted_in_lists() -> None:
    """As the tool writes them; such names stand for nothing that shows."""
    asked = questions.group(Random(1), frozenset({"cow"}), ["table, wooden", "cow"], wording="{{ labels }}")
    assert asked.text == '"table, wooden", cow'
    assert asked.answer == "cow"


def test_half_of_the_wordings_are_the_tools_own() -> None:
    """Prompts are trained in the wording of prompts/, and in others."""
    own = "Is it visible in the image? Answer yes or no."
    texts = [questions.about(rng, shown) for rng, shown in _scenes(2000)]
    verify = [asked.text for asked in texts if asked.kind == "verify"]
    share = sum(text.endswith(own) for text in verify) / len(verify)
    assert 0.4 < share < 0.6
    assert len({text.split("\n")[-1] for text in verify}) > 20


def test_any_text_survives_the_tokenizer(tokenizer: Any) -> None:
    """Names of other vocabularies too; words of this one are one token each, yes and no included."""
    for text in ("Zürich — 東京 🐭", 'a  b\n- c, "d"', "label_10000", *NAMES):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    for name in [*NAMES, "yes", "no", "none"]:
        assert len(tokenizer.encode(name)) == len(name.split())


def test_training_sees_the_tokens_that_the_chat_template_makes(tokenizer: Any) -> None:
    """A row's prefix and question are token for token what a chat request becomes."""
    asked = Question("verify", "Is cow visible?", "yes")
    packer = reading.Packer(tokenizer)
    row = packer.start("You label images.", pictured=True)
    assert packer.add(row, asked, frozenset())
    user = [{"type": "image"}, {"type": "text", "text": asked.text}]
    chat = [{"role": "system", "content": "You label images."}, {"role": "user", "content": user}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    expanded = text.replace(modelling.IMAGE, modelling.IMAGE_TEXT)
    ids = tokenizer(expanded, add_special_tokens=False)["input_ids"]
    assert row.ids[: len(ids)] == ids
    assert tokenizer.decode(row.ids[len(ids) :]) == "yes<end_of_utterance>"


def test_a_packed_question_is_answered_as_if_it_were_alone(tokenizer: Any) -> None:
    """Nothing leaks from one question of a row into another: the model's states are those of the question by itself."""
    torch.manual_seed(0)
    model, packer = modelling.build_model(tokenizer).eval(), reading.Packer(tokenizer)
    shown = frozenset({"cow"})
    asked = [questions.group(Random(1), shown, ["cow", "car"]), questions.verify("car", ("car",), shown, "{{ name }}?")]

    def states(chosen: list[Question]) -> tuple[torch.Tensor, reading.Batch]:
        row = packer.start("You label images.", pictured=False)
        assert all(packer.add(row, question, shown) for question in chosen)
        data = reading.batch([row], 0, torch.device("cpu"))
        embedded = reading.embed(model, data, torch.zeros(1, 49, modelling.WIDTH), packer.image)
        mask = reading.visible(data.owner)
        return reading.run_text(model.model.text_model, embedded, mask, data.positions)[2], data

    with torch.no_grad():
        (together, both), (alone, single) = states(asked), states(asked[1:])
    expected = alone[single.targets >= 0]
    assert len(expected) == 2
    torch.testing.assert_close(together[both.targets >= 0][-2:], expected, atol=1e-5, rtol=1e-4)
