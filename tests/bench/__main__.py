"""`make bench`: how fast, how frugal, how flat; each figure beside its goal. Speeds are ratios within one run."""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.bench import sources
from tests.bench.auditing import auditing
from tests.bench.calibrating import calibrating
from tests.bench.client import client
from tests.bench.comparing import compared, comparing
from tests.bench.evaluation import evaluated, evaluation
from tests.bench.exporting import exported, exporting
from tests.bench.front_end import front_end, prepared
from tests.bench.importing import imported, importing
from tests.bench.merging import merged, merging
from tests.bench.one_pass import both_ways, one_pass
from tests.bench.ray_driver import on_ray, ray_driver
from tests.bench.report import reporting
from tests.bench.tiling import tiles, tiling

HERE = Path(__file__).parents[1]
MODEL = HERE / "demo" / "model"
FEW, MANY = 1_000, 100_000
FIRST_SEED = 5_000_000  # scenes that neither training nor scoring uses


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the chosen measurements, all by default, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/bench"), help="working folder")
    parser.add_argument("--images", type=int, default=400, help="pictures for the speed of `candidates`")
    parser.add_argument("--rounds", type=int, default=3, help="pairs of runs whose median ratio counts")
    parser.add_argument("--only", choices=MEASUREMENTS, action="append")
    chosen = parser.parse_args(arguments)
    chosen.out.mkdir(parents=True, exist_ok=True)
    for name in chosen.only or MEASUREMENTS:
        MEASUREMENTS[name](chosen)


def say(what: str, found: str, goal: str, reached: bool) -> None:
    """Print one figure with its goal."""
    print(f"{what:<66} {found:>10}   goal {goal:<9} {'reached' if reached else 'MISSED'}", flush=True)


def speed(chosen: argparse.Namespace) -> None:
    """(1) images/s of `candidates` over those of `LLM.generate` on the same requests; (2) prompt tokens computed.

    `LLM.generate` gets the faster of its two ways: its engine in a process of its own, or in this one.
    """
    from tests.demo.dataset import generate
    from tests.demo.scenes import Dials

    pictures = chosen.out / f"scenes-{chosen.images}"
    if not (pictures / "truth.json").exists():
        generate(pictures, chosen.images, FIRST_SEED, Dials(), os.cpu_count() or 1)
    ratios, tokens = [], {}
    ways = {way: _child("raw", str(pictures / "images"), way) for way in ("0", "1")}
    fastest = min(ways, key=lambda way: ways[way]["seconds"])
    for _ in range(chosen.rounds):
        raw = _child("raw", str(pictures / "images"), fastest)
        ours = _candidates(pictures / "images", chosen.out / "speed.parquet", "--model", str(MODEL))
        ratios.append((ours["asked"]["images"] / ours["seconds_asking"]) / (raw["images"] / raw["seconds"]))
        tokens = {**ours["tokens"], **raw, "asked": ours["asked"]["requests"]}
    ratio = statistics.median(ratios)
    say(f"(1) candidates / LLM.generate, images/s (median of {len(ratios)})", f"{ratio:.3f}", ">= 0.95", ratio >= 0.95)
    least = tokens["prompt"] - (tokens["asked"] - tokens["images"]) * tokens["prefix"]
    share = (tokens["prompt"] - tokens["cached"]) / least
    say("(2) prompt tokens computed / each image's prefix once and the texts", f"{share:.3f}", "<= 1.05", share <= 1.05)


