"""Which questions about which images the evidence cannot answer yet. Pure look-ups; nothing is asked or opened here."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tagllm_cli.labeling.stage import Stage
from tagllm_cli.records import ImageInfo, Item, Request, request_key
from tagllm_cli.store.evidence import Evidence

_MARKS = 10_000


@dataclass(frozen=True, slots=True)
class Work:
    """One image that may lack answers: what to ask about it, and the mark that says that all of it is answered."""

    item: Item
    requests: Sequence[Request]
    mark: bytes


@dataclass(slots=True)
class Survey:
    """What a run would ask: counts of images and requests, and why; `known` requests are answered already.

    `example` is one question. Copies of an image that was not opened yet count as often as there are copies.
    """

    images: int = 0
    requests: int = 0
    known: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    example: Request | None = None


class Questions:
    """Digests of requests under one context, computed once per distinct request."""

    def __init__(self, context: bytes) -> None:
        self._context = context
        self._digests: dict[Request, bytes] = {}
        self._marks: dict[tuple[Request, ...], bytes] = {}
        self._last: tuple[Sequence[Request], bytes] = ([], b"")

    def digest(self, request: Request) -> bytes:
        """Return the 16-byte identity of the question."""
        known = self._digests.get(request)
        if known is None:
            known = self._digests[request] = request.digest(self._context)
        return known

    def keys(self, requests: Sequence[Request], fingerprint: bytes) -> list[bytes]:
        """Return the 16-byte identity of each request about this image."""
        return [request_key(self.digest(request), fingerprint if request.with_image else b"") for request in requests]

    def mark(self, requests: Sequence[Request]) -> bytes:
        """Return a 16-byte hash over all the questions: what an image is settled for."""
        if requests is self._last[0]:  # one and the same for every image of a candidates run: not even hashed
            return self._last[1]
        marks, questions = self._marks, tuple(requests)
        known = marks.get(questions)
        if known is None:
            if len(marks) > _MARKS:  # disambiguation has a set of questions per image: remember the frequent ones only
                marks.clear()
            state = hashlib.blake2b(digest_size=16)
            for request in questions:
                state.update(self.digest(request))
            known = marks[questions] = state.digest()
        self._last = (requests, known)
        return known


def unsettled(stage: Stage, evidence: Evidence, questions: Questions, *, listed_only: bool = False) -> Iterator[Work]:
    """Yield the images about which something may be missing, in source order.

    Bytes that could not be decoded never can be; bytes that could not be read are worth another try.
    """
    for item, settled in evidence.iter_items(listed_only=listed_only):
        if _is_hopeless(item.info):
            continue
        requests = stage.requests(item)
        if requests and settled != (mark := questions.mark(requests)):
            yield Work(item, requests, mark)


def missing(work: Work, evidence: Evidence, questions: Questions) -> Sequence[Request]:
    """Return the requests that the evidence lacks; all of them while the image's bytes were never read."""
    info = work.item.info
    if info is None or not info.fingerprint:
        return work.requests
    keys = questions.keys(work.requests, info.fingerprint)
    answered = evidence.answered(keys)
    return [request for request, key in zip(work.requests, keys, strict=True) if key not in answered]


def survey(stage: Stage, evidence: Evidence, questions: Questions, *, listed_only: bool = False) -> Survey:
    """Count what is missing. An image that failed counts as a reason only: nobody knows yet whether it still does."""
    found = Survey()
    for item, settled in evidence.iter_items(listed_only=listed_only):
        requests = stage.requests(item)
        found.example = found.example or next(iter(requests), None)
        if item.info is not None and item.info.failure is not None:
            found.reasons["failed earlier and could not be looked at"] += 1
            continue
        lacking = 0
        if settled != questions.mark(requests):
            lacking = len(missing(Work(item, requests, b""), evidence, questions))
        found.known += len(requests) - lacking
        if lacking:
            found.requests += lacking
            found.images += 1
            found.reasons[_reason(item, settled)] += 1
    return found


def _reason(item: Item, settled: bytes | None) -> str:
    if item.info is None:
        return "new, changed or not opened yet"
    return "asked otherwise before" if settled else "not finished earlier"


def _is_hopeless(info: ImageInfo | None) -> bool:
    return info is not None and info.failure is not None and bool(info.fingerprint)
