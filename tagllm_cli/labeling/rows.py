"""What every stage makes of one image's recorded answers: failed, pending, or a row with what they say."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tagllm_cli.records import LabelEntry, Reply, Row, Status, Subject

# The labels of a row, and the answers that the vocabulary does not know.
Said = tuple[tuple[LabelEntry, ...], tuple[str, ...]]


def why_failed(reply: Reply) -> str | None:
    """Say why a reply is no answer, None where it is one."""
    return None if reply.failure is None else str(reply.failure)


def make_row(
    subject: Subject,
    replies: Sequence[Reply | None],
    read: Callable[[Sequence[Reply]], Said],
    why: Callable[[Reply], str | None] = why_failed,
) -> Row:
    """Return the row of an image, given what is on record for each of its requests (None: not asked yet).

    `read` says what the replies mean, failed ones among them; it is not called where all failed. `why` says why a reply
    is no answer, None where it is one.
    """
    seen = subject.seen
    if seen is not None and seen.failure is not None:
        return Row.of(subject, Status.FAILED, str(seen.failure))
    answered = [reply for reply in replies if reply is not None]
    if seen is None or len(answered) < len(replies):
        return Row.of(subject, Status.PENDING)
    failures = [said for reply in answered if (said := why(reply))]
    if failures and len(failures) == len(answered):
        error = f"request_failed: all {len(answered)} requests failed, the first: {failures[0]}"
        return Row.of(subject, Status.FAILED, error)
    labels, unmatched = read(answered)
    if failures:
        error = f"request_failed: {len(failures)} of {len(answered)} requests failed, the first: {failures[0]}"
        return Row.of(subject, Status.PARTIAL, error, labels, unmatched)
    return Row.of(subject, Status.OK, None, labels, unmatched)
