"""The command line: everything that is typed or drawn."""

from tagllm_cli.cli.app import app, main

__all__ = ["app", "main"]
