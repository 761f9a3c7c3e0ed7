"""What people answered about the pairs of an audit: the CSV as they, a spreadsheet or the page wrote it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tagllm_cli.evaluation.audit.design import Design, Pair
from tagllm_cli.evaluation.truth.base import TruthFile
from tagllm_cli.evaluation.truth.cells import mark
from tagllm_cli.evaluation.truth.columns import squashed
from tagllm_cli.text import shortened, undefused

FILE = "audit.csv"
HEADER = ("pair", "image", "label", "answer")

_COLUMNS = {
    "pair": ("pair", "pairid"),
    "image": ("image", "imageid", "filename"),
    "label": ("label", "labelname"),
    "answer": ("answer", "answers", "present", "decision", "judgment"),
}
_EMPTY = frozenset(["", "-", "nan", "na", "n/a", "null", "none"])
# What spreadsheets and people write in other languages: German, French, Spanish, Italian, Dutch.
_WORDS: Mapping[str, bool | None] = {
    **dict.fromkeys(
        ("ja", "j", "wahr", "oui", "o", "vrai", "si", "sí", "sì", "s", "verdadero", "vero", "✓", "✔"), True
    ),
    **dict.fromkeys(("nein", "falsch", "non", "faux", "falso", "nee", "✗", "✘"), False),
    **dict.fromkeys(("u", "maybe", "unclear", "skip", "unsicher", "vielleicht", "peut-être"), None),
}


@dataclass(frozen=True, slots=True)
class Answers:
    """`given` maps a pair's id to its answer: yes, no, or None for unsure. What is in neither is not answered.

    `conflicting` pairs were answered in two ways and count as not answered; `repeated` lines say what another one says.
    `foreign` lines are of no pair of the audit; `altered` ones name another image or label than their pair has;
    `missing` pairs have no line.
    """

    given: Mapping[str, bool | None]
    conflicting: tuple[str, ...]
    repeated: int
    foreign: int
    altered: int
    missing: int

    @property
    def warnings(self) -> list[str]:
        """What is wrong with the file, a sentence each."""
        counted = {
            "lines of no pair of this audit, left out": self.foreign,
            "lines that repeat another one": self.repeated,
            "lines whose image or label is spelled in another way than in the audit, taken by their pair": self.altered,
            "pairs of the audit that have no line, counted as not answered": self.missing,
        }
        lines = [f"{what}: {count:,}" for what, count in counted.items() if count]
        if self.conflicting:
            names = shortened(self.conflicting, 3)
            lines.append(f"pairs answered in two ways, counted as not answered: {len(self.conflicting):,} ({names})")
        return lines


def read_answers(path: Path, design: Design) -> Answers:
    """Read a CSV with a line per pair, in any order, with or without the column `pair`.

    Raises UsageError for a file that cannot be read, an answer that is none, lines of another audit, lines whose pairs
    and images do not belong together, and a file without any answer.
    """
    file = answer_file(path)
    columns = answer_columns(file)
    by_name = {(pair.image.strip(), pair.label.strip()): pair for pair in design.pairs}
    by_id = {pair.id: pair for pair in design.pairs}
    said: dict[str, set[bool | None]] = {}
    lines = foreign = altered = repeated = 0
    for number, cells in file.sheet.lines(padded=True):  # Excel leaves out empty cells at the end
        lines += 1
        named = tuple(undefused(cells[columns[each]]).strip() if each in columns else "" for each in ("image", "label"))
        pair = by_id.get(cells[columns["pair"]].lower()) if "pair" in columns else by_name.get(named)  # type: ignore[arg-type]
        if pair is None:
            foreign += 1
            continue
        if _is_altered(pair, named, columns):
            altered += 1
            if named in by_name:
                raise file.error(
                    f"pair {pair.id} is of {pair.image!r} and {pair.label!r}, and this line has those of another pair",
                    "Sort whole lines, not single columns; or fill in the file anew.",
                    line=number,
                )
        given = answer_in(file, cells[columns["answer"]], number)
        repeated += pair.id in said
        said.setdefault(pair.id, set()).update(given)
    if not lines:
        raise file.error("there is no line below the header", f"Fill in the {FILE} that `audit` wrote.")
    if foreign == lines:
        raise file.error(
            "none of its lines is of a pair of this audit", "Its answers belong to the audit.json beside it."
        )
    return _collected(file, design, said, foreign=foreign, altered=altered, repeated=repeated)


def answer_file(path: Path) -> TruthFile:
    """Return a CSV of answers, to be read. Raises UsageError where this is none."""
    file = TruthFile(path, plain_encoding=_plain_encoding(path))
    if not file.is_text or not file.start:
        raise file.error("this is no CSV", f"Fill in the {FILE} that `audit` wrote.")
    return file


def _plain_encoding(path: Path) -> str:
    """Return UTF-8, else the code page in which Excel saves a plain CSV in Western Europe and America.

    In another one's file only names are misread: pairs and most answers are ASCII.
    """
    try:
        path.read_text("utf-8")
    except UnicodeDecodeError:
        return "cp1252"
    except OSError:  # a folder, no file: the caller says it
        pass
    return "utf-8"


def _collected(
    file: TruthFile, design: Design, said: Mapping[str, set[bool | None]], *, foreign: int, altered: int, repeated: int
) -> Answers:
    conflicting = tuple(pair for pair, answers in said.items() if len(answers) > 1)
    given = {pair: next(iter(answers)) for pair, answers in said.items() if len(answers) == 1}
    if not given and not conflicting:
        raise file.error(
            f"none of {len(design.pairs):,} pairs is answered", "Write yes, no or unsure into the column `answer`."
        )
    repeated -= len(conflicting)
    return Answers(given, conflicting, max(0, repeated), foreign, altered, len(design.pairs) - len(said))


def named_columns(file: TruthFile) -> dict[str, int]:
    """Return the places of the columns `pair`, `image`, `label` and `answer`, those that are there."""
    header = [squashed(name) for name in file.sheet.header]
    found = {}
    for column, names in _COLUMNS.items():
        places = [place for place, name in enumerate(header) if name in names]
        if places:
            found[column] = places[0]
    return found


def answer_columns(file: TruthFile) -> dict[str, int]:
    """Return what `named_columns` does. Raises UsageError where they do not tell which pair has which answer."""
    found = named_columns(file)
    if "answer" not in found:
        raise file.error(
            f"no column is called `answer`: {', '.join(file.sheet.header)}", "Keep the header of the file."
        )
    if "pair" not in found and not {"image", "label"} <= found.keys():
        raise file.error("there is neither a column `pair` nor the columns `image` and `label`", "Keep the header.")
    return found


def _is_altered(pair: Pair, named: tuple[str, ...], columns: Mapping[str, int]) -> bool:
    image, label = named
    return ("image" in columns and image != pair.image.strip()) or ("label" in columns and label != pair.label.strip())


def answer_in(file: TruthFile, cell: str, line: int) -> tuple[bool | None, ...]:
    """Return the answer in a cell (None: unsure), () where it is empty. Raises UsageError for other words."""
    word = undefused(cell).strip().lower().rstrip(".!")
    if word in _EMPTY:
        return ()
    if word in _WORDS:
        return (_WORDS[word],)
    try:
        return (mark(word),)
    except KeyError:
        message = f"{cell!r} in column {file.sheet.header[named_columns(file)['answer']]!r} is no answer"
        raise file.error(message, "Write yes, no or unsure (or y, n, ?, 1, 0), or leave it empty.", line=line) from None
