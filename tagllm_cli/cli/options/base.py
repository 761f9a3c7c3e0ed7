"""What options have in common: their panels, and how a flag and a number that may be left out are written."""

from __future__ import annotations

from functools import partial

import typer

# Keys in the context's `meta`, which all commands share.
JSON_KEY = "tagllm.json"  # an error is to be printed as JSON
RECIPE_KEY = "tagllm.recipe"  # the pipeline file that was given for SOURCE

input_option = partial(typer.Option, rich_help_panel="Input")
model_option = partial(typer.Option, rich_help_panel="Model")
output_option = partial(typer.Option, rich_help_panel="Output")
run_option = partial(typer.Option, rich_help_panel="Run")
price_option = partial(typer.Option, rich_help_panel="Prices, in any one unit of money")

# Options whose number may be left out, and the number that stands for it then.
ESTIMATE, INTERVALS, SUSPECTS = "--estimate", "--intervals", "--suspects"
LEFT_OUT_NUMBERS = {ESTIMATE: 32, INTERVALS: 200, SUSPECTS: 20}
FLAG = ""  # the metavar of an option that takes no value: typer would say <bool>
