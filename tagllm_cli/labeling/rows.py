"""What every stage makes of one image's recorded answers: failed, pending, or a row with what they say."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tagllm_cli.records import Decision, Item, LabelEntry, Response, Row, Status

# The labels of a row, and the answers that the vocabulary does not know.
RowContent = tuple[tuple[LabelEntry, ...], tuple[str, ...]]

UNREADABLE = "unreadable_answer"
_SHOWN = 80  # characters of an answer in an error


def why_failed(response: Response) -> str | None:
    """Say why a response is no answer, None where it is one."""
    return None if response.failure is None else str(response.failure)


def unreadable(text: str) -> str:
    """Say that an answer is in no form that can be read: its kind and its beginning."""
    line = " ".join(text.split())
    return f"{UNREADABLE}: {line[:_SHOWN] + ('...' if len(line) > _SHOWN else '')!r}"


def proposals(row: Row) -> tuple[LabelEntry, ...] | None:
    """Return the candidates in a row of a candidate table; None where it says nothing (failed, pending).

    What an exhaustive table says no to is no candidate, and what is absent means no. What people decided changes no
    question: a label is a candidate where an arm proposed it, or the model left it in doubt.
    """
    if row.status in (Status.FAILED, Status.PENDING):
        return None
    return row.labels and tuple(entry for entry in row.labels if _is_candidate(entry))


def _is_candidate(entry: LabelEntry) -> bool:
    if entry.source != "human":
        return entry.decision is not Decision.NO
    return bool(entry.arms) or (entry.probability is None and entry.mass is not None)


def make_row(
    item: Item,
    responses: Sequence[Response | None],
    read: Callable[[Sequence[Response]], RowContent],
    why: Callable[[Response], str | None] = why_failed,
) -> Row:
    """Return the row of an image, given what is on record for each of its requests (None: not asked yet).

    `read` says what the responses mean, failed ones among them; it is not called where all failed. `why` says why a
    response is no usable answer, None where it is one.
    """
    info = item.info
    if info is not None and info.failure is not None:
        return Row.of(item, Status.FAILED, str(info.failure))
    answered = [response for response in responses if response is not None]
    if info is None or len(answered) < len(responses):
        return Row.of(item, Status.PENDING)
    failures = [said for response in answered if (said := why(response))]
    if failures and len(failures) == len(answered):
        return Row.of(item, Status.FAILED, _error(failures, f"all {len(answered)}"))
    labels, unmatched = read(answered)
    if failures:
        error = _error(failures, f"{len(failures)} of {len(answered)}")
        return Row.of(item, Status.PARTIAL, error, labels, unmatched)
    return Row.of(item, Status.OK, None, labels, unmatched)


def _error(failures: Sequence[str], count: str) -> str:
    prefix = f"{UNREADABLE}: "
    if all(failure.startswith(prefix) for failure in failures):
        return f"{prefix}{count} answers are in no form that can be read, the first: {failures[0].removeprefix(prefix)}"
    return f"request_failed: {count} requests failed, the first: {failures[0]}"