def raw(folder: str, own_process: str) -> dict[str, Any]:
    """Time `LLM.generate` over a folder's requests, prepared in memory; also tell how long the shared prefix is.

    `own_process` is `1` for an engine core in a process of its own, else `0`.
    """
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = own_process
    from tagllm_cli.engines.local.cpu import cpu_defaults
    from tagllm_cli.labeling.candidates import Candidates
    from tagllm_cli.labeling.plan import DEFAULT_MAX_PIXELS, PlanOptions
    from tagllm_cli.labeling.replan import new_plan
    from tagllm_cli.labeling.templates import load_templates
    from tagllm_cli.records import Item, Request
    from tagllm_cli.sources.base import list_images
    from tagllm_cli.sources.decode import decode
    from tagllm_cli.sources.registry import open_source
    from tagllm_cli.vocabulary.load import load_vocabulary

    plan_options = PlanOptions(
        "candidates", load_vocabulary("scenes"), load_templates(), model="bench", model_digest=bytes(16)
    )
    source = open_source(folder)
    images = list(list_images(source))
    requests = Candidates(new_plan(plan_options)).requests(Item(images[0]))
    pictures = [decode(source.read(image), DEFAULT_MAX_PIXELS)[1] for image in images]

    from transformers import AutoTokenizer
    from vllm import LLM, SamplingParams

    tokenizer = AutoTokenizer.from_pretrained(MODEL)

    def rendered(request: Request) -> str:
        user = [{"type": "image"}, {"type": "text", "text": request.text}]
        messages = [{"role": "system", "content": request.system}, {"role": "user", "content": user}]
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))

    # What `candidates` runs with on a CPU, so that only the streaming differs.
    llm = LLM(
        str(MODEL), enable_prefix_caching=True, limit_mm_per_prompt={"image": 1, "video": 0, "audio": 0},
        max_model_len=-1, seed=0, **cpu_defaults(str(MODEL), {}),
    )  # fmt: skip
    prompts = [
        {
            "prompt": rendered(request),
            "multi_modal_data": {"image": picture.pixels},
            "multi_modal_uuids": {"image": picture.uuid},
        }
        for picture in pictures
        if picture is not None
        for request in requests
    ]
    sampling = SamplingParams(temperature=0, max_tokens=requests[0].max_tokens)
    llm.generate(prompts[: len(requests)], sampling, use_tqdm=False)  # the first call compiles
    began = time.monotonic()
    llm.generate(prompts[len(requests) :], sampling, use_tqdm=False)
    seconds = time.monotonic() - began
    ends = [
        {**prompts[0], "prompt": rendered(replace(requests[0], text=letter))} for letter in ("A", "B")
    ]  # two texts that differ from their first token on: what they share is the prefix
    one, two = (output.prompt_token_ids for output in llm.generate(ends, sampling, use_tqdm=False))
    prefix = next(place for place, (a, b) in enumerate(zip(one, two, strict=False)) if a != b)
    return {"seconds": seconds, "images": len(images) - 1, "prefix": prefix}


def start_up(chosen: argparse.Namespace) -> None:
    """(3) `tagllm --help`, the whole process."""
    times = [timed([sys.executable, "-m", "tagllm_cli", "--help"])[0] for _ in range(11)]
    middle = statistics.median(times)
    say("(3) tagllm --help, seconds (median of 11)", f"{middle:.2f}", "<= 0.3", middle <= 0.3)


def memory(chosen: argparse.Namespace) -> None:
    """(4) resident memory over 1,000 and over 100,000 images with synthetic answers; (5) the rerun over the latter."""
    peaks = {}
    for count in (FEW, MANY):
        folder, out = chosen.out / f"tiny-{count}", chosen.out / f"tiny-{count}.parquet"
        tiny_images(folder, count)
        for old in (out, out.with_suffix(".evidence")):
            old.unlink(missing_ok=True)
        peaks[count] = _child("label", str(folder), str(out))["peak_mb"]
    more = peaks[MANY] - peaks[FEW]
    what = f"(4) resident memory, {FEW:,} images {peaks[FEW]:.0f} MB, {MANY:,} images: more by (MB)"
    say(what, f"{more:.0f}", "<= 100", more <= 100)
    seconds, printed = timed(_command(chosen.out / f"tiny-{MANY}", chosen.out / f"tiny-{MANY}.parquet"))
    if json.loads(printed)["asked"]["requests"]:
        sys.exit("the rerun asked something")
    say(f"(5) a rerun over {MANY:,} images with nothing to do, seconds", f"{seconds:.1f}", "<= 5", seconds <= 5)


