"""What the prompts of a run will cost in tokens, for `--dry-run`: nothing is asked, and no image is decoded.

Sizes of images come from the record, else from the headers of a sample that lies evenly in the source.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from tagllm_cli.engines.local.image_tokens import Size, TokenCounter, engine_arg
from tagllm_cli.errors import ModelError
from tagllm_cli.records import Image, Item, Request
from tagllm_cli.sources.base import ReadFailure, Source, read_all, read_or_failure
from tagllm_cli.sources.decode import fit, measure

SAMPLE = 64
_READERS = 8
_WORTHWHILE = 0.9  # of the tokens: what saves less is not named
_MOST_SIZES = 2048  # a processor needs up to a millisecond for each


class EvenSample:
    """Keeps about `SAMPLE` of the images that it is shown, evenly spread over all of them."""

    def __init__(self) -> None:
        self.images: list[Image] = []
        self._step = 1
        self._seen = 0

    def add(self, image: Image) -> None:
        """Show the next image."""
        if self._seen % self._step == 0:
            self.images.append(image)
            if len(self.images) >= 2 * SAMPLE:
                self.images = self.images[::2]
                self._step *= 2
        self._seen += 1


@dataclass(slots=True)
class PendingPrompts:
    """The requests that a run would make, and the recorded sizes of the images that they are about.

    `texts` counts the requests, `with_image` those with an image; `sizes` counts images by (width, height) in pixels,
    None for those whose size is not on record.
    """

    texts: Counter[Request] = field(default_factory=Counter)
    with_image: int = 0
    sizes: Counter[Size | None] = field(default_factory=Counter)
    unmeasured: EvenSample = field(default_factory=EvenSample)

    def add(self, item: Item, requests: Sequence[Request]) -> None:
        """Count one image and what is to be asked about it."""
        self.texts.update(requests)
        self.with_image += sum(request.with_image for request in requests)
        size = (item.info.width, item.info.height) if item.info is not None and item.info.width else None
        self.sizes[size] += 1
        if size is None:
            self.unmeasured.add(item.image)


@dataclass(frozen=True, slots=True)
class Cheaper:
    """An option of the command under which an image costs `per_image` tokens in the mean."""

    option: str
    per_image: float


@dataclass(frozen=True, slots=True)
class TokenEstimate:
    """Prompt tokens of a run; see `estimate_tokens`.

    Args:
        measured: images whose size is known, by the record or by a header.
        per_image: mean tokens of an image; `least` and `most` are the range.
        per_text: mean tokens of a request without its image.
        prompt: tokens of all prompts together, in which an image counts once per request.
        computed: the same where an image counts once, as the prefix cache makes it.
        cheaper: what would make images cost less, None where nothing does.
    """

    measured: int
    per_image: float
    least: int
    most: int
    per_text: float
    prompt: int
    computed: int
    cheaper: Cheaper | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the estimate as plain JSON values."""
        cheaper = self.cheaper
        return {
            "per_image": {"mean": round(self.per_image, 1), "least": self.least, "most": self.most},
            "measured_images": self.measured,
            "per_text": round(self.per_text, 1),
            "prompt": self.prompt,
            "computed": self.computed,
            "cheaper": cheaper and {"option": cheaper.option, "per_image": round(cheaper.per_image, 1)},
        }

    def lines(self) -> list[str]:
        """Return the estimate for people."""
        spread = f" ({self.least:,} to {self.most:,})" if self.least < self.most else ""
        each = f"about {self.per_image:,.0f} tokens per image{spread} and {self.per_text:,.0f} per text"
        whole = f"{_short(self.prompt)} prompt tokens in all"
        if self.computed < self.prompt:
            whole += f", {_short(self.computed)} computed with each image once"
        if self.cheaper is None:
            return [f"{each}: {whole}"]
        less = f"about {self.cheaper.per_image:,.0f} tokens per image, and the model sees less detail"
        return [f"{each}: {whole}", f"  {self.cheaper.option}: {less}"]


