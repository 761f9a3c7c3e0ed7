"""Resume is decided here: which requests about which images still have to be asked. Look-ups only.

An image is complete for a set of requests when its row in the evidence carries the hash of that set (`requests_hash`);
the scheduler writes it once every request has a response that is no failure. The hash saves looking the responses up.
Where it and the responses disagree, the responses decide (`count_pending`, `reopen_incomplete`).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from tagllm_cli.labeling.stage import Stage
from tagllm_cli.records import ImageInfo, Item, Request, request_key
from tagllm_cli.store.evidence import Evidence

_HASHES = 10_000

# An image that fails for one of these reasons is opened by every run although its bytes are the same: there may be more
# memory, or a decoder that was not installed before.
RETRIED_KINDS = frozenset({"out_of_memory", "unsupported_format"})


@dataclass(frozen=True, slots=True)
class PendingImage:
    """An image that may lack responses, all requests about it, and their hash; `missing` counts those to be asked."""

    item: Item
    requests: Sequence[Request]
    requests_hash: bytes
    missing: int = 0


@dataclass(slots=True)
class PendingCounts:
    """What a run would ask: counts of images and requests, and why; `known` requests are answered already.

    `example` is one request. Copies of an image that was not opened yet count as often as there are copies.
    """

    images: int = 0
    requests: int = 0
    known: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    example: Request | None = None


class RequestKeys:
    """Digests of requests under one context, computed once per distinct request."""

    def __init__(self, context: bytes) -> None:
        self._context = context
        self._digests: dict[Request, bytes] = {}
        self._hashes: dict[tuple[Request, ...], bytes] = {}
        self._last: tuple[Sequence[Request], bytes] = ([], b"")

    def digest(self, request: Request) -> bytes:
        """Return the 16-byte digest of a request under the context."""
        known = self._digests.get(request)
        if known is None:
            known = self._digests[request] = request.digest(self._context)
        return known

    def keys(self, requests: Sequence[Request], fingerprint: bytes) -> list[bytes]:
        """Return the 16-byte key of each request about the image of this fingerprint."""
        return [request_key(self.digest(request), fingerprint if request.with_image else b"") for request in requests]

    def requests_hash(self, requests: Sequence[Request]) -> bytes:
        """Return a 16-byte hash of all the requests about one image, whichever image it is."""
        if requests is self._last[0]:  # one and the same for every image of a candidates run: not even hashed
            return self._last[1]
        hashes, key = self._hashes, tuple(requests)
        known = hashes.get(key)
        if known is None:
            if len(hashes) > _HASHES:  # disambiguation has a set of requests per image: the frequent ones are enough
                hashes.clear()
            state = hashlib.blake2b(digest_size=16)
            for request in key:
                state.update(self.digest(request))
            known = hashes[key] = state.digest()
        self._last = (requests, known)
        return known


def pending_images(
    stage: Stage, evidence: Evidence, keys: RequestKeys, *, listed_only: bool = False, shard: str | None = None
) -> Iterator[PendingImage | None]:
    """Yield the images that are not complete, in source order, of one shard or of all; None for each other one.

    A caller with other things to do gets its turn with every None: there may be millions in a row.
    """
    for item, completed in evidence.iter_items(listed_only=listed_only, shard=shard):
        yield pending_image(item, completed, stage, keys)


def pending_image(item: Item, completed: bytes | None, stage: Stage, keys: RequestKeys) -> PendingImage | None:
    """Return an image with all requests about it, None if it is complete; `completed` is what the record says."""
    requests = () if is_permanent_failure(item.info) else stage.requests(item)
    if requests and completed != (requests_hash := keys.requests_hash(requests)):
        return PendingImage(item, requests, requests_hash)
    return None


def missing_requests(item: Item, requests: Sequence[Request], evidence: Evidence, keys: RequestKeys) -> list[Request]:
    """Return the requests that have no answer on record; all of them while the image's bytes were never read."""
    if item.info is None or not item.info.fingerprint:
        return list(requests)
    request_keys = keys.keys(requests, item.info.fingerprint)
    answered = evidence.answered(request_keys)
    return [request for request, key in zip(requests, request_keys, strict=True) if key not in answered]


def have_failed(item: Item, missing: Sequence[Request], evidence: Evidence, keys: RequestKeys) -> bool:
    """Return whether all that an image lacks has been asked by this run, in the pass of another stage, and failed."""
    fingerprint = item.info.fingerprint if item.info is not None else b""
    return bool(fingerprint) and evidence.have_failed(keys.keys(missing, fingerprint))


def count_pending(
    stage: Stage,
    evidence: Evidence,
    keys: RequestKeys,
    *,
    listed_only: bool = False,
    observe: Callable[[Item, Sequence[Request]], None] | None = None,
) -> PendingCounts:
    """Count what is missing, by the responses on record; `observe` gets each image with the requests that it lacks.

    An image that failed counts as a reason only: nobody knows yet whether it still does.
    """
    found = PendingCounts()
    for item, completed in evidence.iter_items(listed_only=listed_only):
        requests = stage.requests(item)
        found.example = found.example or next(iter(requests), None)
        if item.info is not None and item.info.failure is not None:
            found.reasons["failed earlier and could not be looked at"] += 1
            continue
        missing = missing_requests(item, requests, evidence, keys)
        found.known += len(requests) - len(missing)
        if missing:
            found.requests += len(missing)
            found.images += 1
            found.reasons[_reason(item, completed, keys.requests_hash(requests))] += 1
            if observe is not None:
                observe(item, missing)
    return found


def reopen_incomplete(stage: Stage, evidence: Evidence, keys: RequestKeys) -> int:
    """Reopen images that are marked as complete and lack responses; return how many there are.

    That happens to an evidence file that was damaged or edited.
    """
    lacking = [
        item.image.id
        for item, completed in evidence.iter_items()
        if completed is not None
        and (requests := stage.requests(item))
        and completed == keys.requests_hash(requests)
        and not is_permanent_failure(item.info)
        and missing_requests(item, requests, evidence, keys)
    ]
    for image_id in lacking:
        evidence.set_completed(image_id, None)
    return len(lacking)


def is_permanent_failure(info: ImageInfo | None) -> bool:
    """Return whether the same bytes would only fail again; those that could not be read may be readable now."""
    return (
        info is not None
        and info.failure is not None
        and bool(info.fingerprint)
        and info.failure.kind not in RETRIED_KINDS
    )


def _reason(item: Item, completed: bytes | None, requests_hash: bytes) -> str:
    if item.info is None:
        return "new, changed or not opened yet"
    if completed == requests_hash:
        return "complete before, but recorded answers are missing"
    return "asked with other questions before" if completed else "not finished earlier"
