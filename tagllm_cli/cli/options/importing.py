"""Options of `tagllm import`."""

from __future__ import annotations

from typing import Annotated

from tagllm_cli.cli.options.base import FLAG, input_option, run_option

Complete = Annotated[
    bool,
    input_option(
        "--complete",
        metavar=FLAG,
        help="Every image of a file was gone through: a label that it does not list is no.",
    ),
]
OnlyChanges = Annotated[
    bool,
    input_option(
        "--only-changes",
        metavar=FLAG,
        help="Record only what differs from the table: for files that hold more than people looked at.",
    ),
]
ImportLabels = Annotated[
    str | None,
    input_option("--labels", metavar="A,B", help="Take in these labels only; --complete is about no others."),
]
Who = Annotated[str, input_option("--who", metavar="NAME", help="Who decided, where a file does not say.")]
Withdraw = Annotated[
    bool,
    run_option("--withdraw", metavar=FLAG, help="Take back what these files said: what was before counts again."),
]
ImportDryRun = Annotated[bool, run_option("--dry-run", metavar=FLAG, help="Say what would change, and change nothing.")]
