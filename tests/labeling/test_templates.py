"""Templates: strict about files, keys and variables, and blind to what a value contains."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagllm_cli.errors import VocabularyError
from tagllm_cli.labeling.templates import Template, load_templates

NAMES = [
    "all",
    "concept_compare",
    "concept_draft",
    "concept_find",
    "concept_name",
    "group",
    "meaning",
    "open",
    "parents",
    "scenes",
    "verify",
    "verify_card",
]
TEMPLATES = load_templates()
VERIFY = "system: S\nimage: true\ntext: Is there {{ name }}?\nmax_tokens: 1\nyes: [yes]\nno: [no]\n"
OPEN = "system: S\nimage: true\ntext: What is there?\nmax_tokens: 9\nnone: [none]\n"


def test_builtin_templates() -> None:
    assert sorted(TEMPLATES) == NAMES
    assert TEMPLATES["group"].none == ("none",)
    pictured = {"all", "group", "open", "verify", "verify_card"}
    assert {name for name in NAMES if TEMPLATES[name].image} == pictured
    for name in ("verify", "verify_card"):
        # In YAML's usual rules the keys and forms `yes` and `no` would be booleans.
        assert {"yes", "true"} <= set(TEMPLATES[name].yes)
        assert {"no", "false"} <= set(TEMPLATES[name].no)
        assert TEMPLATES[name].max_tokens == 1


def test_a_request_carries_everything_that_decides_the_answer() -> None:
    request = TEMPLATES["verify_card"].request(20, name="bat", description="an animal", similar="bird")
    assert request.text == (
        "Category: bat. Here it means an animal. Not to be confused with bird.\n"
        "Is it visible in the image? Answer yes or no."
    )
    assert (request.system, request.with_image) == (TEMPLATES["verify_card"].system, True)
    assert (request.max_tokens, request.top_logprobs) == (1, 20)
    assert "confused" not in TEMPLATES["verify_card"].request(name="bat", description="x", similar="").text


@given(st.text() | st.sampled_from(["{{ 7 * 7 }}", "{% raw %}", "{# x #}", "{{ labels }}", "{{ self }}", "<b>&amp;\n"]))
def test_a_value_is_put_in_as_it_is(value: str) -> None:
    before, after = TEMPLATES["group"].text.split("{{ labels }}")
    assert TEMPLATES["group"].request(labels=value).text == before + value + after


@pytest.mark.parametrize("variables", [{}, {"labels": "a"}, {"name": "a", "similar": "b"}])
def test_missing_and_unknown_variables_are_refused(variables: dict[str, str]) -> None:
    with pytest.raises(TypeError, match=r"template 'verify' takes \['name'\], not "):
        TEMPLATES["verify"].request(0, **variables)


@pytest.mark.parametrize("name", NAMES)
def test_a_template_survives_json(name: str) -> None:
    assert Template.from_json(json.loads(json.dumps(asdict(TEMPLATES[name])))) == TEMPLATES[name]


def test_own_files_replace_builtin_ones_one_by_one(tmp_path: Path) -> None:
    (tmp_path / "verify.yaml").write_text(VERIFY)
    (tmp_path / "README.md").write_text("notes")
    (tmp_path / ".hidden").write_text("")
    templates = load_templates(tmp_path)
    assert templates["verify"] == Template("verify", "S", "Is there {{ name }}?", True, 1, yes=("yes",), no=("no",))
    assert {name: templates[name] for name in NAMES if name != "verify"} == {
        name: TEMPLATES[name] for name in NAMES if name != "verify"
    }


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("system: S", "systen: S", "`system` is missing; unknown key 'systen' (did you mean 'system'?)"),
        ("system: S", "system: '{{ name }}'", "`system` has variables, and can have none"),
        ("text: Is there {{ name }}?", "text: ' '", "`text` is empty"),
        ("{{ name }}", "{{ nam }}", "`text` uses {{ nam }}; this template has {{ name }}"),
        ("{{ name }}", "{{ name }} {{ range(999999999) }}", "`text` line 1 has a call"),
        ("{{ name }}", "it", "`text` does not use {{ name }}"),
        ("{{ name }}", "{{ name", "`text` line 1: unexpected char '?'"),
        ("{{ name }}", "{{ " + "(" * 5000 + "name" + ")" * 5000 + " }}", "`text` is nested too deeply"),
        (
            "{{ name }}",
            "{{ name | shout }}",
            "`text` line 1 has the filter 'shout'; a template can use variables, if, ",
        ),
        ("{{ name }}", "{{ name | replace('a', 'aaaaaaaaa') }}", "`text` line 1 has the filter 'replace'"),
        ("{{ name }}", "{{ name.title.x }}", "`text` line 1 has a dot"),
        ("{{ name }}", "{{ name.__class__.mro() }}", "`text` line 1 has a call"),
        ("{{ name }}", "{{ name.ljust(999999999) }}", "`text` line 1 has a call"),
        ("{{ name }}", "{{ name }}{{ 2 ** 99999999 }}", "`text` line 1 has `**`"),
        ("{{ name }}", "{{ name * 99999999999 }}", "`text` line 1 has `*`"),
        ("{{ name }}", "{% set n = name ~ name %}{{ n }}", "`text` line 1 has `set`"),
        ("{{ name }}", "{% for c in name %}{{ c }}{% endfor %}", "`text` line 1 has `for`"),
        ("{{ name }}", "{% macro m() %}{% endmacro %}{{ name }}", "`text` line 1 has `macro`"),
        ("{{ name }}", "{% include 'x' %}{{ name }}", "`text` line 1 has `include`"),
        ("{{ name }}", "{{ name }}{% if name < 3 %}{% endif %}", "`text` cannot be put together: '<' not supported"),
        ("image: true", "image: maybe", "`image` is neither true nor false"),
        ("max_tokens: 1", "max_tokens: 0", "`max_tokens` is too small"),
        ("max_tokens: 1", "max_tokens: 100001", "`max_tokens` is too large"),
        ("max_tokens: 1", "max_tokens: many", "`max_tokens` is not a whole number"),
        ("yes: [yes]", "none: [none]", "`yes` is missing; unknown key 'none'"),
        ("yes: [yes]", "yes: ja", "`yes` is not a list"),
        ("yes: [yes]", "yes: []", "`yes` is an empty list"),
        ("yes: [yes]", "yes: ['']", "entry 1 of `yes`: it is empty"),
        ("no: [no]", "no: [no, YES]", "`yes` and `no` both list 'yes'"),
        (VERIFY, "- a list", "it is not a mapping"),
    ],
)
def test_a_wrong_template_names_file_and_key(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in VERIFY
    (tmp_path / "verify.yaml").write_text(VERIFY.replace(old, new))
    with pytest.raises(VocabularyError) as caught:
        load_templates(tmp_path)
    assert f"{tmp_path / 'verify.yaml'}: {message}" in caught.value.message
    assert "\n" not in caught.value.message


ALL = "system: 'Labels: {{ labels }}'\ntext: Which?\nimage: true\nmax_tokens: 9\nnone: [none]\n"


def test_the_one_question_for_all_images_may_name_the_labels_before_the_image(tmp_path: Path) -> None:
    (tmp_path / "all.yaml").write_text(ALL)
    request = load_templates(tmp_path)["all"].request(labels="cat, {{ 7*7 }}")
    assert (request.system, request.text) == ("Labels: cat, {{ 7*7 }}", "Which?")


@pytest.mark.parametrize(
    ("system", "message"),
    [
        ("Labels", "`text` does not use {{ labels }}"),
        ("{{ label }}", "`system` uses {{ label }}; this template has {{ labels }}"),
        ("{{ labels", "`system` line 1: "),
        ("{{ labels }}{{ labels.x.y }}", "`system` line 1 has a dot"),
    ],
)
def test_a_wrong_system_part_names_file_and_key(tmp_path: Path, system: str, message: str) -> None:
    (tmp_path / "all.yaml").write_text(ALL.replace("Labels: {{ labels }}", system))
    with pytest.raises(VocabularyError) as caught:
        load_templates(tmp_path)
    assert f"{tmp_path / 'all.yaml'}: {message}" in caught.value.message


def test_a_template_that_fails_on_one_value_only_is_still_our_error(tmp_path: Path) -> None:
    text = "{{ name }}{% if name == 'cat' and name < 3 %}{% endif %}"
    (tmp_path / "verify.yaml").write_text(VERIFY.replace("{{ name }}", text))
    template = load_templates(tmp_path)["verify"]
    assert template.request(name="dog").text == "Is there dog?"
    with pytest.raises(VocabularyError, match="template 'verify', text: "):
        template.request(name="cat")


def test_a_template_can_choose_and_change_letters(tmp_path: Path) -> None:
    text = "{% if name in ['cat'] or not name is string %}the {{ name | title ~ '!' }}{% else %}{{ name }}{% endif %}"
    (tmp_path / "verify.yaml").write_text(VERIFY.replace("{{ name }}", text))
    assert load_templates(tmp_path)["verify"].request(name="cat").text == "Is there the Cat!?"


@pytest.mark.parametrize("name", ["verfy.yaml", "verify.yml", "verify.txt"])
def test_an_unknown_file_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(OPEN)
    with pytest.raises(VocabularyError, match=rf"{name} is no template that tagllm knows"):
        load_templates(tmp_path)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(VocabularyError, match="nowhere cannot be read: No such file"):
        load_templates(tmp_path / "nowhere")
