"""Frozen records that the packages exchange. Imports nothing heavy: `tagllm --help` loads this module."""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import PIL.Image


class Status(enum.StrEnum):
    """What a row can say about its image."""

    OK = "ok"
    PARTIAL = "partial"
    FAILED = "failed"
    PENDING = "pending"


class Decision(enum.StrEnum):
    """What a label table says about one label of one image."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Failure:
    """An expected failure of one item: a kind to count by (`truncated_file`), and a message for people."""

    kind: str
    message: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"


@dataclass(frozen=True, slots=True)
class Image:
    """One image of a source as its listing shows it, before its bytes are read.

    `id` is stable across runs; `uri` is relative to the source. `version` is opaque (size and mtime, an ETag, shard
    offset and length): where it differs, the bytes may differ. Empty: none is known. `shard` is the name of the shard
    that it lies in, "" where the source has none.
    """

    id: str
    uri: str
    version: str = ""
    shard: str = ""


@dataclass(frozen=True, slots=True)
class Shard:
    """A part of a source that is listed as one: a tar file, a Parquet file, or all of a folder or manifest (name "").

    `version` is opaque (size and mtime, an ETag): where it is the one on record, the images in it are the same. Empty:
    none is known, and its images are listed by every run.
    """

    name: str = ""
    version: str = ""


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """What reopens a source: its registered `kind` (`folder`), a `uri`, and plain JSON `options` of that kind."""

    kind: str
    uri: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What opening an image found out: a 16-byte hash of its encoded bytes and its upright size, or why there is none.

    `fingerprint` is empty when the bytes could not be read at all; `width` and `height` are pixels after EXIF
    orientation, 0 when unknown.
    """

    fingerprint: bytes
    width: int = 0
    height: int = 0
    failure: Failure | None = None


# The long side of a decoded image over its short side: Qwen's processors refuse anything thinner.
MOST_ASPECT = 200


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """A decoded image, upright RGB within the pixel budget and MOST_ASPECT, ready for an engine.

    `uuid` is a content hash that includes the pixel budget. `encoded` are the file's own bytes where they show exactly
    these pixels (so that nothing has to be encoded again), with `mime` their type; otherwise None.
    """

    pixels: PIL.Image.Image
    uuid: str
    encoded: bytes | None = None
    mime: str = "image/png"


@dataclass(frozen=True, slots=True)
class Request:
    """One question to the model, without the image that it is about; sampling is greedy.

    `top_logprobs` asks for that many log-probabilities of the first answer token (0: none).
    """

    system: str
    text: str
    with_image: bool = True
    max_tokens: int = 256
    top_logprobs: int = 0

    def digest(self, context: bytes) -> bytes:
        """Return the 16-byte identity of this question under `context` (model, imaging version, pixel budget)."""
        parts = (self.system, self.text, str(self.with_image), str(self.max_tokens), str(self.top_logprobs), "greedy")
        state = hashlib.blake2b(context, digest_size=16)
        for part in parts:
            encoded = part.encode("utf-8", "surrogatepass")
            state.update(len(encoded).to_bytes(8, "little") + encoded)
        return state.digest()


def digest16(*parts: bytes) -> bytes:
    """Return the 16-byte BLAKE2b hash of the parts, one after the other."""
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        state.update(part)
    return state.digest()


def request_context(model_digest: bytes, imaging: int, max_pixels: int) -> bytes:
    """Return the 16-byte hash that a request's identity starts from: model, imaging version and pixel budget."""
    return digest16(model_digest, f"imaging {imaging} pixels {max_pixels}".encode())


def request_key(question: bytes, fingerprint: bytes) -> bytes:
    """Return the 16-byte identity of a question (its digest) about an image (its fingerprint; empty: no image)."""
    return hashlib.blake2b(question + fingerprint, digest_size=16).digest()


@dataclass(frozen=True, slots=True)
class Response:
    """What an engine answered, or why it did not.

    `finish` is the engine's finish reason (`stop`, `length`, ...). `first_logprobs` maps the text of each likely first
    token to its natural log-probability. Token counts are 0 when the engine does not report them. A reply with a
    `failure` is not an answer: the next run asks again.
    """

    text: str = ""
    finish: str = "stop"
    first_logprobs: Mapping[str, float] = field(default_factory=dict)
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class LabelEntry:
    """One label of one row. `arms` and `groups` say who proposed it; probabilities and scores lie in [0, 1].

    `mass` is the share of the first token's probability that fell on yes and no together.
    """

    name: str
    decision: Decision | None = None
    probability: float | None = None
    mass: float | None = None
    score: float = 0.0
    arms: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    source: str = "model"


@dataclass(frozen=True, slots=True)
class Item:
    """What is known about one image before a stage asks about it.

    `info` is None until the image was opened. `proposed` holds the candidates of an earlier table; None where there is
    no earlier table, or where that table could not say anything.
    """

    image: Image
    info: ImageInfo | None = None
    proposed: tuple[LabelEntry, ...] | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One image of the table. `labels` and `unmatched` are None where nothing can be said (failed, pending)."""

    image_id: str
    uri: str
    fingerprint: bytes
    width: int
    height: int
    status: Status
    error: str | None
    labels: tuple[LabelEntry, ...] | None
    unmatched: tuple[str, ...] | None = None

    @classmethod
    def of(
        cls,
        item: Item,
        status: Status,
        error: str | None = None,
        labels: tuple[LabelEntry, ...] | None = None,
        unmatched: tuple[str, ...] | None = None,
    ) -> Row:
        """Return the row of an item."""
        image, info = item.image, item.info or ImageInfo(b"")
        return cls(image.id, image.uri, info.fingerprint, info.width, info.height, status, error, labels, unmatched)
