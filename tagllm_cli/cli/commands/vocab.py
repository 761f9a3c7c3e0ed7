"""`tagllm vocab list`, `show`, `check`, `scenes` and `suggest`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from tagllm_cli.cli.option_groups import EngineGroup, LlmGroup, ModelGroup, OutputGroup, make_console
from tagllm_cli.cli.options.comparing import MinImages, MostNames, SortNames, SuggestOut
from tagllm_cli.cli.options.concepts import ScenesOut
from tagllm_cli.cli.options.shared import Json, Prompts, VocabArgument
from tagllm_cli.errors import UsageError


def vocab_list(json_output: Json = False) -> None:
    """List the built-in vocabularies."""
    from tagllm_cli.vocabulary.load import builtin_vocabularies, load_vocabulary

    known = [load_vocabulary(name) for name in builtin_vocabularies()]
    value = {"vocabularies": [{"name": each.name, "labels": len(each.labels), "about": each.about} for each in known]}
    rows = [(each.name, f"{len(each.labels)}", each.about) for each in known]
    make_console(json_output).table(value, "built-in vocabularies", ("name", "labels", "about"), rows)


def vocab_show(vocab: VocabArgument, json_output: Json = False) -> None:
    """Show a vocabulary's labels: parents, synonyms, descriptions.

    [dim]tagllm vocab show coco
    tagllm vocab show my-labels.yaml --json[/]
    """
    from tagllm_cli.vocabulary.load import load_vocabulary
    from tagllm_cli.vocabulary.serialize import vocabulary_to_json

    shown = load_vocabulary(vocab)
    rows = [(each.name, each.parent or "", ", ".join(each.synonyms), each.description) for each in shown.labels]
    title = f"{shown.name}: {len(shown.labels)} labels"
    columns = ("label", "parent", "synonyms", "description")
    make_console(json_output).table(vocabulary_to_json(shown), title, columns, rows)


def vocab_check(vocab: VocabArgument, json_output: Json = False) -> None:
    """Check for duplicates, colliding synonyms, empty names, unknown parents; exit with 2 when it cannot be used.

    [dim]tagllm vocab check my-labels.yaml[/]
    """
    from tagllm_cli.vocabulary.load import check_vocabulary

    problems = check_vocabulary(vocab)
    value = {"vocabulary": vocab, "problems": [asdict(each) for each in problems]}
    lines = [f"{'error' if each.fatal else 'warning'}: {each.message}" for each in problems]
    make_console(json_output).result(value, lines or [f"{vocab}: no problems"])
    if any(each.fatal for each in problems):
        raise typer.Exit(UsageError.exit_code)


def vocab_scenes(
    vocab: VocabArgument,
    *,
    out: ScenesOut,
    llm: LlmGroup,
    model: ModelGroup,
    prompts: Prompts = None,
    engine: EngineGroup,
    output: OutputGroup,
) -> None:
    """Ask an LLM which labels share scenes: a file for `candidates --cooccurrence`, to be read and edited.

    [dim]tagllm vocab scenes labels.yaml --llm-endpoint URL --out scenes.yaml[/]
    """
    from tagllm_cli.pipeline.concepts.models import concept_models
    from tagllm_cli.pipeline.scenes import scenes_file

    console = output.console()
    multimodal = engine.model_options(model, console, verbose=output.verbose, prompts=prompts)
    writer, _ = concept_models(multimodal, llm.model_options(engine), out)
    report = scenes_file(vocab, out, writer.engine, prompts, writer.name)
    for note in report.notes:
        console.note(note)
    console.result(report.to_json(), report.lines())


def vocab_suggest(
    tables: Annotated[
        list[Path],
        typer.Argument(metavar="TABLE...", help="Candidate or label tables of one vocabulary.", show_default=False),
    ],
    *,
    out: SuggestOut = None,
    min_images: MinImages = 3,
    limit: MostNames = 100,
    sort: SortNames = False,
    llm: LlmGroup,
    model: ModelGroup,
    prompts: Prompts = None,
    engine: EngineGroup,
    output: OutputGroup,
) -> None:
    """Suggest names to add, synonyms, and what to merge or drop, from answers outside the vocabulary.

    [dim]tagllm vocab suggest candidates.parquet
    tagllm vocab suggest candidates.parquet open.parquet --out new-vocab.yaml
    tagllm vocab suggest open.parquet --sort --llm-endpoint URL --out new-vocab.yaml[/]
    """
    from tagllm_cli.evaluation.suggest import text
    from tagllm_cli.evaluation.suggest.suggest import SuggestOptions
    from tagllm_cli.pipeline.concepts.models import concept_models
    from tagllm_cli.pipeline.suggest import suggest_vocabulary

    console = output.console()
    writer = None
    if sort:
        multimodal = engine.model_options(model, console, verbose=output.verbose, prompts=prompts)
        writer, _ = concept_models(multimodal, llm.model_options(engine), out or Path("vocabulary.yaml"))
    factory = None if writer is None else writer.engine
    found = suggest_vocabulary(tables, out, SuggestOptions(min_images, limit), factory, prompts)
    for note in found.notes:
        console.note(note)
    console.result(text.to_json(found, out) if output.json_output else {}, text.lines(found, out))
    for title, cells in () if output.json_output or out is not None else text.tables(found):
        console.table({}, title, *cells)