def estimate_tokens(
    prompts: PendingPrompts, counter: Callable[[], TokenCounter], source: Source, max_pixels: int
) -> TokenEstimate | str | None:
    """Return what the prompts cost, or in a sentence why nobody knows; None where nothing is to be asked.

    Args:
        prompts: what `count_pending` found.
        counter: returns what counts, or raises ModelError with the reason why nothing can.
        source: the images' source; up to 2 * SAMPLE files whose size is not on record are read.
        max_pixels: the pixel budget, to which images are scaled down before the model gets them.
    """
    if not prompts.texts:
        return None
    try:
        return _estimate(prompts, counter(), *_known_sizes(prompts, source), max_pixels)
    except ModelError as error:
        return f"tokens are not counted: {error.message}"


def _known_sizes(prompts: PendingPrompts, source: Source) -> tuple[Counter[Size], int]:
    """Return how many images each size stands for, and the number of images whose size is known.

    An image of the sample stands for many.
    """
    known = Counter({size: images for size, images in prompts.sizes.items() if size is not None})
    sampled = [size for size in _measured(source, prompts.unmeasured.images) if size]
    measured = known.total() + len(sampled)
    for size in sampled:
        known[size] += max(1, prompts.sizes[None] // len(sampled))
    return known, measured


def _measured(source: Source, images: Sequence[Image]) -> Iterator[Size | None]:
    if source.is_ordered:
        yield from (_measure(data) for _, data in read_all(source, images))
        return
    with ThreadPoolExecutor(max(_READERS, source.readers)) as readers:
        yield from readers.map(lambda image: _measure(read_or_failure(source, image)), images)


def _measure(data: bytes | ReadFailure) -> Size | None:
    return None if isinstance(data, ReadFailure) else measure(data)


def _estimate(
    prompts: PendingPrompts, counter: TokenCounter, sizes: Counter[Size], measured: int, max_pixels: int
) -> TokenEstimate:
    tokens = _count(counter, _fitted(sizes, max_pixels))
    per_image = _mean(tokens)
    texts = sum(counter.text(request) * times for request, times in prompts.texts.items())
    return TokenEstimate(
        measured=measured,
        per_image=per_image,
        least=min(tokens),
        most=max(tokens),
        per_text=texts / prompts.texts.total(),
        prompt=texts + round(per_image * prompts.with_image),
        computed=texts + round(per_image * prompts.sizes.total()),
        cheaper=_cheaper(counter, sizes, max_pixels, per_image),
    )


def _fitted(sizes: Counter[Size], max_pixels: int) -> Counter[Size]:
    """Return the images by the size that the model gets."""
    fitted: Counter[Size] = Counter()
    for size, images in sizes.items():
        fitted[fit(size, max_pixels)] += images
    return fitted


def _count(counter: TokenCounter, sizes: Counter[Size]) -> Counter[int]:
    """Return the images by the tokens that they take; where there are very many sizes, of an even choice of them.

    Raises ModelError where no size can be counted; images of one that is refused will be failed rows.
    """
    tokens: Counter[int] = Counter()
    refusal = ModelError("the size of no image is known")
    for size in sorted(sizes, key=math.prod)[:: 1 + len(sizes) // _MOST_SIZES]:
        try:
            tokens[counter.image(size)] += sizes[size]
        except ModelError as error:
            refusal = error
    if not tokens:
        raise refusal
    return tokens


def _mean(tokens: Counter[int]) -> float:
    return sum(each * images for each, images in tokens.items()) / tokens.total()


def _cheaper(counter: TokenCounter, sizes: Counter[Size], max_pixels: int, per_image: float) -> Cheaper | None:
    """Return what bounds tiles, where the model cuts images into some, else half the pixel budget, if that helps."""
    found = counter.bound()
    if found is not None:
        option, bounded, pixels = engine_arg(found[0]), found[1], max_pixels
    else:
        option, bounded, pixels = f"--max-pixels {max_pixels // 2}", counter, max_pixels // 2
    mean = _mean(_count(bounded, _fitted(sizes, pixels)))
    return Cheaper(option, mean) if mean < _WORTHWHILE * per_image else None


def _short(count: int) -> str:
    """Return a count with three digits that matter.

    >>> _short(987), _short(12_345), _short(2_345_678), _short(12_345_678_901)
    ('987', '12,300', '2.35 million', '12.3 billion')
    """
    for unit, name in ((10**9, "billion"), (10**6, "million")):
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return f"{round(count, -2):,}" if count >= 10_000 else f"{count:,}"
