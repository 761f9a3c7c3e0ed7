"""The command line, on typer as its options (`options.py`). One function per command; the work is done in other rooms.

Rooms are imported inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from tagllm_cli.errors import GateError, InterruptedRunError, TagllmError, UsageError
from tagllm_cli.options import (
    FLAG,
    WANTS_JSON,
    Arms,
    Changed,
    ChangedBy,
    Concepts,
    Config,
    Dry,
    Endpoint,
    EngineArg,
    ExportOut,
    FailedRate,
    FailUnder,
    Format,
    Gone,
    GroupSize,
    IncludeHuman,
    IncludeUnknown,
    Json,
    Limit,
    MaxPixels,
    MinMass,
    MinVotes,
    Missing,
    MissingAs,
    Model,
    ModelId,
    NoEmbed,
    NoPreflight,
    Offline,
    Out,
    Overall,
    Prompts,
    Quiet,
    Record,
    Replan,
    Replay,
    Root,
    Sample,
    ScoreThreshold,
    Seed,
    Threshold,
    Truth,
    Verbose,
    Vocab,
)

if TYPE_CHECKING:
    from tagllm_cli.console import Console
    from tagllm_cli.labelling import Job, RunOptions


class _Group(TyperGroup):
    """Turns every error that a user can cause into two lines and an exit code, where `CliRunner` sees them too."""

    def make_context(self, info_name: str | None, args: list[str], *rest: Any, **extra: Any) -> Any:
        self._json = "--json" in args  # needed before the arguments are parsed, and where they cannot be
        with self._explaining({}):
            _check_text(args)
            return super().make_context(info_name, args, *rest, **extra)

    def invoke(self, ctx: Any) -> Any:
        with self._explaining(ctx.meta):
            return super().invoke(ctx)

    @contextmanager
    def _explaining(self, meta: Mapping[str, Any]) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            known = _as_ours(error)
            if known is None:
                raise
            _console(self._json or WANTS_JSON in meta).error(known)
            raise typer.Exit(known.exit_code) from error
        except KeyboardInterrupt as error:
            interrupted = InterruptedRunError(
                "interrupted; what was answered is kept", "The same command goes on from here."
            )
            _console(self._json or WANTS_JSON in meta).error(interrupted)
            raise typer.Exit(interrupted.exit_code) from error


def _check_text(args: Sequence[str]) -> None:
    """Refuse bytes that are not UTF-8, which Python reads as lone surrogates: no table can name such a file."""
    for each in args:
        if any("\ud800" <= character <= "\udfff" for character in each):
            raise UsageError(f"{each} is not UTF-8", "Rename the file or folder.")


def _as_ours(error: Exception) -> TagllmError | None:
    if isinstance(error, TagllmError):
        return error
    # typer keeps its own usage errors in a private module; what they have in common is `format_message`. One of them
    # is no error: a command without arguments shows its help.
    if not hasattr(error, "format_message") or type(error).__name__ == "NoArgsIsHelpError":
        return None
    context = getattr(error, "ctx", None)
    command = "tagllm" if context is None else context.command_path
    return UsageError(error.format_message(), f"`{command} --help` lists what there is.")


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
vocab_app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", help="Built-in vocabularies and your own.")
app.add_typer(vocab_app, name="vocab", rich_help_panel="Look")


def _show_version(value: bool) -> None:
    if value:
        from tagllm_cli import __version__

        typer.echo(f"tagllm {__version__}")
        raise typer.Exit


@app.callback()
def tagllm(
    version: Annotated[
        bool, typer.Option("--version", metavar=FLAG, callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Label image datasets with a multimodal LLM served by vLLM.

    [dim]tagllm candidates photos/ --vocab coco --model MODEL --out candidates.parquet
    tagllm disambiguate candidates.parquet --out labels.parquet
    tagllm evaluate labels.parquet --truth instances.json
    tagllm export labels.parquet --format coco --out labels.json[/]
    """


