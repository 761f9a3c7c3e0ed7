"""A synthetic engine that knows the demo scenes: it sees every thing, and reads a card as a person would."""

from __future__ import annotations

import json
import math
import os
import re
import signal
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tagllm_cli.engines.base import Usage
from tagllm_cli.labeling.plan import DEFAULT_MAX_PIXELS
from tagllm_cli.records import DecodedImage, Request, Response
from tagllm_cli.sources.decode import decode
from tagllm_cli.vocabulary.load import load_vocabulary
from tests.demo.scenes import Dials, draw
from tests.demo.things import MEANS, NAMES, THINGS


@dataclass
class DemoEye:
    """Sees the scenes below `root`. A bare ambiguous name means either sense to it; a description means one thing.

    `trusts_any_card` makes it decide for the dataset's sense as soon as there is any card at all, a placebo too.
    `dies_after` so many requests its process is killed.
    """

    root: Path
    trusts_any_card: bool = False
    dies_after: int | None = None
    version: str = "eye"
    capacity: int = 64
    gpus: int | None = None
    trouble: str | None = None
    asked: int = 0
    started: int = 0
    closed: int = 0
    _shown: dict[str, frozenset[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        labels = load_vocabulary("scenes").labels
        self._described = {label.description: MEANS.get(label.name, label.name) for label in labels}

    async def start(self) -> None:
        self.started += 1

    async def ask(
        self, picture: DecodedImage | None, requests: Sequence[Request]
    ) -> AsyncGenerator[tuple[Request, Response]]:
        assert picture is not None
        if picture.uuid not in self._shown:
            self._look()
        self.asked += len(requests)
        if self.dies_after is not None and self.asked > self.dies_after:
            os.kill(os.getpid(), signal.SIGKILL)
        for request in requests:
            yield request, self._answer(picture.uuid, request)

    def _look(self) -> None:
        for truth in self.root.glob("*/truth.json"):
            world = json.loads(truth.read_text(encoding="utf-8"))
            for image in world["images"]:
                _, picture = decode((truth.parent / "images" / image["file_name"]).read_bytes(), DEFAULT_MAX_PIXELS)
                assert picture is not None
                placed = draw(image["id"], Dials(**world["info"]["dials"])).placed
                self._shown[picture.uuid] = frozenset(thing.thing for thing in placed)

    def _answer(self, uuid: str, request: Request) -> Response:
        shown = self._shown[uuid]
        names = {THINGS[thing].name for thing in shown}
        asked = re.search(r"Category: (.+?)\.(?: Here it means (.+?)\.)?[ \n]", request.text)
        if asked is None:
            listed = re.search(r"Categories: (.*)$", f"{request.system}\n{request.text}", re.MULTILINE)
            options = listed.group(1).split(", ") if listed else NAMES
            slips = Random(f"{uuid} {request.text}")
            seen = [name for name in options if (name in names) != (slips.random() < 0.03)]
            return Response(", ".join(seen) or "none", prompt_tokens=200, cached_tokens=64, output_tokens=5)
        name, description = asked.groups()
        thing = self._described.get(description or "")
        if thing is None and description and self.trusts_any_card:
            thing = MEANS.get(name, name)
        yes = 0.9 if (name in names if thing is None else thing in shown) else 0.1
        logprobs = {"yes": math.log(yes), "no": math.log(1 - yes)}
        return Response("yes" if yes > 0.5 else "no", "stop", logprobs, prompt_tokens=100, cached_tokens=64)

    def usage(self) -> Usage:
        return Usage()

    async def close(self) -> None:
        self.closed += 1
