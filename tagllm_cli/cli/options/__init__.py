"""The options of all commands as typer reads them: name, environment variable, help, panel."""