@app.command(rich_help_panel="Label")
def candidates(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Folder of images.", show_default=False)],
    vocab: Vocab,
    out: Out,
    model: Model = None,
    endpoint: Endpoint = None,
    arms: Arms = None,
    group_size: GroupSize = None,
    min_votes: MinVotes = 1,
    config: Config = None,
    prompts: Prompts = None,
    max_pixels: MaxPixels = None,
    engine_arg: EngineArg = None,
    model_id: ModelId = None,
    replay: Replay = None,
    record: Record = None,
    verbose: Verbose = False,
    limit: Limit = None,
    sample: Sample = None,
    seed: Seed = 0,
    dry_run: Dry = False,
    offline: Offline = False,
    missing: MissingAs = Missing.error,
    replan: Replan = False,
    changed_by: Changed = ChangedBy.stat,
    allow_gone: Gone = False,
    max_failed_rate: FailedRate = 0.05,
    no_preflight: NoPreflight = False,
    json_output: Json = False,
    quiet: Quiet = False,
) -> None:
    """Propose labels: images -> candidate table, by group-wise prompting.

    [dim]tagllm candidates photos/ --vocab coco --model MODEL --out candidates.parquet
    tagllm candidates photos/ --vocab labels.txt --endpoint URL --out c.parquet[/]
    """
    from tagllm_cli.jobs import candidates_job

    settings = locals()
    options = _run_options(settings)
    job = candidates_job(
        source,
        vocab,
        out,
        _model_options(settings),
        options,
        arms=_names(arms),
        group_size=group_size,
        min_votes=min_votes,
    )
    _label(job, options, _console(json_output, quiet))


@app.command(rich_help_panel="Label")
def disambiguate(
    table: Annotated[Path, typer.Argument(metavar="TABLE", help="Candidate table.", show_default=False)],
    out: Out,
    concepts: Concepts = None,
    root: Root = None,
    model: Model = None,
    endpoint: Endpoint = None,
    threshold: Threshold = 0.5,
    min_mass: MinMass = 0.5,
    config: Config = None,
    prompts: Prompts = None,
    max_pixels: MaxPixels = None,
    engine_arg: EngineArg = None,
    model_id: ModelId = None,
    replay: Replay = None,
    record: Record = None,
    verbose: Verbose = False,
    limit: Limit = None,
    sample: Sample = None,
    seed: Seed = 0,
    dry_run: Dry = False,
    offline: Offline = False,
    missing: MissingAs = Missing.error,
    replan: Replan = False,
    allow_gone: Gone = False,
    max_failed_rate: FailedRate = 0.05,
    no_preflight: NoPreflight = False,
    json_output: Json = False,
    quiet: Quiet = False,
) -> None:
    """Decide each candidate: candidate table -> label table, by concept alignment.

    [dim]tagllm disambiguate candidates.parquet --out labels.parquet
    tagllm disambiguate candidates.parquet --concepts cards.yaml --out labels.parquet[/]
    """
    from tagllm_cli.jobs import disambiguate_job
    from tagllm_cli.stages.disambiguate import Thresholds

    settings = locals()
    options = _run_options(settings)
    thresholds = Thresholds(threshold, min_mass)
    job = disambiguate_job(
        table, out, _model_options(settings), options, concepts=concepts, root=root, thresholds=thresholds
    )
    _label(job, options, _console(json_output, quiet))


