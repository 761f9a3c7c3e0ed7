"""Typer commands: parse options, call the pipeline, render the result. One file per command.

Everything below `cli` is imported inside the commands, so that `--help` answers at once.
"""
