"""`tagllm doctor`."""

from __future__ import annotations

import typer

from tagllm_cli.cli.option_groups import ModelGroup, make_console
from tagllm_cli.cli.options.shared import Json


def doctor(*, model: ModelGroup, json_output: Json = False) -> None:
    """Check what this machine can run, and whether a model or a server can be used.

    [dim]tagllm doctor
    tagllm doctor --model Qwen/Qwen2.5-VL-7B-Instruct
    tagllm doctor --endpoint http://localhost:8000[/]
    """
    from tagllm_cli.cli.diagnostics.report import examine

    report = examine(*model.chosen())
    rows = [
        (check.name, check.state, check.detail + (f"\n→ {check.hint}" if check.hint else "")) for check in report.checks
    ]
    make_console(json_output).table(report.to_json(), "what this machine can run", ("what", "state", "found"), rows)
    if not report.ready:
        raise typer.Exit(1)
