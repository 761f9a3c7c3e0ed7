"""What every stage makes of one image's recorded answers: failed, pending, or a row with what they say."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tagllm_cli.records import Item, LabelEntry, Response, Row, Status

# The labels of a row, and the answers that the vocabulary does not know.
Said = tuple[tuple[LabelEntry, ...], tuple[str, ...]]


def why_failed(response: Response) -> str | None:
    """Say why a reply is no answer, None where it is one."""
    return None if response.failure is None else str(response.failure)


def make_row(
    item: Item,
    responses: Sequence[Response | None],
    read: Callable[[Sequence[Response]], Said],
    why: Callable[[Response], str | None] = why_failed,
) -> Row:
    """Return the row of an image, given what is on record for each of its requests (None: not asked yet).

    `read` says what the replies mean, failed ones among them; it is not called where all failed. `why` says why a reply
    is no answer, None where it is one.
    """
    info = item.info
    if info is not None and info.failure is not None:
        return Row.of(item, Status.FAILED, str(info.failure))
    answered = [response for response in responses if response is not None]
    if info is None or len(answered) < len(responses):
        return Row.of(item, Status.PENDING)
    failures = [said for response in answered if (said := why(response))]
    if failures and len(failures) == len(answered):
        error = f"request_failed: all {len(answered)} requests failed, the first: {failures[0]}"
        return Row.of(item, Status.FAILED, error)
    labels, unmatched = read(answered)
    if failures:
        error = f"request_failed: {len(failures)} of {len(answered)} requests failed, the first: {failures[0]}"
        return Row.of(item, Status.PARTIAL, error, labels, unmatched)
    return Row.of(item, Status.OK, None, labels, unmatched)
