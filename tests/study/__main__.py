"""`make study`: plain labels against TagLLM labels against the truth, on generated scenes with the demo model.

Plain labels are the model's answers to one question over the whole vocabulary. Measured are the labels themselves, a
classifier trained on each, and what they cost. Interrupted, the same command goes on: labeling where it was, measuring
with the first figures that are missing.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.study.summary import to_markdown

DEMO = Path("tests/demo")
FIRST_SEED = 100_000  # scenes that neither training nor scoring uses
SCENES = 3_600


@dataclass(frozen=True, slots=True)
class Study:
    """Where everything lies, and what a GPU-hour costs."""

    out: Path
    gpu_price: float
    seeds: int

    @property
    def images(self) -> Path:
        """The pictures."""
        return self.out / "images"

    @property
    def truth(self) -> Path:
        """What is in them."""
        return self.out / "truth.json"

    @property
    def plain(self) -> Path:
        """Labels from one question about the whole vocabulary."""
        return self.out / "plain.parquet"

    @property
    def tagllm(self) -> Path:
        """Labels from two arms of groups and one question with a concept card about each candidate."""
        return self.out / "tagllm.parquet"

    def labeling(self) -> Sequence[Sequence[str]]:
        """The commands that label, as a person would type them."""
        model = ("--vocab", "scenes", "--model", f"{DEMO}/model")
        at_once = ("--strategy", "all", "--prompts", f"{DEMO}/prompts")
        return (
            ("candidates", str(self.images), *model, *at_once, "--out", str(self.plain)),
            ("run", str(self.images), *model, "--out", str(self.tagllm)),
        )

    def measuring(self) -> Mapping[str, Sequence[str]]:
        """The commands that measure, by the name of what they find."""
        truth, price = ("--truth", str(self.truth)), ("--gpu-price", f"{self.gpu_price:g}")
        classifier = ("--downstream", "--backbone", "scratch", "--seeds", str(self.seeds))
        compared = ("--compare", str(self.plain), "--plot", str(self.out / "downstream.png"))
        candidates = self.tagllm.with_suffix(".candidates.parquet")
        return {
            "plain cost": ("info", str(self.plain), *price, "--json"),
            "tagllm cost": ("info", str(candidates), str(self.tagllm), *price, "--json"),
            "plain": ("evaluate", str(self.plain), *truth, "--intervals", "--json"),
            "tagllm": ("evaluate", str(self.tagllm), *truth, "--intervals", "--json"),
            "downstream": ("evaluate", str(self.tagllm), *truth, *classifier, *compared, "--json"),
        }


def main(arguments: Sequence[str] | None = None) -> None:
    """Label, measure and print; the first command that fails ends the study with its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.study", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenes", type=int, default=SCENES, metavar="N", help="default %(default)s")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="classifiers per label set; default 3")
    parser.add_argument("--out", type=Path, default=Path("runs/study"), metavar="DIR", help="default %(default)s")
    parser.add_argument("--gpu-price", type=float, default=2.5, metavar="MONEY", help="default %(default)s")
    chosen = parser.parse_args(arguments)
    study = Study(chosen.out / f"scenes-{chosen.scenes}", chosen.gpu_price, chosen.seeds)
    began = time.monotonic()
    _draw(study, chosen.scenes)
    for command in study.labeling():
        _run(command)
    found = {name: _measured(study, name, command) for name, command in study.measuring().items()}
    print(to_markdown(found))
    minutes = (time.monotonic() - began) / 60
    print(f"\nThis took {minutes:.0f} minutes; tables, JSON and downstream.png are in {study.out}/.")


def _draw(study: Study, count: int) -> None:
    """Draw the pictures, unless they are there."""
    from tests.demo.dataset import generate
    from tests.demo.scenes import Dials

    if study.truth.exists():
        return
    print(f"drawing {count:,} scenes", file=sys.stderr, flush=True)
    half_done = study.out.with_suffix(".new")
    shutil.rmtree(half_done, ignore_errors=True)
    generate(half_done, count, FIRST_SEED, Dials(), os.cpu_count() or 1)
    half_done.rename(study.out)


def _measured(study: Study, name: str, command: Sequence[str]) -> Any:
    """Return what a command prints as JSON; kept in a file, it is not run again unless a table is newer."""
    kept = study.out / f"{name.replace(' ', '-')}.json"
    if kept.exists() and kept.stat().st_mtime > max(path.stat().st_mtime for path in (study.plain, study.tagllm)):
        earlier = json.loads(kept.read_text(encoding="utf-8"))
        if earlier["command"] == list(command):
            return earlier["found"]
    found = json.loads(_run(command, captured=True))
    kept.write_text(json.dumps({"command": command, "found": found}, indent=1) + "\n", encoding="utf-8")
    return found


def _run(command: Sequence[str], *, captured: bool = False) -> Any:
    print(f"$ tagllm {shlex.join(command)}", file=sys.stderr, flush=True)
    done = subprocess.run(
        [sys.executable, "-m", "tagllm_cli", *command], check=False, stdout=subprocess.PIPE if captured else None
    )
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout


if __name__ == "__main__":
    main()
