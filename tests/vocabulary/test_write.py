"""A vocabulary file with additions: what is loaded is the old vocabulary and what was added, whatever the names."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagllm_cli.vocabulary.load import builtin_vocabularies, check_vocabulary, load_vocabulary
from tagllm_cli.vocabulary.model import Label, Vocabulary
from tagllm_cli.vocabulary.write import Addition, Additions, vocabulary_yaml


@pytest.mark.parametrize("name", builtin_vocabularies())
def test_built_in_vocabularies_stay_as_they_are(tmp_path: Path, name: str) -> None:
    known = load_vocabulary(name)
    path = tmp_path / "again.yaml"
    path.write_text(vocabulary_yaml(known, Additions(), ["first"]), encoding="utf-8")
    assert load_vocabulary(str(path)) == known
    assert {each.kind for each in check_vocabulary(str(path))} == {each.kind for each in check_vocabulary(name)}


def test_additions_are_marked_and_join_groups_of_their_own(tmp_path: Path) -> None:
    known = Vocabulary("v", (Label("cup", "kitchen"), Label("no")), {"own": [["cup"], ["no"]]}, "things: at home")
    hostile = "x.jpg\n- name: evil\x85\u2028: #\x1b[31m"
    added = Additions(
        [
            Addition(Label("lamp", "furniture", ("lamps",)), f"12 images, as {hostile}"),
            Addition(Label("null"), "1 image"),
        ],
        {"cup": [("mug", "7 images")]},
    )
    path = tmp_path / "new.yaml"
    path.write_text(vocabulary_yaml(known, added, ["head"]), encoding="utf-8")
    found = load_vocabulary(str(path))
    assert found.names == ("cup", "no", "lamp", "null")
    assert found.labels[0].synonyms == ("mug",)
    assert (found.labels[2].parent, found.labels[2].synonyms) == ("furniture", ("lamps",))
    assert found.groups == {"own": [["cup"], ["no"], ["lamp", "null"]]}
    assert found.about == known.about
    assert check_vocabulary(str(path)) == []
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# head\nname: v\n")
    assert "# suggested synonym: mug (7 images)\n- {name: cup" in text
    assert "# 12 images, as x.jpg - name: evil : # [31m\n" in text


# YAML folds the control characters that end a line; `tagllm vocab check` warns of such names.
NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1, max_size=20).filter(str.strip)


@settings(max_examples=150)
@given(st.lists(NAMES, min_size=2, max_size=6, unique=True), st.text(max_size=40), NAMES)
def test_any_names_survive(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], comment: str, about: str
) -> None:
    *old, new = (Label(name, description=" ".join(about.split())) for name in names)
    known = Vocabulary("v", tuple(old), {}, about)
    path = tmp_path_factory.mktemp("v") / "v.yaml"
    comment = comment.encode("utf-8", "replace").decode()
    added = Additions([Addition(Label(new.name), comment)])
    path.write_text(vocabulary_yaml(known, added, [comment]), encoding="utf-8")
    found = load_vocabulary(str(path))
    assert found.labels == (*known.labels, Label(new.name))
    assert found.about == about
