"""What people decided on our own pages: `decisions.jsonl` of a review page, `answers.csv` and `audit.csv` of an audit.

A review page's file begins with a line about the page, of which it says how many decisions follow; files of several
pages may stand one after the other. The CSV of an audit is read by the `audit.json` beside it, where there is one: then
names that a spreadsheet changed do no harm.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from tagllm_cli.errors import UsageError
from tagllm_cli.evaluation.audit import design
from tagllm_cli.evaluation.audit.answers import (
    Answers,
    answer_columns,
    answer_file,
    answer_in,
    named_columns,
    read_answers,
)
from tagllm_cli.evaluation.human_labels.base import (
    NO,
    UNKNOWN,
    WITHDRAWN,
    YES,
    HumanLabels,
    Reader,
    Statement,
)
from tagllm_cli.evaluation.truth.base import TruthFile
from tagllm_cli.records import digest16
from tagllm_cli.text import undefused

VERSION = 1
_MARK = '"tagllm_review"'
_DECISIONS = frozenset([YES, NO, UNKNOWN, WITHDRAWN])
_ANSWERS = {True: YES, False: NO, None: UNKNOWN}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SAVE_AGAIN = "Save the decisions on the page once more."


def is_review(file: TruthFile) -> bool:
    """Return whether the first line is that of a review page's file."""
    return file.is_json and _MARK in file.start.splitlines()[0][:100]


def read_review(file: TruthFile) -> HumanLabels:
    """Read the decisions of review pages. Raises UsageError for a file that is damaged, cut off or of another table."""
    statements: list[Statement] = []
    pages: list[Mapping[str, Any]] = []
    missing = 0
    for line, value in _lines(file):
        if isinstance(value, dict) and "tagllm_review" in value:
            if missing:
                raise _cut_off(file, pages[-1], missing)
            pages.append(_page(file, line, value))
            missing = value["decisions"]
            continue
        if not missing:
            raise file.error("there are more decisions than the line of their page says", _SAVE_AGAIN, line=line)
        statements.append(_statement(file, line, value))
        missing -= 1
    if missing:
        raise _cut_off(file, pages[-1], missing)
    if not statements:
        raise file.error("it has no decision", _SAVE_AGAIN)
    return HumanLabels(
        statements,
        (),
        "decisions of a review page",
        is_explicit=True,
        warnings=tuple(_of_other_table(file, pages, statements)),
    )


def _lines(file: TruthFile) -> Iterator[tuple[int, Any]]:
    """Yield number and value of each line; a last line that is cut off is left out."""
    held: tuple[int, str] | None = None
    with file.open_text() as text:
        for number, line in enumerate(text, 1):
            if held is not None:
                yield held[0], _parsed(file, *held)
            stripped = line.strip("\ufeff \t\r\n")
            held = (number, stripped) if stripped else None
        if held is not None and (line.endswith("\n") or held[1].endswith("}")):
            yield held[0], _parsed(file, *held)


