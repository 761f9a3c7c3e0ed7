"""(13) `run` against `candidates` and `disambiguate` through vLLM in this process: prompt tokens computed, images/s.

The demo model answers for itself. The small Qwen2.5-VL has no weights: it computes every token, and what its lists say
is replaced by a rule that proposes two or three of VOC's 20 labels per image, or about four of COCO's 80
(`qwen.RuledEngine`); both ways ask the same. What one pass saves is each image once, whatever is asked about it: the
more there is to ask, the smaller the share of that.

Each way begins with empty caches and a warm engine, and the second of the two passes does, too, as after a start of its
own. Starting the engine is not counted; reading, decoding and recording are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tagllm_cli.engines.factory import ModelOptions
from tagllm_cli.engines.local.engine import EngineSettings, InProcessEngine
from tests.bench.passes import Cost, Labeling, shared
from tests.bench.qwen import ONE_OF, RuledEngine, write_photographs, write_qwen

DEMO = Path(__file__).parents[1] / "demo"
SIZE = (1008, 784)  # 36 x 28 patches that Qwen2.5-VL makes a token of
QWEN_IMAGES = 24
ROUNDS = 3
VOCABULARIES = {"demo": ("scenes",), "qwen": ("voc", "coco")}

Say = Callable[[str, str, str, bool], None]


def one_pass(folder: Path, child: Callable[..., dict[str, Any]], say: Say) -> None:
    """Print tokens and speed of one pass over those of two, for the demo model and for a small Qwen2.5-VL."""
    for name, goal in (("demo", 0.75), ("qwen", 0.62)):
        for vocabulary, found in child("both_ways", name, str(folder / f"one-pass-{name}")).items():
            one, two = found["one"], found["two"]
            share = one["computed"] / two["computed"]
            what = f"(13) run / two passes, {name}, {vocabulary}: prompt tokens computed"
            say(what, f"{share:.3f}", f"<= {goal}", share <= goal)
            faster = two["seconds"] / one["seconds"]
            what = f"(13) the same, images/s ({one['per_second']:.2f} and {two['per_second']:.2f})"
            say(what, f"{faster:.2f}", f">= {1 / share:.2f}", faster >= 1 / share)
            less = one["cpu_seconds"] / two["cpu_seconds"]
            what = f"(13) the same, processor time ({one['cpu_seconds']:.1f} and {two['cpu_seconds']:.1f} s)"
            say(what, f"{less:.3f}", f"<= {share:.3f}", less <= share)


def both_ways(name: str, folder: str) -> dict[str, Any]:
    """Label the same images in one pass and in two, in turns; return the costs by vocabulary, of the faster round."""
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    engine, source, model = _demo(place) if name == "demo" else _qwen(place)
    kept = shared(engine, SIZE)
    found = {}
    try:
        kept.run(kept.prepare())  # its start is no cost of the first pass
        for vocabulary in VOCABULARIES[name]:
            if isinstance(engine, RuledEngine):
                engine.one_of = ONE_OF[vocabulary]
            labeling = Labeling(str(source), vocabulary, model, kept, place / vocabulary)
            found[vocabulary] = _best([(labeling.one_pass(), labeling.two_passes()) for _ in range(ROUNDS)])
    finally:
        kept.close()
    return found


def _demo(place: Path) -> tuple[InProcessEngine, Path, ModelOptions]:
    settings = EngineSettings(str(DEMO / "model"), log_file=place / "vllm.log")
    return InProcessEngine(settings), DEMO / "images", ModelOptions(settings.model)


def _qwen(place: Path) -> tuple[InProcessEngine, Path, ModelOptions]:
    model = str(write_qwen(place / "model", is_small=True))
    arguments = {"load_format": "dummy", "enforce_eager": "true", "kv_cache_memory_bytes": str(1 << 30)}
    settings = EngineSettings(model, arguments, log_file=place / "vllm.log")
    images = write_photographs(place / "images", QWEN_IMAGES, SIZE)
    return RuledEngine(settings), images, ModelOptions(model, engine_args=arguments)


def _best(rounds: Sequence[tuple[Cost, Cost]]) -> dict[str, Any]:
    """Return the faster round of each way."""
    found = {}
    for place, way in enumerate(("one", "two")):
        cost = min((each[place] for each in rounds), key=lambda cost: cost.seconds)
        found[way] = {**asdict(cost), "computed": cost.computed, "per_second": cost.per_second}
    return found
