"""The scenes that everything is measured on, drawn once per setting of the ambiguity dial."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.demo.dataset import generate
from tests.demo.scenes import Dials

FIRST_SEED = 20_000  # neither trained on nor looked at while the model was made


@dataclass(frozen=True, slots=True)
class Scenes:
    """A folder with `images/` and `truth.json`, made at one setting of the dial; cells lie beside them."""

    folder: Path
    other_sense: float

    @property
    def images(self) -> Path:
        """The pictures, as a source for `candidates`."""
        return self.folder / "images"

    @property
    def truth(self) -> Path:
        """COCO instances of what the dataset means."""
        return self.folder / "truth.json"


def scenes_at(out: Path, count: int, other_sense: float) -> Scenes:
    """Return where `count` scenes at this setting of the dial lie below `out`, drawn or not."""
    return Scenes(out / f"scenes-{count}-other-{round(100 * other_sense):02d}", other_sense)


def draw_scenes(scenes: Scenes, count: int, workers: int) -> None:
    """Draw the pictures and their truth with so many processes, unless they are there."""
    if scenes.truth.exists():
        return
    half_done = scenes.folder.with_suffix(".new")
    shutil.rmtree(half_done, ignore_errors=True)
    generate(half_done, count, FIRST_SEED, Dials(other_sense=scenes.other_sense), workers)
    half_done.rename(scenes.folder)
