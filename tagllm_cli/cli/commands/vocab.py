"""The commands that look: vocabularies, and what this machine can run."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from tagllm_cli.cli.option_groups import llm_options, make_console, model_options
from tagllm_cli.cli.options import (
    Endpoint,
    EngineArg,
    Json,
    LlmEndpoint,
    LlmModel,
    Model,
    ModelId,
    Prompts,
    Quiet,
    ScenesOut,
    Verbose,
)
from tagllm_cli.errors import UsageError


def vocab_list(json_output: Json = False) -> None:
    """List the built-in vocabularies."""
    from tagllm_cli.vocabulary.load import builtin_vocabularies, load_vocabulary

    known = [load_vocabulary(name) for name in builtin_vocabularies()]
    value = {"vocabularies": [{"name": each.name, "labels": len(each.labels), "about": each.about} for each in known]}
    rows = [(each.name, f"{len(each.labels)}", each.about) for each in known]
    make_console(json_output).table(value, "built-in vocabularies", ("name", "labels", "about"), rows)


def vocab_show(
    vocab: Annotated[str, typer.Argument(metavar="VOCAB", help="Built-in name or file.", show_default=False)],
    json_output: Json = False,
) -> None:
    """Show a vocabulary's labels: parents, synonyms, what each means.

    [dim]tagllm vocab show coco
    tagllm vocab show my-labels.yaml --json[/]
    """
    from tagllm_cli.vocabulary.load import load_vocabulary
    from tagllm_cli.vocabulary.serialize import vocabulary_to_json

    shown = load_vocabulary(vocab)
    rows = [(each.name, each.parent or "", ", ".join(each.synonyms), each.description) for each in shown.labels]
    title = f"{shown.name}: {len(shown.labels)} labels"
    make_console(json_output).table(vocabulary_to_json(shown), title, ("label", "parent", "synonyms", "means"), rows)


def vocab_check(
    vocab: Annotated[str, typer.Argument(metavar="VOCAB", help="Built-in name or file.", show_default=False)],
    json_output: Json = False,
) -> None:
    """Look for duplicates, colliding synonyms, empty names, unknown parents; exit with 2 when it cannot be used.

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
    vocab: Annotated[str, typer.Argument(metavar="VOCAB", help="Built-in name or file.", show_default=False)],
    out: ScenesOut,
    llm_endpoint: LlmEndpoint = None,
    llm_model: LlmModel = None,
    model: Model = None,
    endpoint: Endpoint = None,
    prompts: Prompts = None,
    engine_arg: EngineArg = None,
    model_id: ModelId = None,
    verbose: Verbose = False,
    json_output: Json = False,
    quiet: Quiet = False,
) -> None:
    """Ask an LLM which labels share scenes: a file for `candidates --cooccurrence`, to be read and edited.

    [dim]tagllm vocab scenes labels.yaml --llm-endpoint URL --out scenes.yaml[/]
    """
    from tagllm_cli.pipeline.concepts.models import concept_models
    from tagllm_cli.pipeline.scenes import scenes_file

    typed = {**locals(), "max_pixels": None}
    console = make_console(json_output, quiet)
    writer, _ = concept_models(model_options(typed), llm_options(typed), out)
    report = scenes_file(vocab, out, writer.engine, prompts, writer.name)
    for note in report.notes:
        console.note(note)
    console.result(report.to_json(), report.lines())
