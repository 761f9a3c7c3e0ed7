"""Circuit breaker: a run whose requests nearly all fail ends early, with the reason."""

from __future__ import annotations

from collections import Counter, deque

from tagllm_cli.records import Failure

WINDOW = 200  # the last requests that are looked at
LEAST_REQUESTS = 30
LEAST_IMAGES = 8
FAILED_SHARE = 0.95
# An image with thousands of requests must not fill the window alone: it may be what the server dislikes.
MOST_PER_IMAGE = WINDOW // LEAST_IMAGES
# Failures that say something about the image, and nothing about the server or the model.
IMAGE_KINDS = frozenset({"too_long"})


class CircuitBreaker:
    """Looks at the last requests that ended, of all images, in the order in which they ended.

    >>> breaker = CircuitBreaker()
    >>> for image in range(9):
    ...     for _ in range(4):
    ...         breaker.add(bytes([image]), Failure("rejected", "no such model"))
    >>> breaker.verdict()
    '36 of the last 36 requests failed, most often with: rejected: no such model'
    """

    def __init__(self) -> None:
        self._ended: deque[tuple[bytes, Failure | None]] = deque()
        self._of_image: Counter[bytes] = Counter()
        self._least_images = LEAST_IMAGES

    def expect(self, images: int) -> None:
        """Set how many images the run has in all: where there are few, all of them are enough."""
        self._least_images = min(LEAST_IMAGES, images)

    def add(self, image: bytes, failure: Failure | None) -> None:
        """Add a request that was answered (None) or has failed for good."""
        if failure is not None and failure.kind in IMAGE_KINDS:
            return
        if self._of_image[image] == MOST_PER_IMAGE:
            return
        self._of_image[image] += 1
        self._ended.append((image, failure))
        if len(self._ended) > WINDOW:
            oldest, _ = self._ended.popleft()
            self._of_image[oldest] -= 1
            if not self._of_image[oldest]:
                del self._of_image[oldest]

    def verdict(self) -> str | None:
        """Return why the run should end, in a sentence; None as long as it should not."""
        requests = len(self._ended)
        if requests < LEAST_REQUESTS or len(self._of_image) < self._least_images:
            return None
        failures = Counter(failure for _, failure in self._ended if failure is not None)
        failed = failures.total()
        if failed < FAILED_SHARE * requests:
            return None
        ((most_frequent, _),) = failures.most_common(1)
        return f"{failed} of the last {requests} requests failed, most often with: {most_frequent}"
