"""Small tables with pictures and a truth, for reports: every kind of error, of state and of name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tagllm_cli.records import Decision, LabelEntry, Row, SourceInfo, Status, digest16
from tagllm_cli.store.table import TableInfo, write_table
from tagllm_cli.vocabulary.model import Label, Vocabulary
from tests.support.image_files import encode, photo

HOSTILE = "<img src=x onerror=alert(1)></script><script>alert(2)</script>"
HOSTILE_FILE = "<b onmouseover=alert(3)>&lt;.jpg"
LABELS = (
    Label("cat", description="a small animal that purrs", similar=("dog",)),
    Label("dog"),
    Label("cup"),
    Label(HOSTILE, description="</dd><script>alert(4)</script>"),
)
Said = Sequence[tuple[str, float | None]]


def entry(name: str, probability: float | None, arms: tuple[str, ...] = ("one",)) -> LabelEntry:
    """An answer with this probability of yes; None: undecided."""
    if probability is None:
        return LabelEntry(name, Decision.UNKNOWN, None, 0.1, 0.0, arms)
    decision = Decision.YES if probability > 0.5 else Decision.NO
    return LabelEntry(name, decision, probability, 1.0, probability, arms)


def write(path: Path, images: Path, said: Mapping[str, Said], more: Sequence[Row] = ()) -> Path:
    """Write a label table whose images, one per key of `said`, lie below `images`; `more` rows follow."""
    rows = []
    for number, (name, labels) in enumerate(said.items()):
        file = images / name
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(encode(photo(96, 72, seed=number), "JPEG"))
        answers = tuple(entry(label, probability) for label, probability in labels)
        fingerprint = digest16(file.read_bytes())
        rows.append(Row(name, name, fingerprint, 96, 72, Status.OK, None, answers, ("teapot",) * (number % 2)))
    plan = {"threshold": 0.5, "min_mass": 0.5, "model": "some/model", "max_pixels": 1000, "strategy": "groups"}
    info = TableInfo("labels", SourceInfo("folder", str(images)), Vocabulary("tiny", LABELS), plan)
    write_table(path, info, [*rows, *more])
    return path


SAID: dict[str, Said] = {
    "right.jpg": [("cat", 0.9), ("dog", 0.1)],
    "wrong.jpg": [("dog", 0.8), ("cup", 0.95)],
    "missed.jpg": [("cat", 0.3)],
    "undecided.jpg": [("cup", None)],
    HOSTILE_FILE: [(HOSTILE, 0.55)],
}
TRUTH = f"""image,labels
right.jpg,cat
wrong.jpg,cup
missed.jpg,cat|dog
undecided.jpg,cup
{HOSTILE_FILE},{HOSTILE}
"""
FAILED = Row("broken.jpg", "broken.jpg", b"", 0, 0, Status.FAILED, "truncated_file: <b>it ends early</b>", None)


def small(folder: Path) -> tuple[Path, Path]:
    """Write a table of six images, one of them failed, and its truth; return their paths."""
    truth = folder / "truth.csv"
    truth.write_text(TRUTH, encoding="utf-8")
    return write(folder / "labels.parquet", folder / "images", SAID, [FAILED]), truth


def other(folder: Path) -> Path:
    """Write another table of the same images, which differs in two labels and lacks two images."""
    said = {name: SAID[name] for name in ("right.jpg", "wrong.jpg", "missed.jpg")}
    changed: dict[str, Said] = {**said, "wrong.jpg": [("cup", 0.95)], "missed.jpg": [("dog", 0.9)]}
    return write(folder / "other.parquet", folder / "images", changed)