def _parsed(file: TruthFile, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise file.error(f"not JSON: {error}", _SAVE_AGAIN, line=number) from error


def _page(file: TruthFile, line: int, value: Mapping[str, Any]) -> Mapping[str, Any]:
    version = value["tagllm_review"]
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise file.error(f"no page has the version {version!r}", _SAVE_AGAIN, line=line)
    if version > VERSION:
        message = f"it is of version {version} of the page; this tagllm reads up to {VERSION}"
        raise file.error(message, "Upgrade tagllm.", line=line)
    count, table = value.get("decisions"), value.get("table")
    if not isinstance(count, int) or isinstance(count, bool) or count < 0 or not isinstance(table, dict):
        raise file.error("it does not say of which page it is", _SAVE_AGAIN, line=line)
    return value


def _statement(file: TruthFile, line: int, value: Any) -> Statement:
    if not isinstance(value, dict):
        raise file.error("this is no decision", _SAVE_AGAIN, line=line)
    texts = [value.get(key, "") for key in ("image", "label", "decision", "who", "fingerprint")]
    if not all(isinstance(text, str) for text in texts) or not all(texts[:2]):
        raise file.error("a decision needs texts: `image`, `label`, `decision`", _SAVE_AGAIN, line=line)
    image, label, decision, who, fingerprint = texts
    if decision not in _DECISIONS:
        raise file.error(f"{decision!r} is no decision", "Write yes, no, unknown or withdrawn.", line=line)
    try:
        when = datetime.fromisoformat(value["when"])
        moment = (when if when.tzinfo else when.replace(tzinfo=UTC)) - _EPOCH
        bytes.fromhex(fingerprint)
    except (KeyError, TypeError, ValueError) as error:
        raise file.error(f"its time or its fingerprint is none: {error}", _SAVE_AGAIN, line=line) from error
    return Statement(image, label, decision, who, moment // timedelta(microseconds=1), fingerprint)


def _cut_off(file: TruthFile, page: Mapping[str, Any], missing: int) -> UsageError:
    count = page["decisions"]
    return file.error(
        f"it is cut off: {count - missing:,} of {count:,} decisions are there",
        f"{_SAVE_AGAIN} If the page is gone, write {count - missing} for {count} in the first line to take those.",
    )


def _of_other_table(file: TruthFile, pages: list[Mapping[str, Any]], statements: list[Statement]) -> Iterator[str]:
    """Yield a warning for a page of another vocabulary. Raises UsageError where no image is one of the table."""
    if file.table is None:
        return
    names = sorted({str(page["table"].get("name")) for page in pages})
    if not file.table.image_index.share(dict.fromkeys(each.image for each in statements)):
        raise file.error(
            f"it is about another table ({', '.join(names)}): none of its images is in this one",
            "Name the table that the page was made of.",
        )
    digest = digest16("\n".join(file.table.vocabulary.names).encode()).hex()
    if any(page["table"].get("vocabulary") != digest for page in pages):
        yield f"the page was made of a table with other labels ({', '.join(names)}): decisions are matched by name"


def is_audit(file: TruthFile) -> bool:
    """Return whether this is a CSV with the columns of an audit."""
    if not file.is_text or not file.start:
        return False
    try:
        return {"pair", "answer"} <= named_columns(answer_file(file.path)).keys()
    except UsageError:
        return False


def read_audit(file: TruthFile) -> HumanLabels:
    """Read the answers of an audit. Raises UsageError as `read_answers` does, and for a pair without image or label."""
    if (file.path.parent / design.FILE).exists():
        made = design.load_design(file.path.parent)
        answers = read_answers(file.path, made)
        given = [(pair, answers.given[pair.id]) for pair in made.pairs if pair.id in answers.given]
        statements = [Statement(pair.image, pair.label, _ANSWERS[said]) for pair, said in given]
        return _of_audit(statements, answers)
    statements = list(_answered(answer_file(file.path)))
    if not statements:
        raise file.error("none of its pairs is answered", "Write yes, no or unsure into the column `answer`.")
    return _of_audit(statements)


def _answered(file: TruthFile) -> Iterator[Statement]:
    columns = answer_columns(file)
    if not {"image", "label"} <= columns.keys():
        raise file.error(
            "it names its pairs by letters, and there is no audit.json beside it",
            "Put it into the folder of its audit.",
        )
    for number, cells in file.sheet.lines(padded=True):
        for said in answer_in(file, cells[columns["answer"]], number):
            image, label = (undefused(cells[columns[name]]) for name in ("image", "label"))
            yield Statement(image, label, _ANSWERS[said])


def _of_audit(statements: list[Statement], answers: Answers | None = None) -> HumanLabels:
    warnings = () if answers is None else tuple(answers.warnings)
    return HumanLabels(statements, (), "answers of an audit", is_explicit=True, warnings=warnings)


REVIEW = Reader("review page", is_review, read_review)
AUDIT = Reader("audit", is_audit, read_audit)
