"""`tagllm vocab suggest`: names to add, sorted into the vocabulary's categories by an LLM if asked, and their file."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tagllm_cli.engines.base import Engine, ask_all
from tagllm_cli.evaluation.suggest.suggest import Suggestion, Suggestions, SuggestOptions, suggest
from tagllm_cli.evaluation.suggest.text import additions, head
from tagllm_cli.labeling.answers.parse_json import UnusableAnswerError, read_json
from tagllm_cli.labeling.answers.parse_list import Lexicon, render_names
from tagllm_cli.labeling.templates import Template, load_templates
from tagllm_cli.pipeline.scenes import check_new_yaml
from tagllm_cli.records import Response
from tagllm_cli.store.atomic import replacing
from tagllm_cli.text import shortened
from tagllm_cli.vocabulary.forms import folded, inflected
from tagllm_cli.vocabulary.model import Vocabulary
from tagllm_cli.vocabulary.write import vocabulary_yaml

NAMES_PER_QUESTION = 50


def suggest_vocabulary(
    tables: Sequence[Path],
    out: Path | None,
    options: SuggestOptions,
    engine_factory: Callable[[], Engine] | None = None,
    prompts: Path | None = None,
) -> Suggestions:
    """Look through tables, and write the vocabulary with what they suggest to `out`, which must not exist.

    Args:
        tables: candidate and label tables of one vocabulary.
        out: YAML file to write; None: none.
        options: how frequent a name must be, and how many are suggested.
        engine_factory: makes the engine of an LLM, not started; it is closed in any case. None: nothing is asked.
        prompts: folder of templates that replace built-in ones.

    Raises:
        UsageError: unusable tables or an unusable `out`.
        EndpointError, ModelError: the LLM cannot be reached or loaded.
    """
    if out is not None:
        check_new_yaml(out, "a vocabulary", "new-vocab.yaml")
    templates = load_templates(prompts)
    found = suggest(tables, options)
    if engine_factory is not None and found.labels:
        found = asyncio.run(_sorted(engine_factory(), found, templates["parents"]))
    if out is not None:
        with replacing(out) as new:
            new.write_text(vocabulary_yaml(found.vocabulary, additions(found), head(found)), encoding="utf-8")
    return found


async def _sorted(engine: Engine, found: Suggestions, template: Template) -> Suggestions:
    try:
        await engine.start()
        return await sort_names(engine, found, template)
    finally:
        await engine.close()


async def sort_names(engine: Engine, found: Suggestions, template: Template) -> Suggestions:
    """Return suggestions with the parents that a model names, those that are other words for labels as synonyms.

    `engine` was started. What it says about other names, categories and labels than it was given is left out, and notes
    say so. Raises EndpointError or EngineDiedError where the engine ends.
    """
    vocabulary, names = found.vocabulary, [each.name for each in found.labels]
    known = list(dict.fromkeys(label.parent for label in vocabulary.labels if label.parent))
    parts = [names[start : start + NAMES_PER_QUESTION] for start in range(0, len(names), NAMES_PER_QUESTION)]
    labels, categories = render_names(vocabulary.names), render_names(known)
    requests = [
        template.request(names=render_names(part), labels=labels, parents=categories, about=vocabulary.about)
        for part in parts
    ]
    said, notes = _Sorted(vocabulary, known, names), list(found.notes)
    for number, response in enumerate(await ask_all(engine, None, requests), 1):
        try:
            said.add(response)
        except UnusableAnswerError as error:
            notes.append(f"question {number} of {len(parts)} about categories failed: {error}")
    suggested = [said.applied(each) for each in found.labels]
    return replace(
        found,
        labels=[each for each in suggested if not each.same_as],
        synonyms=[*found.synonyms, *(each for each in suggested if each.same_as)],
        notes=[*notes, *said.notes()],
    )


class _Sorted:
    """What a model says about new names: the category of each, and the label that it is another word for."""

    def __init__(self, vocabulary: Vocabulary, parents: Sequence[str], names: Sequence[str]) -> None:
        self._lexicon = Lexicon(vocabulary)
        self._parents = {folded(parent): parent for parent in parents}
        self._names = {form: name for name in names for form in inflected(folded(name))}  # models like the singular
        self._names |= {folded(name): name for name in names}
        self._found: dict[str, tuple[str, str]] = {}  # parent and label, by name
        self._foreign: dict[str, None] = {}

    def add(self, response: Response) -> None:
        """Take in a response. Raises UnusableAnswerError for one that names nothing."""
        value = read_json(response)
        if isinstance(value, dict):  # some models wrap a list in an object
            value = next((each for each in value.values() if isinstance(each, list)), [])
        entries = [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []
        if not entries:
            raise UnusableAnswerError("the answer names nothing")
        for entry in entries:
            self._add(entry)

    def _add(self, entry: Mapping[str, Any]) -> None:
        name, parent, same = (entry.get(key) for key in ("name", "parent", "same_as"))
        if not isinstance(name, str) or folded(name) not in self._names:
            return
        known_parent = self._parents.get(folded(parent), "") if isinstance(parent, str) else ""
        known_label = self._lexicon.find(same) if isinstance(same, str) else None
        for said, known in ((parent, known_parent), (same, known_label)):
            if isinstance(said, str) and said and not known:
                self._foreign[said] = None
        self._found.setdefault(self._names[folded(name)], (known_parent, known_label or ""))

    def applied(self, each: Suggestion) -> Suggestion:
        """Return a suggestion with what was said about it."""
        parent, same = self._found.get(each.name, ("", ""))
        return replace(each, parent=parent or each.parent, same_as=same)

    def notes(self) -> list[str]:
        """Return sentences about what the vocabulary does not have."""
        if not self._foreign:
            return []
        return [f"the model named what is neither a category nor a label: {shortened(list(self._foreign))}"]
