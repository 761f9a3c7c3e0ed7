"""Folders of captions, `image.txt` beside `image.jpg`: tags that people wrote, or changed in an export of ours.

Such an export has a record of what it wrote (`captions.jsonl`): what was added to a caption is a yes, what is missing a
no, and tags that nobody touched are no human decisions (`HumanLabels.kept`). Without the record every tag is a yes.
Files with boxes (YOLO) are refused; how foreign captions are cut into tags is decided as for ground truth
(`evaluation.truth.text_files`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tagllm_cli.evaluation.human_labels.base import NO, YES, CheckedImage, HumanLabels, Reader, Statement
from tagllm_cli.evaluation.truth.base import TruthFile
from tagllm_cli.evaluation.truth.text_files import read_folder, recognizes_folder
from tagllm_cli.text import shortened

RECORD = "captions.jsonl"
_VERSION = 1
_HEAD = "tagllm_captions"


def recognizes(file: TruthFile) -> bool:
    """Return whether this is a folder with text files."""
    return recognizes_folder(file)


def read(file: TruthFile) -> HumanLabels:
    """Read every caption. Raises UsageError for boxes, for text in another encoding, and for a broken record."""
    record = file.path / RECORD
    if record.is_file() and _is_ours(record):
        return _read_ours(file, record)
    truth = read_folder(file)
    others: Counter[str] = Counter()
    statements: list[Statement] = []
    checked: list[CheckedImage] = []
    for image, names in truth.labels.items():
        when = _modified(file.path / f"{image}.txt")
        checked.append(CheckedImage(image, when=when))
        for name in sorted(names):
            if (label := _label(file, name)) is None:
                others[name] += 1
            else:
                statements.append(Statement(image, label, YES, when=when))
    form = f"captions, {len(truth.labels):,} text files"
    return HumanLabels(statements, checked, form, notes=_notes(others), warnings=truth.warnings)


def _is_ours(record: Path) -> bool:
    with record.open("rb") as file:
        return file.read(len(_HEAD) + 4).startswith(f'{{"{_HEAD}"'.encode())


def _read_ours(file: TruthFile, record: Path) -> HumanLabels:
    where = TruthFile(record)
    lines = (line for _, line in where.json_lines())
    head = next(lines)
    try:
        version, separator, label_of = head[_HEAD], str(head["separator"]), dict(head["tags"])
        prefix = str(head["prefix"]).strip()
    except (KeyError, TypeError, ValueError) as error:
        raise where.error("the first line of this record is damaged", "Export the captions again.") from error
    if version != _VERSION:
        raise where.error(f"this record has version {version}, and {_VERSION} is known", "Use a newer tagllm.")
    found = _Found(file, separator.strip() or separator, label_of, prefix)
    for line in lines:
        try:
            caption, image, text = Path(line["caption"]), str(line["image"]), str(line["text"])
            if caption.is_absolute() or ".." in caption.parts:
                raise ValueError(caption)
        except (KeyError, TypeError, ValueError) as error:
            raise where.error("a line of this record is damaged", "Export the captions again.") from error
        found.take(file.path / caption, image, text)
    return found.human_labels()


class _Found:
    """What was read so far of captions that tagllm wrote."""

    def __init__(self, file: TruthFile, separator: str, label_of: Mapping[str, Any], prefix: str) -> None:
        self._file, self._separator, self._label_of, self._prefix = file, separator, label_of, prefix
        self._statements: list[Statement] = []
        self._kept: list[Statement] = []
        self._checked: list[CheckedImage] = []
        self._others: Counter[str] = Counter()
        self._edited = 0

    def take(self, path: Path, image: str, written: str) -> None:
        """Compare one caption with what was written; one that is gone says nothing."""
        try:
            text = path.read_text(encoding="utf-8-sig")
        except FileNotFoundError:
            return
        except (UnicodeError, OSError) as error:
            raise TruthFile(path).not_text(error) from error
        old, new, when = self._tags(written), self._tags(text), _modified(path)
        self._checked.append(CheckedImage(image, when=when))
        same = ((tag, self._label_of.get(tag)) for tag in new if tag in old)
        self._kept += [Statement(image, str(label), YES, when=when) for _, label in same if label is not None]
        self._edited += old.keys() != new.keys()
        for decision, tags in ((YES, new.keys() - old.keys()), (NO, old.keys() - new.keys())):
            for tag in sorted(tags, key=[*new, *old].index):
                label = self._label_of.get(tag) or _label(self._file, tag)
                if label is not None:
                    self._statements.append(Statement(image, str(label), decision, when=when))
                elif decision == YES:
                    self._others[tag] += 1

    def human_labels(self) -> HumanLabels:
        """Return it."""
        note = f"captions that tagllm wrote: {len(self._checked):,}, changed by people: {self._edited:,}"
        form = f"captions, {len(self._checked):,} text files"
        notes = (note, *_notes(self._others))
        return HumanLabels(self._statements, self._checked, form, self._kept, is_explicit=True, notes=notes)

    def _tags(self, text: str) -> dict[str, None]:
        line = text.splitlines()[0] if text.strip() else ""
        tags = (tag.strip() for tag in line.split(self._separator))
        return dict.fromkeys(tag for tag in tags if tag and tag != self._prefix)


def _label(file: TruthFile, tag: str) -> str | None:
    """Return the label that a tag names, as it is or without escapes; None for none."""
    plain = tag.replace(r"\(", "(").replace(r"\)", ")")
    if file.table is None:
        return plain
    return next((form for form in (tag, plain) if file.table.knows(form)), None)


def _notes(others: Counter[str]) -> tuple[str, ...]:
    if not others:
        return ()
    names: Iterable[str] = (name for name, _ in others.most_common())
    return (f"tags that are no labels of the table: {others.total():,} ({shortened(list(names))})",)


def _modified(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns // 1000
    except OSError:
        return None


READER = Reader("captions", recognizes, read)
