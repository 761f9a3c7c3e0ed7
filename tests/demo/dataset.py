"""Scenes as files: pictures in the formats people have, and COCO instances JSON beside them.

    python -m tests.demo.dataset                                     the committed evaluation and calibration sets anew
    python -m tests.demo.dataset --images 1000 --out DIR --seed 2000 more, with any dial turned: --other-sense 0

A picture depends on its seed and the dials only. Seeds below 10,000,000 are for evaluation and all that is measured
(evaluation set 1 to 200, calibration set 1001 to 1024, score card from 2000); training draws only from there upwards.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import yaml
from PIL import Image

from tests.demo.scenes import Dials, Scene, draw

FIRST_TRAINING_SEED = 10_000_000

_HERE = Path(__file__).parent
_VOCABULARY = _HERE.parents[1] / "vocab" / "scenes.yaml"
_SALT = 0x5EED  # the file's size and format must not hang together with what the scene's own seed draws


@dataclass(frozen=True, slots=True)
class _Committed:
    pictures: Path
    truth: Path
    count: int
    first_seed: int


_SETS = (
    _Committed(_HERE / "images", _HERE / "truth.json", 200, 1),
    _Committed(_HERE / "calibration", _HERE / "calibration.json", 24, 1001),
)


def generate(out: Path, count: int, first_seed: int, dials: Dials, workers: int) -> None:
    """Write the scenes of `count` seeds from `first_seed` on as `out`/images/ and `out`/truth.json.

    Args:
        out: made if missing; must hold neither of the two yet.
        workers: processes that draw; 1 draws in this one. The files do not depend on it.

    Raises:
        ValueError: a seed below 1, or one that belongs to training.
        FileExistsError: pictures are already there.
    """
    _write(_Committed(out / "images", out / "truth.json", count, first_seed), dials, workers)


def _write(target: _Committed, dials: Dials, workers: int) -> None:
    seeds = range(target.first_seed, target.first_seed + target.count)
    if target.first_seed < 1 or seeds.stop > FIRST_TRAINING_SEED:
        raise ValueError(f"seeds must be 1 to {FIRST_TRAINING_SEED - 1:,}; those above are for training")
    for path in (target.pictures, target.truth):
        if path.exists():
            raise FileExistsError(f"{path} is already there: choose another folder, or remove it")
    target.pictures.mkdir(parents=True)
    save = partial(_save, target.pictures, dials)
    if workers > 1:
        # Fresh processes: forking one that has started threads (torch, vLLM) may hang.
        with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
            entries = list(pool.map(save, seeds, chunksize=16))
    else:
        entries = [save(seed) for seed in seeds]
    target.truth.write_text(_coco(entries, dials), encoding="utf-8")


def _save(pictures: Path, dials: Dials, seed: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Draw one scene, write its picture; return its COCO image entry and its annotations, by label name."""
    scene, rng = draw(seed, dials), Random(seed ^ _SALT)
    kind, largest = rng.choices((("jpg", 480), ("webp", 480), ("png", 240)), (70, 18, 12))[0]  # PNG of noise is large
    longer, ratio = rng.randint(160, largest), rng.uniform(3 / 4, 4 / 3)
    width, height = (longer, round(longer / ratio)) if ratio >= 1 else (round(longer * ratio), longer)
    file_name = f"album-{rng.choice('ab')}/{seed:06d}.{kind}"
    path = pictures / file_name
    path.parent.mkdir(exist_ok=True)
    picture = Image.fromarray(scene.pixels).resize((width, height), Image.Resampling.LANCZOS)
    picture.save(path, **({"optimize": True} if kind == "png" else {"quality": rng.randint(80, 92)}))
    image = {"id": seed, "file_name": file_name, "width": width, "height": height}
    return image, _annotations(scene, width, height)


def _annotations(scene: Scene, width: int, height: int) -> list[dict[str, Any]]:
    """What the dataset means in a scene, in pixels of a picture of `width` x `height`; no other senses."""
    side = scene.owner.shape[0]
    across, down = width / side, height / side
    found = []
    for index, placed in enumerate(scene.placed):
        if placed.label is None:
            continue
        x0, y0, x1, y1 = placed.box
        box = [x0 * across, y0 * down, (x1 - x0) * across, (y1 - y0) * down]
        area = np.count_nonzero(scene.owner == index) * across * down
        found.append({"name": placed.label, "bbox": [round(v, 2) for v in box], "area": round(area, 1), "iscrowd": 0})
    return found


def _coco(entries: list[tuple[dict[str, Any], list[dict[str, Any]]]], dials: Dials) -> str:
    """COCO instances JSON, one image or annotation a line so that a change can be read in a diff."""
    labels = yaml.safe_load(_VOCABULARY.read_text(encoding="utf-8"))["labels"]
    categories = [{"id": n, "name": x["name"], "supercategory": x["parent"]} for n, x in enumerate(labels, start=1)]
    number = {category["name"]: category["id"] for category in categories}
    annotations: list[dict[str, Any]] = []
    for image, found in entries:
        for entry in found:
            known = {"id": len(annotations) + 1, "image_id": image["id"], "category_id": number[entry["name"]]}
            annotations.append(known | {key: value for key, value in entry.items() if key != "name"})
    info = {"description": "tagllm demo scenes; an image's id is its seed", "dials": asdict(dials)}
    lists = {"categories": categories, "images": [image for image, _ in entries], "annotations": annotations}
    parts = [f'"info": {json.dumps(info)}']
    for key, rows in lists.items():
        parts.append(f'"{key}": [\n' + ",\n".join(json.dumps(row) for row in rows) + "\n]")
    return "{" + ",\n".join(parts) + "}\n"


def main() -> None:
    """Write the committed sets anew, or, with --out, as many other scenes as wanted."""
    parser = argparse.ArgumentParser(prog="python -m tests.demo.dataset", description=main.__doc__)
    parser.add_argument("--out", type=Path, help="a new folder for images/ and truth.json")
    parser.add_argument("--images", type=int, default=200, metavar="N", help="how many; with --out")
    parser.add_argument("--seed", type=int, default=2000, metavar="S", help="the first picture's seed; with --out")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, metavar="N")
    for dial in fields(Dials):
        option = "--" + dial.name.replace("_", "-")
        text = "default %(default).3g; with --out"
        parser.add_argument(option, type=float, default=dial.default, metavar="X", help=text)
    options = vars(parser.parse_args())
    if options["out"]:
        try:
            dials = Dials(**{dial.name: options[dial.name] for dial in fields(Dials)})
            generate(options["out"], options["images"], options["seed"], dials, options["workers"])
        except (ValueError, FileExistsError) as error:
            parser.error(str(error))
        return
    if any(options[key] != parser.get_default(key) for key in options.keys() - {"out", "workers"}):
        parser.error("the committed sets have fixed seeds and dials: give --out for others")
    for committed in _SETS:
        shutil.rmtree(committed.pictures, ignore_errors=True)
        committed.truth.unlink(missing_ok=True)
        _write(committed, Dials(), options["workers"])


if __name__ == "__main__":
    main()
