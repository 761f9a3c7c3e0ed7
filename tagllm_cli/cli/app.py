"""The command line: the commands' app, and how every error that a user can cause becomes two lines and an exit code."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from tagllm_cli.cli.commands import candidates, concepts, disambiguate, doctor, evaluate, export, vocab
from tagllm_cli.cli.option_groups import make_console
from tagllm_cli.cli.options import FLAG, WANTS_JSON
from tagllm_cli.errors import InterruptedRunError, TagllmError, UsageError


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
            make_console(self._json or WANTS_JSON in meta).error(known)
            raise typer.Exit(known.exit_code) from error
        except KeyboardInterrupt as error:
            interrupted = InterruptedRunError(
                "interrupted; what was answered is kept", "The same command goes on from here."
            )
            make_console(self._json or WANTS_JSON in meta).error(interrupted)
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


# In the order of the help.
app.command(rich_help_panel="Label")(candidates.candidates)
app.command(rich_help_panel="Label")(disambiguate.disambiguate)
app.command(rich_help_panel="Label")(concepts.concepts)
app.command(rich_help_panel="Use")(evaluate.evaluate)
app.command(rich_help_panel="Use")(export.export)
app.command(rich_help_panel="Look")(doctor.doctor)
vocab_app.command("list")(vocab.vocab_list)
vocab_app.command("show")(vocab.vocab_show)
vocab_app.command("check")(vocab.vocab_check)
vocab_app.command("scenes")(vocab.vocab_scenes)


def main() -> None:
    """Run the command line. SIGTERM is an interrupt like Ctrl-C, also before and after the asking: exit code 130."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    app(prog_name="tagllm")
