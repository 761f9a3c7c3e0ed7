"""What travels between the driver and its workers: images to label one way, what was found out the other way.

Ids, numbers of questions, answers; never pixels or files. What a worker can work out by itself (which questions an
image's candidates lead to) does not travel either.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tagllm_cli.engines.base import Engine
from tagllm_cli.labeling.stage import Stage
from tagllm_cli.pipeline.label.worker import Settings
from tagllm_cli.records import Image, ImageInfo, Item, Request, Response, Shard, SourceInfo

# Of each stage, the answers on record about one image, in the order of its requests (None: none).
Recorded = Sequence[Sequence[Response | None]]


@dataclass(frozen=True, slots=True)
class Setup:
    """What a worker needs once. `probe` is an image that the driver can read: a worker that cannot is of no use."""

    version: str
    stages: Sequence[Stage]
    source: SourceInfo
    engine: Callable[[], Engine]
    settings: Settings
    probe: Image | None


@dataclass(frozen=True, slots=True)
class Block:
    """Images for one worker: files, or images of a `shard`, or (`is_unread`) all there are in it.

    `recorded` has the answers on record of images that were opened before, by fingerprint. `done` are images of an
    unread shard that need not be asked about, with their versions; `lists_only`: nor any other one.
    `allowance`: how many requests of the first stage may be asked; None: the driver counts what was asked.
    """

    number: int
    items: Sequence[Item] = ()
    shard: Shard | None = None
    is_unread: bool = False
    recorded: Mapping[bytes, Recorded] = field(default_factory=dict)
    done: Mapping[str, str] = field(default_factory=dict)
    lists_only: bool = False
    allowance: int | None = None


@dataclass(frozen=True, slots=True)
class Ready:
    """The engine is ready."""

    version: str
    capacity: int
    gpus: int | None


@dataclass(frozen=True, slots=True)
class Found:
    """An image of an unread shard was read; `failure` is the kind and message of a ReadFailure."""

    block: int
    image: Image
    position: int
    failure: tuple[str, str] | None


@dataclass(frozen=True, slots=True)
class Opened:
    """An image was opened."""

    block: int
    id: str
    info: ImageInfo


@dataclass(frozen=True, slots=True)
class Answered:
    """A request was answered; `question` numbers the worker's questions from 0, in the order in which it told them."""

    step: int
    fingerprint: bytes
    question: int
    response: Response


@dataclass(frozen=True, slots=True)
class Finished:
    """All is done about an image."""

    block: int
    id: str
    is_complete: bool


@dataclass(frozen=True, slots=True)
class Ended:
    """A block came to its end; `is_whole`: all of it, else it was left or stopped."""

    block: int
    is_whole: bool


@dataclass(frozen=True, slots=True)
class Trouble:
    """What keeps the engine from answering."""

    message: str | None


@dataclass(frozen=True, slots=True)
class Failed:
    """The worker can do nothing more. `is_engine`: its engine's process is gone, and another worker can go on."""

    error: Exception
    is_engine: bool = False


Event = Ready | Found | Opened | Answered | Finished | Ended | Trouble | Failed


@dataclass(frozen=True, slots=True)
class Batch:
    """What happened at a worker since the batch before; `questions` are those that it has not told yet."""

    node: str
    events: Sequence[Event] = ()
    questions: Sequence[Request] = ()
