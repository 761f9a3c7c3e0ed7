"""Vocabularies: the built-in ones, the formats of a user's own, and what a check finds."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tagllm_cli import resources
from tagllm_cli.errors import VocabularyError
from tagllm_cli.labeling.answers.parse_list import Lexicon
from tagllm_cli.labeling.groups.partition import affinity_by_parent, cooccurring
from tagllm_cli.vocabulary.checks import Problem
from tagllm_cli.vocabulary.load import builtin_vocabularies, check_vocabulary, load_vocabulary
from tagllm_cli.vocabulary.model import Label, Vocabulary

YAML = """
name: pets
about: Animals at home.
parents: [animal]
labels:
  - name: dog
    parent: animal
    synonyms: [hound]
    description: >-
      a domestic animal
      that barks
    similar: [cat]
  - cat
  - {name: kitten, parent: cat}
groups:
  pairs: [[dog, cat], [kitten]]
"""


def written(folder: Path, text: str, name: str = "own.yaml") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


# Each anchor holds the one before it ten times.
MULTIPLYING = "\n".join(
    f"a{number}: &a{number} [{', '.join([f'*a{number - 1}' if number else 'x'] * 10)}]" for number in range(12)
).encode()


def kinds(problems: list[Problem]) -> dict[str, str]:
    return {problem.kind: problem.message for problem in reversed(problems)}


@pytest.mark.parametrize("name", ["coco", "objects365", "scenes", "voc"])
def test_builtin_vocabulary_has_no_problem(name: str) -> None:
    vocabulary = load_vocabulary(name)
    assert check_vocabulary(name) == []
    assert vocabulary.name == name
    assert vocabulary.about
    assert all(label.parent for label in vocabulary.labels)
    assert all(label.description and not label.description.endswith(".") for label in vocabulary.labels)


def test_builtin_names_are_listed() -> None:
    assert builtin_vocabularies() == ("coco", "objects365", "scenes", "voc")


def test_every_written_form_of_a_builtin_vocabulary_finds_its_label() -> None:
    for name in builtin_vocabularies():
        vocabulary = load_vocabulary(name)
        lexicon = Lexicon(vocabulary)
        forms = [(form, label.name) for label in vocabulary.labels for form in (label.name, *label.synonyms)]
        lost = [(form, label) for form, label in forms if lexicon.find(form.upper()) != label]
        assert lost == []


def test_datasets_keep_their_order_and_spelling() -> None:
    coco, objects, voc = (load_vocabulary(name).names for name in ("coco", "objects365", "voc"))
    assert (len(coco), len(objects), len(voc)) == (80, 365, 20)
    assert (coco[0], coco[11], coco[79]) == ("person", "stop sign", "toothbrush")
    assert (objects[0], objects[12], objects[350], objects[364]) == (
        "Person",
        "Cabinet/shelf",
        "Noddles",
        "Table Tennis",
    )
    assert (voc[0], voc[19]) == ("aeroplane", "tvmonitor")


def test_parents_of_objects365_make_scene_like_groups() -> None:
    vocabulary = load_vocabulary("objects365")
    parent = {label.name: label.parent for label in vocabulary.labels}
    groups = cooccurring(vocabulary.names, affinity_by_parent(vocabulary), 12)
    mixed = sum(len({parent[name] for name in group}) for group in groups) / len(groups)
    assert mixed < 2
    assert 12 <= len(set(parent.values())) <= 18


def test_a_yaml_file_is_read_in_full(tmp_path: Path) -> None:
    vocabulary = load_vocabulary(written(tmp_path, YAML))
    assert vocabulary == Vocabulary(
        name="pets",
        about="Animals at home.",
        labels=(
            Label("dog", "animal", ("hound",), "a domestic animal that barks", ("cat",)),
            Label("cat"),
            Label("kitten", "cat"),
        ),
        groups={"pairs": [["dog", "cat"], ["kitten"]]},
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("pets.txt", "# pets\ncat\n\n  no \r\nC# book\n1\n"),
        ("pets.json", '["cat", "no", "C# book", "1"]'),
        ("pets.JSON", '{"labels": ["cat", {"name": "no"}, "C# book", "1"]}'),
        ("pets.yml", "- cat\n- no\n- 'C# book'\n- name: 1\n  parent: null\n"),
        ("pets.yaml", "\ufefflabels: [cat, no, C# book, 1]\n"),
    ],
)
def test_every_format_gives_the_same_labels(tmp_path: Path, name: str, text: str) -> None:
    vocabulary = load_vocabulary(written(tmp_path, text, name))
    assert vocabulary == Vocabulary("pets", tuple(map(Label, ("cat", "no", "C# book", "1"))))


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("[cat, dog, cat]", "duplicate", "'cat' stands 2 times"),
        ("[cat, ' ']", "empty_name", "a label without a name, about number 2 (null needs quotes)"),
        ("[cat, null]", "empty_name", "a label without a name, about number 2 (null needs quotes)"),
        (
            "[cat, {name: dog, colour: red}]",
            "structure",
            "entry 2 of `labels` ('dog'): unknown key 'colour' (known: name, ",
        ),
        ("[{name: cat, sinonyms: [kitty]}]", "structure", "unknown key 'sinonyms' (did you mean 'synonyms'?)"),
        ("{labels: [cat], label: x}", "structure", "unknown key 'label' (did you mean 'labels'?)"),
        (
            "{label: [cat], about: x}",
            "structure",
            "the file has no `labels` (its keys: label, about): is 'label' meant",
        ),
        (
            "{train: x, val: y}",
            "structure",
            "has no `labels` (its keys: train, val): a vocabulary is a list of names, or",
        ),
        ("{labels: []}", "structure", "`labels` is an empty list"),
        ("{labels: cat}", "structure", "`labels` is not a list"),
        ("just text", "structure", "the file holds no labels: a vocabulary is a list of names, or"),
        ("[cat, [dog]]", "structure", "entry 2 of `labels`: it is neither a name nor a mapping"),
        ("[{name: cat, synonyms: kitty}]", "structure", "entry 1 of `labels` ('cat'): `synonyms` is not a list"),
        ("[{name: cat, synonyms: [[x]]}]", "structure", "('cat'), entry 1 of `synonyms`: it is not text"),
        ("[{name: cat, synonyms: [' ']}]", "structure", "('cat'), entry 1 of `synonyms`: it is empty"),
        ("[{name: cat, description: [x]}]", "structure", "entry 1 of `labels` ('cat'): `description` is not text"),
        ("[{name: !!timestamp 2026-01-01}]", "structure", "entry 1 of `labels`: `name` is not text"),
        ("{labels: [cat], groups: [[cat]]}", "structure", "`groups` is not a mapping"),
        ("{labels: [cat], groups: {x: [cat]}}", "structure", "entry 1 of `x`: it is not a list"),
        ("[{name: cat, parent: pet}]", "unknown_parent", "'cat' has the parent 'pet', which is neither"),
        ("[{name: a, parent: b}, {name: b, parent: a}]", "parent_cycle", "'a' is its own parent or ancestor"),
        ("[{name: cat, similar: [dog]}]", "unknown_similar", "'cat' is called similar to 'dog', which is no label"),
        ("[{name: cat, similar: [cat]}]", "unknown_similar", "'cat' is called similar to itself"),
        ("{labels: [a, b], groups: {x: [[a]]}}", "missing_in_group", "'b' is in no group of 'x'"),
        ("{labels: [a], groups: {x: [[a], [a]]}}", "repeated_in_group", "'a' stands 2 times in the groups of 'x'"),
        ("{labels: [a], groups: {x: [[a, c]]}}", "unknown_in_group", "groups of 'x' name 'c', which is no label"),
        (f"[{'x' * 201}]", "long_name", "has 201 characters, more than 200"),
    ],
)
def test_a_fatal_problem_is_found_and_stops_loading(tmp_path: Path, text: str, kind: str, message: str) -> None:
    spec = written(tmp_path, text)
    problems = check_vocabulary(spec)
    assert message in kinds(problems)[kind]
    assert problems[0].fatal
    with pytest.raises(VocabularyError) as caught:
        load_vocabulary(spec)
    assert message in caught.value.message
    assert "\n" not in caught.value.message
    assert spec in caught.value.hint


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("[Hot dog, hot-dog]", "alike", "'hot-dog' differs from 'Hot dog' only in case, spaces or hyphens"),
        ("[{name: cup, synonyms: [Mug]}, mug]", "colliding_synonym", "synonym 'Mug' of 'cup' also belongs to 'mug'"),
        (
            "[{name: cup, synonyms: [mug]}, {name: jug, synonyms: [mug]}]",
            "colliding_synonym",
            "synonym 'mug' of 'jug' also belongs to 'cup': it means neither",
        ),
        ('["two\\nlines"]', "control_character", r"'two\nlines' holds a control character"),
    ],
)
def test_a_doubtful_name_is_reported_and_can_be_used(tmp_path: Path, text: str, kind: str, message: str) -> None:
    spec = written(tmp_path, text)
    problems = check_vocabulary(spec)
    assert [problem.kind for problem in problems] == [kind]
    assert message in problems[0].message
    assert load_vocabulary(spec).labels


def test_a_category_may_bear_the_name_of_a_label(tmp_path: Path) -> None:
    assert check_vocabulary(written(tmp_path, "{parents: [person], labels: [{name: person, parent: person}]}")) == []


def test_half_a_surrogate_pair_is_refused(tmp_path: Path) -> None:
    spec = written(tmp_path, '["\\ud800"]', "own.json")
    assert [problem.kind for problem in check_vocabulary(spec)] == ["not_text"]


def test_the_first_problems_are_named_and_the_rest_counted(tmp_path: Path) -> None:
    spec = written(
        tmp_path, json.dumps([{"name": f"label {number}", "parent": "x"} for number in range(5)]), "own.json"
    )
    with pytest.raises(VocabularyError, match=r"'label 0'.*'label 2'.* \(and 2 more\)$"):
        load_vocabulary(spec)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("own.yaml", b"labels: [cat\n", "own.yaml, line 2: did not find expected"),
        ("own.yaml", b"labels: [cat]\nlabels: [dog]\n", "own.yaml, line 1: the key 'labels' stands twice"),
        ("own.yaml", b"- !!python/object:os.system x\n", "could not determine a constructor"),
        ("own.yaml", b"\x01", "own.yaml is not valid YAML"),
        ("own.yaml", b"\n- a\n- &x [b, *x]\n", "own.yaml, line 3: the anchor &x contains itself"),
        ("own.yaml", b"[" * 300_000, "own.yaml, line 1: lists and mappings are nested more than 50 deep"),
        ("own.yaml", b"- " * 300_000, "own.yaml, line 1: lists and mappings are nested more than 50 deep"),
        ("own.yaml", MULTIPLYING, "own.yaml, line 7: the content has more than 5,000,000 parts"),
        ("own.json", b'{"labels": ["a"], "labels": ["b"]}', "the key 'labels' stands twice"),
        ("own.txt", "cat\ndog".encode("utf-16"), "own.txt is UTF-16 text, not UTF-8 text"),
        ("own.csv", b"PK\x03\x04", "own.csv is a zip archive (Excel files are such), not UTF-8 text"),
        ("own.txt", b"labels:\n- cat\n- dog\n", "own.txt is YAML or JSON, not one name a line"),
        ("own.txt", b'["cat",\n"dog"]\n', "own.txt is YAML or JSON, not one name a line"),
        ("own.csv", b"/m/011k07,Tortoise\n/m/011q46kg,Container\n", "it is not clear which column holds the names"),
        ("own.json", b'["cat",]', "own.json, line 1: "),
        ("own.json", b"[" * 100_000, "own.json is not usable JSON"),
        ("own.txt", b"caf\xe9", "own.txt is not UTF-8 text (byte 3)"),
    ],
)
def test_a_file_that_cannot_be_parsed_is_one_clear_line(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(VocabularyError) as caught:
        check_vocabulary(str(path))
    assert message in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("spec", "hint"), [("cocoo", "Did you mean 'coco'?"), ("pictures/", "Built in: coco, objects365, scenes, voc.")]
)
def test_an_unknown_name_gets_a_suggestion(spec: str, hint: str) -> None:
    with pytest.raises(VocabularyError) as caught:
        load_vocabulary(spec)
    assert caught.value.hint == hint


@pytest.mark.parametrize("spec", ["missing.yaml", "nul\0.txt"])
def test_a_missing_file_is_named(tmp_path: Path, spec: str) -> None:
    with pytest.raises(VocabularyError, match="cannot be read"):
        load_vocabulary(str(tmp_path / spec))


def test_a_folder_is_no_vocabulary(tmp_path: Path) -> None:
    (tmp_path / "labels.yaml").mkdir()
    with pytest.raises(VocabularyError, match=r"labels\.yaml cannot be read: Is a directory"):
        load_vocabulary(str(tmp_path / "labels.yaml"))


def test_the_work_grows_with_the_labels_and_not_faster(tmp_path: Path) -> None:
    def calls(labels: int) -> int:
        entries = (f"- {{name: thing {number}, synonyms: [object {number}]}}" for number in range(labels))
        spec, counted = written(tmp_path, "\n".join(entries)), 0

        def count(frame: object, event: str, argument: object) -> None:
            nonlocal counted
            counted += 1

        sys.setprofile(count)
        try:
            load_vocabulary(spec)
        finally:
            sys.setprofile(None)
        return counted

    calls(10)  # imports
    assert calls(2_000) < 4.4 * calls(500)


# (file, content, its names, what the note says)
OTHER_FORMATS = [
    ("data.yaml", "path: x\nnc: 2\nnames:\n  1: no\n  0: hot dog\n", ["hot dog", "no"], "a YOLO data file: the 2"),
    ("data.yaml", "train: x\nnames: [cat, dog]\n", ["cat", "dog"], "a YOLO data file: the 2 entries of `names`"),
    ("x.json", '{"images": [], "categories": [{"id": 1, "name": "cat"}]}', ["cat"], "a COCO file: the 1 `categories`"),
    ("config.json", '{"id2label": {"10": "k", "9": "j"}}', ["j", "k"], "a model's configuration: the 2 entries"),
    ("x.json", '{"0": "cat", "1": "dog"}', ["cat", "dog"], "a mapping of number to name: its 2 names"),
    ("x.yaml", "dog: 1\ncat: 0\n", ["cat", "dog"], "a mapping of name to number: its 2 names"),
    ("x.txt", "cat, dog, person\n", ["cat", "dog", "person"], "one line is read as 3 names (cat, dog, person)"),
    ("x.txt", '# all\n"a, b"; c\n', ["a, b", "c"], "one line is read as 2 names"),
    ("x.txt", "cat\tdog", ["cat", "dog"], "one line is read as 2 names"),
    ("x.txt", "- cat\n- dog\n", ["cat", "dog"], "every line has bullets, which are left out: cat, dog"),
    ("x.txt", "0 cat\n1 hot dog\n", ["cat", "hot dog"], "every line has numbers, which are left out: cat, hot dog"),
    ("x.txt", "1. cat\n2. dog\n", ["cat", "dog"], "every line has numbers"),
    ("x.txt", "0: cat\n1: dog\n", ["cat", "dog"], "every line has numbers"),
    ("x.txt", '"cat",\n"dog"\n', ["cat", "dog"], "every line has commas at the ends and quotes"),
    ("coco.names", "cat\ndog\n", ["cat", "dog"], ""),
    ("x.csv", "cat\ndog\n", ["cat", "dog"], ""),
    ("x.csv", "Name\ncat\n", ["cat"], "a CSV file: the 1 labels are the column 'Name'"),
    ("x.csv", "id;class name\n7;cat\n9;dog\n", ["cat", "dog"], "a CSV file: the 2 labels are the column 'class name'"),
    ("x.csv", '0,cat\n1,"salt, pepper"\n', ["cat", "salt, pepper"], "a CSV file: the 2 labels are the second column"),
    ("x.csv", "cat,dog,cow\n", ["cat", "dog", "cow"], "a CSV file: the 3 labels are its one line"),
    ("x.tsv", "id\tlabel\n1\tcat\n", ["cat"], "a CSV file: the 1 labels are the column 'label'"),
]


@pytest.mark.parametrize(("name", "text", "names", "note"), OTHER_FORMATS)
def test_label_lists_of_other_tools_are_read_with_a_note(
    tmp_path: Path, name: str, text: str, names: list[str], note: str
) -> None:
    spec = written(tmp_path, text, name)
    vocabulary = load_vocabulary(spec)
    assert list(vocabulary.names) == names
    problems = check_vocabulary(spec)
    assert [(problem.kind, problem.fatal) for problem in problems] == [("file_format", False)] * bool(note)
    assert vocabulary.notes == tuple(problem.message for problem in problems)
    assert all(note in message for message in vocabulary.notes)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.txt", "tench, Tinca tinca\ngoldfish, Carassius auratus\n"),
        ("x.txt", "- cat\nflip-flop\n"),
        ("x.txt", "2 wheeler\n4 wheeler\n"),
        ("x.txt", "3 piece suit\n"),
        ("x.txt", '"cat"\ndog\n'),
        ("x.txt", "hot dog\n"),
    ],
)
def test_what_may_be_meant_as_it_is_stays(tmp_path: Path, name: str, text: str) -> None:
    vocabulary = load_vocabulary(written(tmp_path, text, name))
    assert (list(vocabulary.names), vocabulary.notes) == (text.splitlines(), ())


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.csv", f"{'9' * 5000},cat\n1,dog\n"),
        ("x.yaml", f"{'9' * 5000}: {'9' * 5000}\nx: 2\n"),
        ("x.txt", f"{'9' * 5000} cat\n1 dog\n"),
        ("x.txt", f"cat, {'x' * 200_000}\n"),
    ],
)
def test_numbers_and_cells_that_python_refuses_are_one_clear_line(tmp_path: Path, name: str, text: str) -> None:
    with pytest.raises(VocabularyError) as raised:
        load_vocabulary(written(tmp_path, text, name))
    assert "\n" not in raised.value.message


def test_a_yolo_file_whose_count_is_wrong_says_so(tmp_path: Path) -> None:
    notes = load_vocabulary(written(tmp_path, "nc: 3\nnames: [cat, dog]\n")).notes
    assert notes[1] == "`nc` says 3 classes, and `names` has 2"


def test_supercategories_of_coco_are_parents(tmp_path: Path) -> None:
    categories = [
        {"id": 3, "name": "cat", "supercategory": "animal"},
        {"id": 1, "name": "person", "supercategory": "person"},
        {"id": 2, "name": "cup", "supercategory": "none"},
    ]
    spec = written(tmp_path, json.dumps({"categories": categories}), "instances.json")
    assert load_vocabulary(spec).labels == (Label("cat", "animal"), Label("person", "person"), Label("cup"))


def test_several_problems_are_found_at_once(tmp_path: Path) -> None:
    spec = written(tmp_path, "about: [x]\nlabels: [{name: cat, colour: red}, {name: dog, similar: cat}, 7, [x]]\n")
    assert [problem.message.partition(":")[0] for problem in check_vocabulary(spec)] == [
        "`about` is not text (numbers need quotes in JSON)",
        "entry 1 of `labels` ('cat')",
        "entry 2 of `labels` ('dog')",
        "entry 4 of `labels`",
    ]


@pytest.mark.parametrize("kind", ["prompts", "vocab"])
def test_data_is_found_in_a_checkout_and_in_a_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    assert any(resources.folder(kind).glob("*.yaml"))  # type: ignore[arg-type]
    package = tmp_path / "tagllm_cli"
    (package / "data" / kind).mkdir(parents=True)
    monkeypatch.setattr(resources, "__file__", str(package / "resources.py"))
    assert resources.folder(kind) == package.resolve() / "data" / kind  # type: ignore[arg-type]
