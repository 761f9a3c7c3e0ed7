"""Print what an image costs each family of models, as the table of docs/models-and-servers.md: `make families`."""

from __future__ import annotations

from collections.abc import Iterator

from tagllm_cli.engines.local.image_tokens import Size, TokenCounter, engine_arg, load_counter
from tagllm_cli.labeling.plan import DEFAULT_MAX_PIXELS
from tagllm_cli.sources.decode import fit
from tests.families.registry import FAMILIES, built

LARGE = fit((4000, 3000), DEFAULT_MAX_PIXELS)
SIZES: tuple[Size, ...] = ((224, 224), (640, 480), LARGE)


def lines() -> Iterator[str]:
    """Yield the table's lines."""
    sizes = " | ".join(f"{width} x {height}" for width, height in SIZES)
    yield f"| model | {sizes} | bounded by | then | |"
    yield f"| --- | {' | '.join('---' for _ in SIZES)} | --- | --- | --- |"
    for name, family in FAMILIES.items():
        counter = load_counter(str(built(name)), {"load_format": "dummy"})
        tokens = [counter.image(size) for size in SIZES]
        cells = [family.model, *(f"{count:,}" for count in tokens), *_bound(counter, tokens), family.note]
        yield f"| {' | '.join(cells)} |"


def _bound(counter: TokenCounter, tokens: list[int]) -> tuple[str, str]:
    """Return what bounds the tokens of an image, and the tokens of each size under it."""
    found = counter.bound()
    if found is not None:
        option, then = engine_arg(found[0]), [found[1].image(size) for size in SIZES]
    elif len(set(tokens)) == 1:
        return "always the same", ""
    else:
        pixels = DEFAULT_MAX_PIXELS // 4
        option, then = f"--max-pixels {pixels}", [counter.image(fit(size, pixels)) for size in SIZES]
    return f"`{option}`", ", ".join(f"{count:,}" for count in then)


if __name__ == "__main__":
    print("\n".join(lines()))
