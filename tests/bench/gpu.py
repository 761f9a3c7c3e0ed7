"""`make bench-gpu`: images/s of four ways to label photographs, and the share of the card's bf16 peak that each uses.

The model has the shape of Qwen2.5-VL-7B and no weights (`load_format=dummy`): it computes what the real one does, and
what its lists say is replaced by a rule that proposes about four of COCO's 80 labels per image (`qwen.RuledEngine`).
The photographs are made here. Nothing is fetched.

    run         both stages in one pass, as `tagllm run`
    two passes  `candidates`, then `disambiguate` with cold caches
    generate    the same requests through `LLM.generate`, prepared before the clock starts
    naive       `LLM.generate` with one yes/no request per image and label: what a script does

Starting vLLM is not counted. FLOPs are two per weight and token that was computed (cached tokens are not), and per
image and pass those of its patches; attention over the context is left out, a few percent. The share is what the card
did, not what it was good for: a way that computes everything twice has a high one and labels few images.

It needs vLLM for the card, and of our dependencies pyarrow, pydantic, jinja2, PyYAML, Pillow and numpy; nothing else,
and no installed `tagllm` (`PYTHONPATH=. python -m tests.bench.gpu`). `--device cpu --tiny` tries the bench itself.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.bench.gpu_ways import IMAGE_TOKENS, SIZE, ours, raw
from tests.bench.qwen import REAL_TEXT, REAL_VISION, write_photographs, write_qwen

NEEDED = ("vllm", "torch", "transformers", "tokenizers", "pyarrow", "pydantic", "jinja2", "yaml", "PIL", "numpy")
# Dense bf16 FLOP/s by NVIDIA's data sheets; the first name that the card's contains counts.
PEAKS = {
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H200 NVL": 835e12,
    "H200": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every way and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/bench-gpu"), help="working folder")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a small model and 4 images: tries the bench itself")
    parser.add_argument("--images", type=int, help="photographs (256; 4 with --tiny)")
    parser.add_argument("--naive-images", type=int, help="photographs for the naive way (an eighth of --images)")
    parser.add_argument("--engine-arg", action="append", default=[], metavar="KEY=VALUE", help="of vLLM, as of tagllm")
    parser.add_argument("--peak", type=float, metavar="TFLOPS", help="of a card whose name is not known here")
    chosen = parser.parse_args(arguments)
    _check(chosen.device)
    images = chosen.images or (4 if chosen.tiny else 256)
    engine_args = {"load_format": "dummy"}
    if chosen.device == "cpu":
        engine_args |= {"enforce_eager": "true", "kv_cache_memory_bytes": str(1 << 30)}
    engine_args |= dict(each.split("=", 1) for each in chosen.engine_arg)
    task: dict[str, Any] = {
        "model": str(write_qwen(chosen.out / ("tiny" if chosen.tiny else "model"), is_small=chosen.tiny)),
        "images": str(write_photographs(chosen.out / f"images-{images}", images, SIZE)),
        "naive": chosen.naive_images or max(1, images // 8),
        "arguments": engine_args,
        "out": str(chosen.out),
    }
    found = [_child(name, task) for name in CHILDREN]
    (chosen.out / "found.json").write_text(json.dumps(found, indent=2), encoding="utf-8")
    report(found, chosen)


def report(found: Sequence[dict[str, Any]], chosen: argparse.Namespace) -> None:
    """Print a table of all ways, from what the child processes found."""
    device = found[0]["device"]
    peak = chosen.peak * 1e12 if chosen.peak else next((peak for name, peak in PEAKS.items() if name in device), None)
    size = "a small model of its form" if chosen.tiny else "its real shape"
    print(f"Qwen2.5-VL-7B, {size}, without weights; {SIZE[0]} x {SIZE[1]} pixels, {IMAGE_TOKENS:,} tokens per image")
    at = "no known peak" if peak is None else f"bf16 peak {peak / 1e12:,.0f} TFLOP/s"
    starts = ", ".join(f"{each['start']:.0f} s" for each in found)
    print(f"{device} ({at}), {found[0]['vllm']}; starts took {starts}")
    print(
        f"{'way':<12}{'images':>8}{'requests':>10}{'computed/image':>16}{'images/s':>10}{'TFLOP/s':>10}{'of peak':>9}"
    )
    for name, cost in (pair for each in found for pair in each["ways"].items()):
        speed = flops(cost, is_small=chosen.tiny) / cost["seconds"]
        share = "-" if peak is None else f"{speed / peak:.1%}"
        each = (cost["prompt_tokens"] - cost["cached_tokens"]) / cost["images"]
        print(
            f"{name:<12}{cost['images']:>8,}{cost['requests']:>10,}{each:>16,.0f}"
            f"{cost['images'] / cost['seconds']:>10.2f}{'-' if chosen.tiny else f'{speed / 1e12:,.1f}':>10}{share:>9}"
        )
        if cost["failed"]:
            print(f"  {cost['failed']:,} requests failed", flush=True)


def flops(cost: dict[str, Any], *, is_small: bool) -> float:
    """Return the FLOPs of the real model for what a way computed; 0 for the small one."""
    if is_small:
        return 0.0
    text, vision = REAL_TEXT, REAL_VISION
    width, inner, heads = text["hidden_size"], text["intermediate_size"], text["num_attention_heads"]
    keys = width // heads * text["num_key_value_heads"]
    layer = 2 * width * width + 2 * width * keys + 3 * width * inner
    # The first token of an answer comes of the prompt, and the last one goes nowhere.
    tokens = cost["prompt_tokens"] - cost["cached_tokens"] + cost["output_tokens"] - cost["requests"]
    answering = 2 * (text["num_hidden_layers"] * layer * tokens + width * text["vocab_size"] * cost["output_tokens"])
    eye, inner = vision["hidden_size"], vision["intermediate_size"]
    patch = vision["depth"] * (4 * eye * eye + 3 * eye * inner) + 2 * 3 * 14 * 14 * eye
    merger = (4 * eye) ** 2 + 4 * eye * vision["out_hidden_size"]
    looking = 2 * IMAGE_TOKENS * (4 * patch + merger) * cost["images"] * cost["passes"]
    return float(answering + looking)


def _check(device: str) -> None:
    """Exit where a package is missing, or there is no card."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(f"bench-gpu needs {', '.join(missing)}, and this Python has none of that name")
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        sys.exit(
            f"bench-gpu: no NVIDIA GPU answers here (torch {torch.__version__}): nothing was measured.\n"
            "`--device cpu --tiny` tries the bench itself, with a small model and 4 images."
        )


