"""Images whose colors are their labels, tables and a truth about them, and a tiny ResNet in a folder."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tagllm_cli.evaluation.downstream.options import DownstreamOptions
from tagllm_cli.evaluation.downstream.result import Downstream
from tagllm_cli.evaluation.downstream.study import compare_downstream
from tagllm_cli.records import Decision, LabelEntry, Row, SourceInfo, Status, digest16
from tagllm_cli.store.table import TableInfo, write_table
from tagllm_cli.vocabulary.model import Label, Vocabulary

NAMES = ("red", "green", "blue")

Entries = Sequence[LabelEntry]


def yes(*names: str) -> Entries:
    return [LabelEntry(name, Decision.YES, 0.9, 1.0, 0.9) for name in names]


class World:
    """`images` pictures of 16 x 16 pixels below `root`: each color is on or off, over noise."""

    def __init__(self, root: Path, images: int = 160) -> None:
        self.root, self.folder = root, root / "images"
        self.folder.mkdir(parents=True)
        random = np.random.default_rng(0)
        self.true: dict[str, tuple[str, ...]] = {}
        for number in range(images):
            is_on = random.random(3) < 0.4
            pixels = np.where(is_on, 190, 30) + random.integers(0, 60, (16, 16, 3))
            name = f"{number:03d}.png"
            Image.fromarray(pixels.astype(np.uint8)).save(self.folder / name)
            self.true[name] = tuple(color for color, on in zip(NAMES, is_on, strict=True) if on)
        self.truth = self.write_truth("truth.csv", self.true)

    def write_truth(self, name: str, labels: Mapping[str, Sequence[str]]) -> Path:
        """Write a CSV with a line per image."""
        path = self.root / name
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["image", "labels"])
            writer.writerows([image, "|".join(present)] for image, present in labels.items())
        return path

    def table(
        self,
        name: str,
        labels: Callable[[str], Entries],
        *,
        names: Sequence[str] = NAMES,
        failed: Sequence[str] = (),
    ) -> Path:
        """Write a label table with what `labels` says about each image."""
        path = self.root / f"{name}.parquet"
        info = TableInfo("labels", SourceInfo("folder", str(self.folder)), Vocabulary("v", tuple(map(Label, names))))
        rows = [self._row(image, Status.FAILED if image in failed else Status.OK, labels(image)) for image in self.true]
        write_table(path, info, rows)
        return path

    def _row(self, image: str, status: Status, labels: Entries) -> Row:
        fingerprint = digest16((self.folder / image).read_bytes())
        if status is Status.FAILED:
            return Row(image, image, fingerprint, 16, 16, status, "timeout: none", None)
        return Row(image, image, fingerprint, 16, 16, status, None, tuple(labels), ())

    def right(self, name: str = "right") -> Path:
        """Write a table that is right about everything."""
        return self.table(name, lambda image: yes(*self.true[image]))

    def shuffled(self, name: str = "shuffled") -> Path:
        """Write a table that says of each image what is in another."""
        others = np.random.default_rng(1).permutation(list(self.true))
        place = dict(zip(self.true, others.tolist(), strict=True))
        return self.table(name, lambda image: yes(*self.true[place[image]]))


def save_resnet(folder: Path) -> Path:
    """Save a ResNet of 2,000 parameters at random, as `transformers` does, with its image processor."""
    import torch
    from transformers import ConvNextImageProcessor, ResNetConfig, ResNetModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
        ResNetModel(config).save_pretrained(folder)
    ConvNextImageProcessor(size={"shortest_edge": 16}, crop_pct=1.0).save_pretrained(folder)
    return folder


def nothing(what: str, done: int, total: int) -> None:
    """Count nothing."""


def compared(world: World, table: Path, backbone: Path | str, **chosen: Any) -> Downstream:
    """Return the comparison with 2 seeds and 6 epochs, where nothing else is chosen."""
    options = DownstreamOptions(**{"backbone": str(backbone), "seeds": 2, "epochs": 6, **chosen})
    return compare_downstream(table, world.truth, options, nothing)
