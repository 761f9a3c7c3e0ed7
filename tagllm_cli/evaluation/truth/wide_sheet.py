"""Sheets with a column per label: 1 or yes, 0 or no; empty, -1 and `uncertain` are not judged (CheXpert)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tagllm_cli.evaluation.truth.base import Dialect, Truth, TruthFile
from tagllm_cli.evaluation.truth.cells import mark
from tagllm_cli.evaluation.truth.columns import image_column, label_column, no_label_column
from tagllm_cli.text import shortened

_MINUS = frozenset(["-1", "-1.0"])


def recognizes(file: TruthFile) -> bool:
    """Return whether no column holds label names, so that each may be a label."""
    if not file.is_text:
        return False
    sheet = file.sheet
    sample = sheet.sample()
    return label_column(file, sheet.header, sample, [image_column(file, sheet.header, sample)]) is None


def read(file: TruthFile) -> Truth:
    """Read the columns that are labels of the vocabulary, or all where there is none to ask."""
    sheet, header = file.sheet, file.sheet.header
    image = image_column(file, header, sheet.sample())
    # A column without a name is the index that pandas writes.
    named = {number: name for number, name in enumerate(header) if name and number != image}
    labels = {number: name for number, name in named.items() if file.table is None or file.table.knows(name)}
    if not labels:
        raise no_label_column(file, header)
    others = [name for number, name in named.items() if number not in labels]
    present: dict[str, set[str]] = {}
    unknown: dict[str, set[str]] = {}
    conflicts: dict[str, set[str]] = {}
    for key, marks in _marks(file, image, labels):
        here = {name for name, said in marks.items() if said}
        unsaid = {name for name, said in marks.items() if said is None}
        if key in present:
            if disputed := (present[key] - here - unsaid) | (here - present[key] - unknown[key]):
                conflicts.setdefault(key, set()).update(disputed)
            here, unsaid = here | present[key], unsaid & unknown[key]
        present[key], unknown[key] = here, unsaid
    for key, disputed in conflicts.items():
        present[key] -= disputed
        unknown[key] |= disputed
    count = sum(map(len, conflicts.values()))
    return Truth(
        {key: frozenset(names) for key, names in present.items()},
        tuple(dict.fromkeys(labels.values())),
        exhaustive=True,
        unknown={key: frozenset(names) for key, names in unknown.items() if names},
        dialect=f"{sheet.name}, a column per label ({header[image]}; {len(labels):,} labels)",
        notes=(f"columns that are no labels of the vocabulary: {shortened(others, 8)}",) if others else (),
        warnings=(f"pairs that one line has and another lacks, and that are not judged: {count:,}",) if count else (),
    )


def _marks(file: TruthFile, image: int, labels: Mapping[int, str]) -> Iterator[tuple[str, Mapping[str, bool | None]]]:
    """Yield each line's image and what it says about each label. Raises UsageError for cells that are no marks."""
    has_zero = has_minus = False
    for line, cells in file.sheet.lines():
        if not cells[image]:
            raise file.error(f"there is no image in column {file.sheet.header[image]!r}", line=line)
        marks: dict[str, bool | None] = {}
        for number, name in labels.items():
            try:
                marks[name] = mark(cells[number])
            except KeyError:
                message = f"{cells[number]!r} in column {name!r} is neither 0 nor 1"
                hint = "Use 0 and 1, and nothing where nobody looked; or name a column of labels with --label-column."
                raise file.error(message, hint, line=line) from None
            has_zero = has_zero or marks[name] is False
            has_minus = has_minus or cells[number] in _MINUS
        yield cells[image], marks
    if has_minus and not has_zero:
        message = "the columns hold 1 and -1, but never 0: -1 may mean absent or uncertain"
        raise file.error(message, "Write 0 where a label is absent, and nothing where it is uncertain.")


DIALECT = Dialect("sheet with a column per label", recognizes, read)
