"""The demo world: scenes, their truth, their dials, the vocabulary over them and the committed files."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.demo import dataset
from tests.demo.glyphs import sprite, sprites
from tests.demo.scenes import BACKGROUND, MEANS, NAMES, THINGS, Dials, Scene, draw
from tests.demo.things import ALIKE, PLACES

HERE = Path(__file__).parents[1]
SETS = [
    (HERE / "demo" / "images", HERE / "demo" / "truth.json", range(1, 201)),
    (HERE / "demo" / "calibration", HERE / "demo" / "calibration.json", range(1001, 1025)),
]
VOCABULARY: dict[str, Any] = yaml.safe_load((HERE.parent / "vocab" / "scenes.yaml").read_text(encoding="utf-8"))
LABELS: dict[str, dict[str, Any]] = {label["name"]: label for label in VOCABULARY["labels"]}
CONNECTING = {"a", "an", "and", "has", "in", "it", "its", "something", "that", "the", "thing", "which", "with"}
SMALL = 64  # pixels; enough where only the truth is looked at, and several times faster


@cache
def some(dials: Dials, count: int = 150) -> tuple[Scene, ...]:
    return tuple(draw(seed, dials, SMALL) for seed in range(9000, 9000 + count))


def things(scenes: Iterable[Scene]) -> Counter[str]:
    return Counter(placed.thing for scene in scenes for placed in scene.placed)


def test_world_is_consistent() -> None:
    assert len(THINGS) == 68
    assert len(NAMES) == 60
    assert len(MEANS) == 8
    assert Counter(Counter(thing.name for thing in THINGS.values()).values()) == {1: 52, 2: 8}
    assert set(MEANS.values()) <= set(THINGS)
    assert {thing for place in PLACES.values() for thing in place} <= set(THINGS)
    paired = [thing for pair in ALIKE for thing in pair]
    assert len(paired) == len(set(paired))
    assert set(paired) <= set(THINGS)


def test_same_seed_same_bytes_other_seed_other_scene() -> None:
    for seed in (1, 2, 3):
        one, again, other = draw(seed), draw(seed), draw(seed + 1)
        assert one.pixels.tobytes() == again.pixels.tobytes()
        assert one.owner.tobytes() == again.owner.tobytes()
        assert (one.placed, one.place) == (again.placed, again.place)
        assert one.pixels.tobytes() != other.pixels.tobytes()


def test_truth_does_not_drift() -> None:
    """Which things a seed shows is the same on every machine (pixels depend on Pillow's version)."""
    truth = [[draw(seed).place, [placed.thing for placed in draw(seed).placed]] for seed in range(1, 31)]
    assert hashlib.sha256(json.dumps(truth).encode()).hexdigest()[:16] == "f51c2085596d921e"


def test_counts_of_things() -> None:
    counts = [len(scene.placed) for scene in some(Dials(), 400)]
    assert set(counts) == set(range(9))
    assert 3.4 < float(np.mean(counts)) < 4.1
    assert 0.015 < counts.count(0) / len(counts) < 0.07


def test_truth_is_what_shows() -> None:
    for scene in some(Dials()):
        assert len({placed.thing for placed in scene.placed}) == len(scene.placed)
        assert (scene.place is None) == (not scene.placed)
        assert set(np.unique(scene.owner)) == {*range(len(scene.placed)), BACKGROUND}
        for index, placed in enumerate(scene.placed):
            rows, columns = np.nonzero(scene.owner == index)
            x0, y0, x1, y1 = placed.box
            assert 0 <= x0 <= columns.min()
            assert columns.max() < x1 <= SMALL
            assert 0 <= y0 <= rows.min()
            assert rows.max() < y1 <= SMALL
            assert 0.5 <= placed.visible <= 1
            if placed.visible == 1:
                assert (x0, y0, x1, y1) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            meant = MEANS.get(placed.name, placed.thing) == placed.thing
            assert placed.label == (placed.name if meant else None)


def test_pixels_show_the_thing() -> None:
    """Where `owner` names a thing, the picture differs from its background's middle colour more than elsewhere."""
    shown = empty = 0.0
    for scene in map(draw, range(20)):
        behind = scene.owner == BACKGROUND
        if behind.all():
            continue
        distance = np.abs(scene.pixels - np.median(scene.pixels[behind], axis=0)).mean(2)
        shown, empty = shown + float(distance[~behind].mean()), empty + float(distance[behind].mean())
    assert shown > 1.5 * empty


@pytest.mark.parametrize(
    ("setting", "low", "high"), [(0.0, 0, 0), (1 / 3, 0.25, 0.45), (2 / 3, 0.55, 0.75), (1.0, 1, 1)]
)
def test_other_sense(setting: float, low: float, high: float) -> None:
    counts = things(some(Dials(other_sense=setting)))
    meant = sum(counts[thing] for thing in MEANS.values())
    other = sum(count for thing, count in counts.items() if THINGS[thing].name in MEANS) - meant
    assert meant + other > 80
    assert low <= other / (meant + other) <= high


def test_company() -> None:
    def at_home(company: float) -> float:
        scenes = some(Dials(company=company))
        found = [placed.thing in PLACES[scene.place] for scene in scenes if scene.place for placed in scene.placed]
        return float(np.mean(found))

    assert at_home(0.0) < 0.3
    assert 0.5 < at_home(0.5) < 0.7
    assert at_home(1.0) == 1


def test_smallest() -> None:
    def smallest(setting: float) -> float:
        boxes = [placed.box for scene in some(Dials(smallest=setting)) for placed in scene.placed]
        return min(max(x1 - x0, y1 - y0) for x0, y0, x1, y1 in boxes) / SMALL

    assert smallest(0.05) < 0.08 < 0.13 < smallest(0.16) < 0.2
    assert smallest(0.45) > 0.35


def test_alike() -> None:
    first, second = ALIKE[0]

    def apart(alike: float) -> float:
        one, other = (np.asarray(sprites(alike)[thing][0], dtype=float) for thing in (first, second))
        return float(np.abs(one - other).mean())

    assert apart(0.0) > apart(0.2) > apart(0.4) > apart(0.5) == 0
    assert sprite("banana", 0.0, 100).tobytes() == sprite("banana", 0.5, 100).tobytes()
    paired = {thing for pair in ALIKE for thing in pair}
    for seed in range(9000, 9020):
        plain, blended = draw(seed, Dials(alike=0.0)), draw(seed, Dials(alike=0.4))
        has_pair = any(placed.thing in paired for placed in plain.placed)
        assert has_pair == (plain.pixels.tobytes() != blended.pixels.tobytes())


@pytest.mark.parametrize("wrong", [{"other_sense": 1.1}, {"alike": 0.6}, {"company": -0.1}, {"smallest": 0.0}])
def test_dials_out_of_range(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Dials(**wrong)


def test_vocabulary_names_the_world() -> None:
    assert tuple(LABELS) == NAMES
    assert {label["parent"] for label in LABELS.values()} == set(VOCABULARY["parents"])
    answers = list(NAMES) + [synonym for label in LABELS.values() for synonym in label.get("synonyms", [])]
    assert len(answers) == len(set(answers))


def test_similar_is_mutual_and_never_self() -> None:
    for name, label in LABELS.items():
        for similar in label.get("similar", []):
            assert similar != name
            assert name in LABELS[similar]["similar"]
    for first, second in ALIKE:
        assert THINGS[first].name in LABELS[THINGS[second].name]["similar"]


@pytest.mark.parametrize("name", NAMES)
def test_description_is_of_the_meant_thing(name: str) -> None:
    """A kind, a use and at least two phrases of colour, shape and part, all the meant thing's own; no other words."""
    thing, text = THINGS[MEANS.get(name, name)], LABELS[name]["description"]

    def has(phrases: tuple[str, ...]) -> bool:
        return any(re.search(rf"\b{re.escape(phrase)}\b", text) for phrase in phrases)

    assert has(thing.kind)
    assert has(thing.use)
    assert sum(map(has, (thing.colour, thing.shape, thing.part))) >= 2
    own = thing.kind + thing.colour + thing.shape + thing.part + thing.use
    assert set(re.findall(r"[\w-]+", text)) <= set(re.findall(r"[\w-]+", " ".join(own))) | CONNECTING


@pytest.mark.parametrize(("pictures", "truth_file", "seeds"), SETS)
def test_committed_set_is_consistent(pictures: Path, truth_file: Path, seeds: range) -> None:
    truth = json.loads(truth_file.read_text(encoding="utf-8"))
    assert [image["id"] for image in truth["images"]] == list(seeds)
    assert [(c["id"], c["name"]) for c in truth["categories"]] == list(enumerate(NAMES, start=1))
    stored = {path.relative_to(pictures).as_posix() for path in pictures.rglob("*") if path.is_file()}
    assert stored == {image["file_name"] for image in truth["images"]}
    assert {path.rsplit(".")[-1] for path in stored} == {"jpg", "png", "webp"}
    assert {path.split("/")[0] for path in stored} == {"album-a", "album-b"}
    sizes = {}
    for image in truth["images"]:
        with Image.open(pictures / image["file_name"]) as picture:
            assert picture.size == (image["width"], image["height"])
        sizes[image["id"]] = (image["width"], image["height"])
        assert 160 <= max(sizes[image["id"]]) <= 480
    for entry in truth["annotations"]:
        x, y, width, height = entry["bbox"]
        across, down = sizes[entry["image_id"]]
        assert x >= 0
        assert y >= 0
        assert x + width <= across + 0.02
        assert y + height <= down + 0.02
        assert 0 < entry["area"] <= width * height * 1.01


def test_committed_truth_is_what_the_seed_draws() -> None:
    truth = json.loads(SETS[0][1].read_text(encoding="utf-8"))
    for image in truth["images"][::10]:
        found = {e["category_id"]: e["bbox"] for e in truth["annotations"] if e["image_id"] == image["id"]}
        scene = draw(image["id"])
        across, down = image["width"] / 224, image["height"] / 224
        meant = [placed for placed in scene.placed if placed.label]
        assert set(found) == {NAMES.index(placed.name) + 1 for placed in meant}
        for placed in meant:
            x, y, width, height = found[NAMES.index(placed.name) + 1]
            in_scene = (x / across, y / down, (x + width) / across, (y + height) / down)
            assert in_scene == pytest.approx(placed.box, abs=1.5)  # another Pillow may round an edge differently
        with Image.open(SETS[0][0] / image["file_name"]) as picture:
            stored = np.asarray(picture.convert("RGB").resize((28, 28), Image.Resampling.BOX), dtype=float)
        drawn = np.asarray(Image.fromarray(scene.pixels).resize((28, 28), Image.Resampling.BOX), dtype=float)
        assert np.abs(stored - drawn).mean() < 8


def test_generate_writes_what_it_says(tmp_path: Path) -> None:
    dials = Dials(other_sense=0.5)
    dataset.generate(tmp_path / "one", 6, 3000, dials, workers=1)
    dataset.generate(tmp_path / "two", 3, 3003, dials, workers=1)
    files = {path.name: path.read_bytes() for path in (tmp_path / "one" / "images").rglob("*.*")}
    later = {path.name: path.read_bytes() for path in (tmp_path / "two" / "images").rglob("*.*")}
    assert len(files) == 6
    assert len(later) == 3
    assert later.items() <= files.items()
    truth = json.loads((tmp_path / "one" / "truth.json").read_text(encoding="utf-8"))
    labels = [placed.label for seed in range(3000, 3006) for placed in draw(seed, dials).placed]
    assert None in labels
    assert len(truth["annotations"]) == len([label for label in labels if label])
    with pytest.raises(FileExistsError, match="already there"):
        dataset.generate(tmp_path / "one", 6, 3000, dials, workers=1)


@pytest.mark.parametrize("first_seed", [0, dataset.FIRST_TRAINING_SEED - 1])
def test_generate_keeps_away_from_training_seeds(tmp_path: Path, first_seed: int) -> None:
    with pytest.raises(ValueError, match="training"):
        dataset.generate(tmp_path, 2, first_seed, Dials(), workers=1)
    assert not (tmp_path / "images").exists()
