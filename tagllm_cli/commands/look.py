"""The commands that look: vocabularies, and what this machine can run."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from tagllm_cli.commands.settings import llm_options, make_console, model_options
from tagllm_cli.errors import UsageError
from tagllm_cli.options import (
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


def vocab_list(json_output: Json = False) -> None:
    """List the built-in vocabularies."""
    from tagllm_cli.vocab import builtin_vocabularies, load_vocabulary

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
    from tagllm_cli.tables import vocabulary_to_json
    from tagllm_cli.vocab import load_vocabulary

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
    from tagllm_cli.vocab import check_vocabulary

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
    from tagllm_cli.jobs import concept_models
    from tagllm_cli.scene_file import scenes_file

    typed = {**locals(), "max_pixels": None}
    console = make_console(json_output, quiet)
    writer, _ = concept_models(model_options(typed), llm_options(typed), out)
    report = scenes_file(vocab, out, writer.engine, prompts, writer.name)
    for note in report.notes:
        console.note(note)
    console.result(report.to_json(), report.lines())


def doctor(
    model: Model = None,
    endpoint: Endpoint = None,
    json_output: Json = False,
) -> None:
    """Say what this machine can run, and what is missing.

    [dim]tagllm doctor
    tagllm doctor --model Qwen/Qwen2.5-VL-7B-Instruct
    tagllm doctor --endpoint http://localhost:8000[/]
    """
    from tagllm_cli.doctor import examine

    report = examine(model, endpoint or ())
    rows = [
        (check.name, check.state, check.detail + (f"\n→ {check.hint}" if check.hint else "")) for check in report.checks
    ]
    make_console(json_output).table(report.to_json(), "what this machine can run", ("what", "state", "found"), rows)
    if not report.ready:
        raise typer.Exit(1)
