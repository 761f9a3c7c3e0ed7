"""The whole pipeline on the committed pictures with the demo model: `make demo`. Leaves both tables and the exports."""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

HERE = Path("tests/demo")


def commands(out: Path, model: Path) -> list[list[str]]:
    """The commands as a person would type them."""
    labels, truth = f"{out}/labels.parquet", f"{HERE}/truth.json"
    exports = {"coco": "labels.json", "csv": "labels.csv", "jsonl": "labels.jsonl", "hf": "dataset"}
    return [
        [
            *("run", f"{HERE}/images", "--vocab", "scenes", "--model", str(model), "--out", labels),
            *(word for name, file in exports.items() for word in ("--export", f"{name}={out}/{file}")),
        ],
        ["evaluate", f"{out}/labels.candidates.parquet", "--truth", truth, "--overall"],
        ["evaluate", labels, "--truth", truth],
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run every command; the first one that fails ends the demo with its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/demo"))
    parser.add_argument("--model", type=Path, default=HERE / "model")
    chosen = parser.parse_args(arguments)
    began = time.monotonic()
    for command in commands(chosen.out, chosen.model):
        print(f"$ tagllm {shlex.join(command)}", flush=True)
        code = subprocess.run([sys.executable, "-m", "tagllm_cli", *command], check=False).returncode
        if code:
            sys.exit(code)
        print(flush=True)
    print(f"The demo took {time.monotonic() - began:.0f} s; its tables and exports are in {chosen.out}/.")


if __name__ == "__main__":
    main()