@app.command(rich_help_panel="Use")
def evaluate(
    table: Annotated[Path, typer.Argument(metavar="TABLE", help="Label or candidate table.", show_default=False)],
    truth: Truth,
    fail_under: FailUnder = None,
    overall: Overall = False,
    include_human: IncludeHuman = False,
    config: Config = None,
    json_output: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure a table against human labels: OP OR OF1, CP CR CF1, mAP, each label.

    [dim]tagllm evaluate labels.parquet --truth instances_val2014.json
    tagllm evaluate labels.parquet --truth truth.csv --json --fail-under of1=0.9[/]
    """
    from tagllm_cli.evaluation import evaluate_table

    console = _console(json_output, quiet)
    report = evaluate_table(table, truth, gates=fail_under or [], include_human=include_human)
    for warning in report.warnings:
        console.warn(warning)
    value = report.to_json()
    console.table(value, report.title, *report.overall())
    if not overall and not json_output:
        console.table(value, "each label, the worst F1 first", *report.per_label())
    if report.missed:
        _end(
            console,
            GateError(
                "; ".join(report.missed),
                "--fail-under sets the gate; without --overall the worst labels are listed first.",
            ),
        )


@app.command(rich_help_panel="Use")
def export(
    table: Annotated[Path, typer.Argument(metavar="TABLE", help="Label table.", show_default=False)],
    format_: Format,
    out: ExportOut,
    root: Root = None,
    threshold: ScoreThreshold = None,
    no_embed: NoEmbed = False,
    include_unknown: IncludeUnknown = False,
    config: Config = None,
    json_output: Json = False,
    quiet: Quiet = False,
) -> None:
    """Hand labels to training tools: COCO JSON, CSV, JSON Lines, Hugging Face dataset.

    [dim]tagllm export labels.parquet --format coco --out labels.json
    tagllm export labels.parquet --format hf --out dataset/[/]
    """
    from tagllm_cli.exporters import ExportSettings, export_table

    settings = ExportSettings(root=root, threshold=threshold, include_unknown=include_unknown, embed=not no_embed)
    summary = export_table(table, format_, out, settings)
    _console(json_output, quiet).result(summary.to_json(), summary.lines())


@vocab_app.command("list")
def vocab_list(json_output: Json = False) -> None:
    """List the built-in vocabularies."""
    from tagllm_cli.vocab import builtin_vocabularies, load_vocabulary

    known = [load_vocabulary(name) for name in builtin_vocabularies()]
    value = {"vocabularies": [{"name": each.name, "labels": len(each.labels), "about": each.about} for each in known]}
    rows = [(each.name, f"{len(each.labels)}", each.about) for each in known]
    _console(json_output).table(value, "built-in vocabularies", ("name", "labels", "about"), rows)


@vocab_app.command("show")
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
    _console(json_output).table(vocabulary_to_json(shown), title, ("label", "parent", "synonyms", "means"), rows)


@vocab_app.command("check")
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
    _console(json_output).result(value, lines or [f"{vocab}: no problems"])
    if any(each.fatal for each in problems):
        raise typer.Exit(UsageError.exit_code)


@app.command(rich_help_panel="Look")
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
    _console(json_output).table(report.to_json(), "what this machine can run", ("what", "state", "found"), rows)
    if not report.ready:
        raise typer.Exit(1)


def _label(job: Job, options: RunOptions, console: Console) -> None:
    from tagllm_cli.labelling import run_job

    outcome = run_job(job, options, console)
    console.result(outcome.to_json(), outcome.lines())
    for warning in outcome.warnings:
        console.warn(warning)
    if outcome.error is not None:
        _end(console, outcome.error)


def _end(console: Console, error: TagllmError) -> NoReturn:
    """Leave with an error's exit code, its result being out already."""
    console.explain(error)
    raise typer.Exit(error.exit_code)


def _model_options(settings: Mapping[str, Any]) -> Any:
    from tagllm_cli.jobs import ModelOptions

    return ModelOptions(
        model=settings["model"],
        endpoints=tuple(settings["endpoint"] or ()),
        model_id=settings["model_id"],
        api_key=os.environ.get("TAGLLM_API_KEY"),  # never a flag: other users can read a process's arguments
        engine_args=_pairs(settings["engine_arg"]),
        prompts=settings["prompts"],
        max_pixels=settings["max_pixels"],
        replay=settings["replay"],
        record=settings["record"],
        verbose=settings["verbose"],
    )


def _run_options(settings: Mapping[str, Any]) -> RunOptions:
    from tagllm_cli.labelling import RunOptions

    return RunOptions(
        limit=settings["limit"],
        sample=settings["sample"],
        seed=settings["seed"],
        dry_run=settings["dry_run"],
        offline=settings["offline"],
        missing_unknown=settings["missing"] is Missing.unknown,
        replan=settings["replan"],
        by_hash=settings.get("changed_by") is ChangedBy.hash,
        allow_gone=settings["allow_gone"],
        max_failed_rate=settings["max_failed_rate"],
        preflight=not settings["no_preflight"],
    )


def _pairs(given: Sequence[str] | None) -> dict[str, str]:
    pairs = {}
    for each in given or ():
        key, equals, value = each.partition("=")
        if not equals or not key:
            raise UsageError(
                f"--engine-arg takes KEY=VALUE, not {each!r}", "For example --engine-arg max_model_len=8192."
            )
        pairs[key.strip().replace("-", "_")] = value
    return pairs


def _names(given: str | None) -> tuple[str, ...] | None:
    if given is None:
        return None
    names = tuple(dict.fromkeys(name.strip() for name in given.split(",") if name.strip()))
    if not names:
        raise UsageError("--arms names no arm", "For example --arms cooccurring,disjoint.")
    return names


def _console(json_output: bool = False, quiet: bool = False) -> Console:
    from tagllm_cli.console import Console

    return Console(json_output=json_output, quiet=quiet)


def main() -> None:
    """Run the command line. SIGTERM is an interrupt like Ctrl-C, also before and after the asking: exit code 130."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    app(prog_name="tagllm")
