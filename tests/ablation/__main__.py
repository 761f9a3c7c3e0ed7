"""`make ablation`: what each part of the method is worth, and at what cost.

Candidates from seven strategies, each decided in four ways, on generated scenes with the demo model; negative controls;
and the gain from concept cards at three settings of the ambiguity dial. Interrupt it, and the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import tagllm_cli
from tagllm_cli.cli.console import Console
from tagllm_cli.engines.base import Engine
from tagllm_cli.engines.factory import ModelOptions, identify
from tagllm_cli.errors import InterruptedRunError, TagllmError
from tagllm_cli.evaluation.summary import evaluate_table
from tagllm_cli.store.table import open_table
from tagllm_cli.vocabulary.load import load_vocabulary
from tests.ablation.cells import VOCABULARY, Workshop
from tests.ablation.claims import differences, doses, goals, response
from tests.ablation.concept_files import write_cards
from tests.ablation.design import BOTH, MAIN, NONE, PARTS, RANDOM_TWICE, Place
from tests.ablation.plot import draw
from tests.ablation.report import Findings, to_json, to_markdown
from tests.ablation.study import Results, Settings, Study
from tests.ablation.vllm_engine import vllm_engine
from tests.demo.wordings import OWN_PROMPTS

MODEL = Path("tests/demo/model")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the ablation as the command line says; return the exit code."""
    settings, model = _chosen(arguments)
    console = Console()
    shared = vllm_engine(model, settings.out / "vllm.log")
    try:
        print(ablate(settings, ModelOptions(model=str(model), prompts=OWN_PROMPTS), shared.handle, console))
        console.note(f"table.md, results.json and ablation.png are in {settings.out}/")
    except TagllmError as error:
        console.explain(error)
        return error.exit_code
    except KeyboardInterrupt:
        console.note("interrupted; the same command goes on from here")
        return InterruptedRunError.exit_code
    finally:
        shared.close()
    return 0


def ablate(settings: Settings, model: ModelOptions, engine: Callable[[], Engine], console: Console) -> str:
    """Make what cells are missing, write table.md, results.json and ablation.png; return the table as Markdown.

    `engine` gives an engine for one job. Raises TagllmError where a cell cannot be made; what was answered is kept.
    """
    cards = write_cards(settings.out / "cards", load_vocabulary(VOCABULARY))
    results = Study(settings, Workshop(model, cards), engine, console).run()
    found = _judged(results, _about(settings, model, results))
    table = to_markdown(found)
    (settings.out / "table.md").write_text(table, encoding="utf-8")
    (settings.out / "results.json").write_text(json.dumps(to_json(found), indent=1) + "\n", encoding="utf-8")
    draw(results, found.doses, settings.out / "ablation.png")
    return table


def _judged(results: Results, about: dict[str, str]) -> Findings:
    found = differences(results)
    arms = {
        strategy.title: evaluate_table(results[place].cell.table, results[place].cell.scenes.truth)
        for strategy in (BOTH, RANDOM_TWICE)
        if (place := Place(MAIN, strategy, NONE)) in results
    }
    return Findings(about, results, found, doses(results), response(results), goals(results, found), arms)


def _about(settings: Settings, model: ModelOptions, results: Results) -> dict[str, str]:
    identity = identify(model)
    assert identity is not None
    costs = [found.cell.cost for found in results.values()]
    about = {
        "scenes": f"{settings.scenes:,} at default dials, {settings.dose_scenes:,} at each other setting of the dial",
        "model": f"{identity.name} ({identity.digest.hex()[:8]})",
        "tagllm": tagllm_cli.__version__,
        "asked": f"{sum(cost.requests for cost in costs):,} requests",
        "time": f"{sum(cost.seconds for cost in costs) / 60:.0f} minutes of asking on {os.cpu_count()} cores",
    }
    both = results.get(Place(MAIN, BOTH, NONE))
    if both is not None:
        plan = open_table(both.cell.table).info.plan
        about["groups"] = f"at most {plan['group_size']} labels, arms made by {plan['knowledge']}"
    return about


def _chosen(arguments: Sequence[str] | None) -> tuple[Settings, Path]:
    default = Settings(Path("runs/ablation"))
    parser = argparse.ArgumentParser(
        prog="python -m tests.ablation", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenes", type=int, default=default.scenes, metavar="N", help="default %(default)s")
    parser.add_argument(
        "--dose-scenes", type=int, default=default.dose_scenes, metavar="N",
        help="scenes at each other setting of the ambiguity dial; default %(default)s",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=default.out, metavar="DIR", help="default %(default)s")
    parser.add_argument("--model", type=Path, default=MODEL, metavar="DIR", help="default %(default)s")
    parser.add_argument(
        "--only", choices=PARTS, action="append", metavar="PART",
        help=f"ask about this part only ({', '.join(PARTS)}; repeatable); what is complete of the others is shown",
    )  # fmt: skip
    chosen = parser.parse_args(arguments)
    if min(chosen.scenes, chosen.dose_scenes) < 1:
        parser.error("--scenes and --dose-scenes need at least 1")
    settings = replace(default, out=chosen.out, scenes=chosen.scenes, dose_scenes=chosen.dose_scenes)
    return replace(settings, parts=tuple(chosen.only or PARTS)), chosen.model


if __name__ == "__main__":
    sys.exit(main())
