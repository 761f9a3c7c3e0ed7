"""Going through the design, cell after cell: what is complete is taken as it is, the rest is asked."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tagllm_cli.cli.console import Console
from tagllm_cli.engines.base import Engine
from tests.ablation.cells import Cell, Workshop, make, recorded
from tests.ablation.design import MAIN, PARTS, Place
from tests.ablation.measure import Measured, measure
from tests.ablation.pictures import draw_scenes, scenes_at

Results = Mapping[Place, Measured]


@dataclass(frozen=True, slots=True)
class Settings:
    """Where everything lies, how many scenes (`dose_scenes`: at each other setting of the dial), which parts to ask."""

    out: Path
    scenes: int = 2_000
    dose_scenes: int = 1_000
    parts: tuple[str, ...] = tuple(PARTS)
    workers: int = os.cpu_count() or 1

    def count(self, other_sense: float) -> int:
        """Return the number of scenes at this setting of the dial."""
        return self.scenes if other_sense == MAIN else self.dose_scenes


class Study:
    """Makes the cells of a design; `engine` gives an engine for one job."""

    def __init__(self, settings: Settings, workshop: Workshop, engine: Callable[[], Engine], console: Console) -> None:
        self._settings, self._workshop = settings, workshop
        self._engine, self._console = engine, console
        self._cells: dict[Place, Cell] = {}

    def run(self) -> Results:
        """Make the cells of the chosen parts, and measure them with what is complete of the other parts."""
        chosen = list(_with_candidates(self._settings.parts))
        clock = _Clock({place: self._effort(place) for place in chosen})
        for number, place in enumerate(chosen, 1):
            cell = self._recorded(place)
            if cell is None:
                cell = self._make(place)
                cost = f"{cell.cost.requests:,} requests in {cell.cost.seconds:.0f} s"
                left = clock.left(cell, chosen[number:])
                self._console.note(f"[{number}/{len(chosen)}] {_title(place)}: {cost}; about {left} to go")
            self._cells[place] = cell
        for place in _with_candidates(PARTS):
            if place not in self._cells and (cell := self._recorded(place)) is not None:
                self._cells[place] = cell
        self._console.note(f"measuring {len(self._cells)} tables")
        found: dict[Place, Measured] = {}
        for place, cell in self._cells.items():
            found[place] = measure(cell, found[place.candidates] if place.concepts.is_asked else None)
        return found

    def _source(self, place: Place) -> Cell | None:
        return self._cells.get(place.candidates) if place.concepts.is_asked else None

    def _recorded(self, place: Place) -> Cell | None:
        """Return a complete cell; None also where its scenes or candidates are not there yet."""
        scenes = scenes_at(self._settings.out, *self._dial(place))
        if not scenes.truth.exists() or (place.concepts.is_asked and self._source(place) is None):
            return None
        return recorded(place, scenes, self._workshop.job(place, scenes, self._source(place)))

    def _make(self, place: Place) -> Cell:
        count, other_sense = self._dial(place)
        scenes = scenes_at(self._settings.out, count, other_sense)
        draw_scenes(scenes, count, self._settings.workers)
        job = self._workshop.job(place, scenes, self._source(place))
        return make(place, scenes, job, self._engine, self._console)

    def _dial(self, place: Place) -> tuple[int, float]:
        return self._settings.count(place.other_sense), place.other_sense

    def _effort(self, place: Place) -> float:
        effort = place.concepts.effort if place.concepts.is_asked else place.strategy.effort
        return effort * self._settings.count(place.other_sense)


class _Clock:
    """Guesses the time that is left from the effort that the cells of this run took so far."""

    def __init__(self, efforts: Mapping[Place, float]) -> None:
        self._efforts = efforts
        self._done = self._seconds = 0.0

    def left(self, cell: Cell, others: Collection[Place]) -> str:
        """Count `cell` as done and return how long `others` may take."""
        self._done += self._efforts[cell.place]
        self._seconds += cell.cost.seconds
        seconds = self._seconds / self._done * sum(self._efforts[other] for other in others)
        return f"{seconds / 60:.0f} min" if seconds > 90 else f"{seconds:.0f} s"


def _with_candidates(parts: Collection[str]) -> Iterator[Place]:
    """Yield the places of some parts once, each after the one that its candidates come from."""
    places = (place for part in parts for place in PARTS[part])
    yield from dict.fromkeys(each for place in places for each in (place.candidates, place))


def _title(place: Place) -> str:
    dial = "" if place.other_sense == MAIN else f"dial {place.other_sense:.2f}, "
    return f"{dial}{place.strategy.title}, {place.concepts.title}"