def _child(name: str, task: dict[str, Any]) -> dict[str, Any]:
    """Run one of CHILDREN in a process of its own, which frees the card; exit where it fails."""
    log = Path(task["out"]) / f"{name}.log"
    # Without FlashInfer vLLM has a sampler of its own; `tagllm` keeps OpenMP's threads from spinning.
    own = {"GOMP_SPINCOUNT": "3000"}
    if importlib.util.find_spec("flashinfer") is None:
        own["VLLM_USE_FLASHINFER_SAMPLER"] = "0"
    command = [sys.executable, "-m", "tests.bench.gpu", f"--child={name}", json.dumps(task)]
    with log.open("w", encoding="utf-8") as stderr:
        done = subprocess.run(
            command, check=False, stdout=subprocess.PIPE, stderr=stderr, text=True, env={**own, **os.environ}
        )
    if done.returncode:
        said = log.read_text(encoding="utf-8", errors="replace")
        sys.exit(f"{name} ended with {done.returncode}; its log is {log}, which ends:\n{said[-3000:]}")
    return dict(json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{"))))


CHILDREN: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {"ours": ours, "raw": raw}

if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1].startswith("--child="):
        print(json.dumps(CHILDREN[sys.argv[1].removeprefix("--child=")](json.loads(sys.argv[2]))))
    else:
        main()
