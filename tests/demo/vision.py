"""First half of the demo model's training: the tower learns to see, cell by cell, under heads that are thrown away."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from tests.demo import pool
from tests.demo.modelling import WIDTH
from tests.demo.things import THINGS

KINDS = ("colour", "shape", "kind", "part", "use")


@lru_cache
def attribute_words() -> tuple[str, ...]:
    """Every attribute value once, such as "red" or "four wheels"."""
    values = (value for thing in THINGS.values() for kind in KINDS for value in getattr(thing, kind))
    return tuple(dict.fromkeys(values))


@lru_cache
def attribute_table() -> Tensor:
    """Which thing has which attribute: float32 [things, attributes] of 0 and 1."""
    words = attribute_words()
    rows = [[any(word in getattr(thing, kind) for kind in KINDS) for word in words] for thing in THINGS.values()]
    return torch.tensor(rows, dtype=torch.float32)


class Heads(nn.Module):
    """What training reads from the model and throws away afterwards: things and attributes in every image token.

    `cells` maps image tokens [.., 256] to logits [.., things + attributes].
    """

    def __init__(self) -> None:
        """Creates heads with small random weights."""
        super().__init__()
        self.cells = nn.Linear(WIDTH, len(THINGS) + len(attribute_words()))
        nn.init.constant_(self.cells.bias, -4.0)


def mixed_precision(device: torch.device) -> torch.autocast:
    """Autocast to bfloat16 where the device computes in it; a CPU without AVX-512 emulates it, ten times slower."""
    fast = device.type != "cpu" or torch.backends.cpu.get_cpu_capability() == "AVX512"
    return torch.autocast(device.type, torch.bfloat16, enabled=fast)


def tokens(model: Any, pixels: NDArray[np.uint8], device: torch.device) -> Tensor:
    """Image tokens of uint8 pictures [batch, 224, 224, 3]: [batch, 49, 256], as the text model gets them."""
    batch = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).float().mul_(2 / 255).sub_(1)
    inner = model.model
    seen: Tensor = inner.connector(inner.vision_model(batch).last_hidden_state)
    return seen


def loss(heads: Heads, seen: Tensor, cells: NDArray[np.uint8]) -> Tensor:
    """Binary cross-entropy of things and attributes in each cell, and in the picture as the maximum over cells.

    Args:
        heads: the heads to read with.
        seen: image tokens [batch, 49, 256].
        cells: uint8 [batch, 49, things], 255 for "plainly there".
    """
    logits = heads.cells(seen).float()
    things = torch.from_numpy(cells).to(logits.device).float() / 255
    table = attribute_table().to(logits.device)
    attributes = (things @ table).clamp(max=1)
    target = torch.cat([things, attributes], -1)
    dense = F.binary_cross_entropy_with_logits(logits, target, reduction="none").sum(-1).mean()
    present = (target.amax(1) > 0).float()
    whole = F.binary_cross_entropy_with_logits(logits.amax(1), present, reduction="none").sum(-1).mean()
    return dense + 0.25 * whole


class Pictures:
    """The training pictures that are on disk so far, and the first of them held back to watch progress.

    `draw` gives pixels uint8 [count, 224, 224, 3] and cells uint8 [count, 49, things] of random pictures.
    """

    held_back = 2  # chunks, 1,000 pictures

    def __init__(self, folder: Path, seed: int) -> None:
        """Waits for nothing: raises FileNotFoundError on a draw while the pool is too small."""
        self.folder, self.rng = folder, np.random.default_rng(seed)
        self._maps: dict[int, tuple[NDArray[np.uint8], NDArray[np.uint8]]] = {}
        self._known: list[int] = []
        self.seen = 0

    def _chunk(self, number: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        if number not in self._maps:
            pixels, cells = (self.folder / f"{number:05d}.{part}.npy" for part in ("pixels", "cells"))
            self._maps[number] = (np.load(pixels, mmap_mode="r"), np.load(cells, mmap_mode="r"))
        return self._maps[number]

    def draw(self, count: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Random pictures out of four random chunks; `count` must be a multiple of 4."""
        if self.seen % (count * 50) == 0:
            self._known = [number for number in pool.ready(self.folder) if number >= self.held_back]
        if not self._known:
            raise FileNotFoundError(f"no training pictures in {self.folder} yet")
        parts = []
        for number in self.rng.choice(self._known, 4):
            pixels, cells = self._chunk(int(number))
            rows = np.sort(self.rng.choice(len(pixels), count // 4, replace=False))
            parts.append((pixels[rows], cells[rows]))
        self.seen += count
        return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])

    def watched(self, count: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """The first pictures of the pool, never trained on."""
        pairs = [self._chunk(number) for number in range(self.held_back)]
        return tuple(np.concatenate([pair[part] for pair in pairs])[:count] for part in (0, 1))  # type: ignore[return-value]


def f1_seen(model: Any, heads: Heads, pictures: Pictures, device: torch.device, count: int = 500) -> float:
    """F1 of "which things show" on pictures kept out of training, read from the heads at logit 0."""
    pixels, cells = pictures.watched(count)
    found = []
    with torch.no_grad(), mixed_precision(device):
        for start in range(0, len(pixels), 100):
            logits = heads.cells(tokens(model, pixels[start : start + 100], device))
            found.append((logits[..., : len(THINGS)].amax(1) > 0).cpu())
    said, true = torch.cat(found), torch.from_numpy(cells).amax(1) > 0
    return float(2 * (said & true).sum() / (said.sum() + true.sum()).clamp(min=1))
