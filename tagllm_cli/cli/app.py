"""The app of all commands; every error becomes one line of what happened, one of what to do, and an exit code."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from tagllm_cli.cli import interrupted, streams
from tagllm_cli.cli.commands import (
    audit,
    calibrate,
    candidates,
    concepts,
    diff,
    disambiguate,
    doctor,
    evaluate,
    export,
    import_,
    info,
    merge,
    report,
    review,
    run,
    vocab,
)
from tagllm_cli.cli.expand import expand
from tagllm_cli.cli.options.base import FLAG, JSON_KEY, LEFT_OUT_NUMBERS
from tagllm_cli.errors import TagllmError, UsageError


class OutputError(TagllmError):
    """Stdout cannot be written."""


class InternalError(TagllmError):
    """An exception that nobody expected: a bug."""


class _Group(TyperGroup):
    """Prints errors and exits with their code, for `main` and for typer's `CliRunner` alike."""

    def make_context(self, info_name: str | None, args: list[str], *rest: Any, **extra: Any) -> Any:
        streams.show_any_character()
        self._json = "--json" in args  # needed before the arguments are parsed, and where they cannot be
        with self._explaining({}):
            _check_text(args)
            return super().make_context(info_name, _with_number(args), *rest, **extra)

    def invoke(self, ctx: Any) -> Any:
        try:
            with self._explaining(ctx.meta):
                return super().invoke(ctx)
        finally:
            if logs := sys.modules.get("tagllm_cli.cli.logs"):  # `--help` does not load it
                logs.stop()

    @contextmanager
    def _explaining(self, meta: Mapping[str, Any]) -> Iterator[None]:
        try:
            yield
        except (typer.Exit, typer.Abort):
            raise
        except KeyboardInterrupt as interrupt:
            error = interrupted()
            self._print(error, meta)
            raise typer.Exit(error.exit_code) from interrupt
        except Exception as error:
            if type(error).__name__ == "NoArgsIsHelpError":  # a command without arguments shows its help
                raise
            if isinstance(error, streams.StdoutError) and error.errno == errno.EPIPE:  # `| head`: nobody reads it
                raise typer.Exit(1) from error
            known = _as_ours(error)
            self._print(known, meta)
            raise typer.Exit(known.exit_code) from error

    def _print(self, error: TagllmError, meta: Mapping[str, Any]) -> None:
        from tagllm_cli.cli.console import Console

        as_json = (self._json or JSON_KEY in meta) and not isinstance(error, OutputError)
        try:
            Console(json_output=as_json).error(error)
        except streams.StdoutError:  # the object cannot be written: at least stderr tells
            Console().explain(error)


def _check_text(args: Sequence[str]) -> None:
    """Refuse bytes that are not UTF-8, which Python reads as lone surrogates: no table can name such a file."""
    for each in args:
        if any("\ud800" <= character <= "\udfff" for character in each):
            raise UsageError(f"{each} is not UTF-8", "Rename the file or folder.")


def _with_number(args: Sequence[str]) -> list[str]:
    """Return the arguments with the number that some options may go without: typer has no optional values.

    >>> _with_number(["--estimate", "--json"]), _with_number(["--estimate", "64"])
    (['--estimate=32', '--json'], ['--estimate', '64'])
    """
    return [
        f"{each}={LEFT_OUT_NUMBERS[each]}" if each in LEFT_OUT_NUMBERS and not after.lstrip("-").isdigit() else each
        for each, after in pairwise([*args, ""])
    ]


def _as_ours(error: Exception) -> TagllmError:
    if isinstance(error, TagllmError):
        return error
    if hasattr(error, "format_message"):  # what typer's own usage errors, in a private module, have in common
        return _as_usage(error)
    if isinstance(error, streams.StdoutError):
        return OutputError(f"stdout cannot be written: {error.strerror or error}", "Write it to another place.")
    if isinstance(error, MemoryError):
        return TagllmError("the memory is used up", "Lower --max-pixels, or end other programs.")
    from tagllm_cli.cli import logs

    path = logs.record_crash(error)
    shown = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    where = f" with the traceback in {path}" if path else ""
    return InternalError(f"unexpected {shown}", f"This is a bug in tagllm: please report it{where}.")


def _as_usage(error: Any) -> UsageError:
    context, param = getattr(error, "ctx", None), getattr(error, "param", None)
    command = "tagllm" if context is None else context.command_path
    message = " ".join(error.format_message().split()).replace(": Value error, ", ": ")  # pydantic's words
    if context is not None and param is not None:
        source = context.get_parameter_source(param.name)
        if source is not None and source.name == "DEFAULT_MAP":
            config = context.params.get("config")
            message += " (in the pipeline file)" if config is None else f" (in the config file {config})"
    if message.startswith("Got unexpected extra argument") and command.endswith((" candidates", " run")):
        return UsageError(message, "Name one source, and quote globs, so that the shell leaves them: 'shards/*.tar'.")
    return UsageError(message, f"`{command} --help` lists what there is.")


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
vocab_app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", help="Built-in vocabularies and your own.")
app.add_typer(vocab_app, name="vocab", rich_help_panel="Inspect")


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

    [dim]tagllm run photos/ --vocab coco --model MODEL --out labels.parquet
    tagllm evaluate labels.parquet --truth instances.json
    tagllm export labels.parquet --format coco --out labels.json[/]
    """


# In the order of the help.
app.command(rich_help_panel="Label images")(expand(run.run))
app.command(rich_help_panel="Label images")(expand(candidates.candidates))
app.command(rich_help_panel="Label images")(expand(disambiguate.disambiguate))
app.command(rich_help_panel="Label images")(expand(concepts.concepts))
app.command(rich_help_panel="Use tables")(expand(evaluate.evaluate))
app.command(rich_help_panel="Use tables")(expand(audit.audit))
app.command(rich_help_panel="Use tables")(expand(report.report))
app.command(rich_help_panel="Use tables")(expand(review.review))
app.command(rich_help_panel="Use tables")(expand(calibrate.calibrate))
app.command(rich_help_panel="Use tables")(expand(export.export))
app.command("import", rich_help_panel="Use tables")(expand(import_.import_))
app.command(rich_help_panel="Use tables")(expand(diff.diff))
app.command(rich_help_panel="Use tables")(expand(merge.merge))
app.command(rich_help_panel="Inspect")(expand(info.info))
app.command(rich_help_panel="Inspect")(expand(doctor.doctor))
vocab_app.command("list")(vocab.vocab_list)
vocab_app.command("show")(vocab.vocab_show)
vocab_app.command("check")(vocab.vocab_check)
vocab_app.command("scenes")(expand(vocab.vocab_scenes))
vocab_app.command("suggest")(expand(vocab.vocab_suggest))