def label(folder: str, out: str) -> dict[str, Any]:
    """Label a folder with synthetic answers in this process; return its peak resident memory in MB."""
    from tagllm_cli.cli.console import Console
    from tagllm_cli.engines.factory import ModelOptions
    from tagllm_cli.pipeline.label.job import RunOptions
    from tagllm_cli.pipeline.label.jobs import candidates_job
    from tagllm_cli.pipeline.label.run import run_job
    from tests.support.rule_engine import RuleEngine

    class Forgetful(RuleEngine):
        """Keeps no list of what it was asked: that would grow with the images."""

        async def ask(self, picture: Any, requests: Any) -> AsyncGenerator[Any]:
            self.asked.clear()
            async for pair in super().ask(picture, requests):
                yield pair

    options = RunOptions(preflight=False)
    job = candidates_job(
        folder, "voc", Path(out), ModelOptions(replay=_nothing(Path(out))), options, arms=("cooccurring",)
    )
    run_job(replace(job, engine=lambda plan: Forgetful()), options, Console(quiet=True))
    return {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def tiny_images(folder: Path, count: int) -> None:
    """Write so many different pictures of 8 x 8 pixels, a thousand per folder, unless they are there."""
    if (folder / "done").exists():
        return
    for number in range(count):
        inner = folder / f"{number // 1000:03d}"
        inner.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(inner / f"{number:06d}.png", compress_level=0)
    (folder / "done").touch()


def _nothing(out: Path) -> Path:
    """An empty recording: it gives the model its name, and answers nothing."""
    path = out.with_suffix(".jsonl")
    path.touch()
    return path


def _command(folder: Path, out: Path) -> list[str]:
    options = ["--vocab", "voc", "--arms", "cooccurring", "--replay", str(_nothing(out)), "--out", str(out), "--json"]
    return [sys.executable, "-m", "tagllm_cli", "candidates", str(folder), *options]


def _candidates(folder: Path, out: Path, *options: str) -> dict[str, Any]:
    for old in (out, out.with_suffix(".evidence")):
        old.unlink(missing_ok=True)
    command = [
        sys.executable,
        "-m",
        "tagllm_cli",
        "candidates",
        str(folder),
        "--vocab",
        "scenes",
        "--out",
        str(out),
        *options,
    ]
    return dict(json.loads(timed([*command, "--json", "--quiet"])[1]))


def _child(name: str, *arguments: str) -> dict[str, Any]:
    """Run one of CHILDREN in a process of its own, and return what it found: vLLM logs to stdout, too."""
    _, printed = timed([sys.executable, "-m", "tests.bench", f"--child={name}", *arguments])
    return dict(json.loads(next(line for line in printed.splitlines() if line.startswith("{"))))


def timed(command: Sequence[str]) -> tuple[float, str]:
    """Return the seconds that a command took, and what it printed; exit where it failed."""
    began = time.monotonic()
    # `tagllm` keeps OpenMP's threads from spinning while they wait; what it is compared with gets the same.
    environment = {"GOMP_SPINCOUNT": "3000", **os.environ}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return time.monotonic() - began, done.stdout


MEASUREMENTS: dict[str, Callable[[argparse.Namespace], None]] = {
    "speed": speed,
    "tiles": lambda chosen: tiling(chosen.out, _child, say),
    "help": start_up,
    "memory": memory,
    "frontend": lambda chosen: front_end(_child, say),
    "client": lambda chosen: client(chosen, say),
    "sources": lambda chosen: sources.sources(chosen, _child, say),
    "listing": lambda chosen: sources.listing(chosen, _child, say),
    "remote": lambda chosen: sources.remote(chosen, _child, say),
    "merge": lambda chosen: merging(chosen, _child, say),
    "import": lambda chosen: importing(chosen, _child, say),
    "onepass": lambda chosen: one_pass(chosen.out, _child, say),
    "ray": lambda chosen: ray_driver(chosen, _child, say),
    "evaluate": lambda chosen: evaluation(chosen, _child, timed, say),
    "audit": lambda chosen: auditing(chosen.out, say),
    "calibrate": lambda chosen: calibrating(chosen.out, say),
    "report": lambda chosen: reporting(chosen.out, say),
    "diff": lambda chosen: comparing(chosen.out, _child, say),
    "exports": lambda chosen: exporting(chosen, _child, say),
}
CHILDREN: dict[str, Callable[..., dict[str, Any]]] = {
    "raw": raw,
    "tiles": tiles,
    "label": label,
    "prepared": prepared,
    "labeled": sources.labeled,
    "first_question": sources.first_question,
    "answered": sources.answered,
    "idle": sources.idle,
    "merged": merged,
    "imported": imported,
    "compared": compared,
    "both_ways": both_ways,
    "on_ray": on_ray,
    "evaluated": evaluated,
    "exported": exported,
}

if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1].startswith("--child="):
        print(json.dumps(CHILDREN[sys.argv[1].removeprefix("--child=")](*sys.argv[2:])))
    else:
        main()
