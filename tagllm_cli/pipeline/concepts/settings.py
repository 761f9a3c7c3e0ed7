"""What `tagllm concepts` is asked to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tagllm_cli.engines.base import Engine
from tagllm_cli.errors import UsageError
from tagllm_cli.evaluation.truth import TruthOptions
from tagllm_cli.labeling.plan import DEFAULT_MAX_PIXELS
from tagllm_cli.sources.base import SourceOptions


@dataclass(frozen=True, slots=True)
class Model:
    """A model that is asked: its name for people, the 16-byte digest of its identity, and how to make its engine."""

    name: str
    digest: bytes
    engine: Callable[[], Engine]


@dataclass(frozen=True, slots=True)
class ConceptSettings:
    """Which labels get cards, from what, and how hard to try.

    Args:
        vocabulary: name of a built-in vocabulary, or path of a file.
        out: the card file, .yaml or .yml; what it holds already is kept.
        images: folder of pictures for the try-out; with `table`, where that table's pictures are now.
        table: candidate or label table that says where a label was proposed.
        truth: people's labels of these pictures.
        rounds: most rounds of finding, drafting and trying.
        review: a person decides about every card that passes.
        labels: only these labels, whether or not they are found ambiguous.
        pictures: pictures that a label is tried on where it was proposed; half as many more where it was not.
        seed: which pictures.
        prompts: folder of templates that replace built-in ones.
        max_pixels: pixel budget per picture.
        source_options: what the listing of `images` leaves out.
        truth_options: how the file `truth` is read.
    """

    vocabulary: str
    out: Path
    images: Path | None = None
    table: Path | None = None
    truth: Path | None = None
    rounds: int = 3
    review: bool = False
    labels: tuple[str, ...] = ()
    pictures: int = 32
    seed: int = 0
    prompts: Path | None = None
    max_pixels: int = DEFAULT_MAX_PIXELS
    source_options: SourceOptions = SourceOptions()  # noqa: RUF009 (frozen)
    truth_options: TruthOptions = TruthOptions()  # noqa: RUF009 (frozen)

    @property
    def evidence(self) -> Path:
        """The evidence file, beside the card file; `cards.evidence` would be that of a table `cards.parquet`."""
        return self.out.with_name(f"{self.out.name}.evidence")

    @property
    def has_pictures(self) -> bool:
        """Whether there is anything to try cards on."""
        return self.images is not None or self.table is not None

    def check(self, *, sees: bool, is_terminal: bool) -> None:
        """Raise UsageError where the settings do not fit together, the model (does it see?) or the terminal."""
        if self.out.suffix not in (".yaml", ".yml") or self.out.is_dir():
            raise UsageError(f"--out {self.out} is no YAML file", "Name a file, such as cards.yaml.")
        if self.truth is not None and not self.has_pictures:
            raise UsageError("--truth says nothing without pictures", "Add --table TABLE or --images FOLDER.")
        if self.has_pictures and not sees:
            raise UsageError("no model is named to look at the pictures", "Add --model or --endpoint.")
        if self.review and not is_terminal:
            raise UsageError("--review asks a person, and this is no terminal", "Run it in a terminal.")
