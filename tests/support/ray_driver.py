"""`python -m tests.support.ray_driver ARGUMENTS`: the command line of tagllm with a slow engine at the workers.

Each engine creates the table's `.reached` when it is asked for the first time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tagllm_cli import cli
from tagllm_cli.pipeline.label import jobs
from tests.support.ray_engines import Reached


def slow_engine(plan: Any, model: Any, out: Path) -> Reached:
    """Stands in for `jobs._engine`."""
    return Reached(pause=0.02, marker=out.with_suffix(".reached"))


if __name__ == "__main__":
    vars(jobs)["_engine"] = slow_engine
    cli.main()
