"""Settings of `tagllm concepts`."""

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
    """A model: its name, the 16-byte digest of its identity, and how to make its engine."""

    name: str
    digest: bytes
    engine: Callable[[], Engine]


@dataclass(frozen=True, slots=True)
class ConceptSettings:
    """Vocabulary, card file, validation images and limits.

    Args:
        vocabulary: name of a built-in vocabulary, or path of a file.
        out: the card file, .yaml or .yml; what it holds already is kept.
        images: source of validation images; with `table`, where that table's images are now.
        table: candidate or label table that says where a label was proposed.
        truth: ground truth of these images.
        rounds: maximum of rounds.
        review: a human decides about every card that passes.
        labels: only these labels, whether or not they are found ambiguous.
        examples: validation images per label where it was proposed; half as many more where it was not.
        seed: chooses the validation images.
        prompts: folder of templates that replace built-in ones.
        max_pixels: pixel budget per image.
        source_options: what the listing of `images` leaves out.
        source_format: the kind of `images`, None to find it out.
        truth_options: how the file `truth` is read.
    """

    vocabulary: str
    out: Path
    images: str | None = None
    table: Path | None = None
    truth: Path | None = None
    rounds: int = 3
    review: bool = False
    labels: tuple[str, ...] = ()
    examples: int = 32
    seed: int = 0
    prompts: Path | None = None
    max_pixels: int = DEFAULT_MAX_PIXELS
    source_options: SourceOptions = SourceOptions()  # noqa: RUF009 (frozen)
    source_format: str | None = None
    truth_options: TruthOptions = TruthOptions()  # noqa: RUF009 (frozen)

    @property
    def evidence(self) -> Path:
        """The evidence file, beside the card file; `cards.evidence` would be that of a table `cards.parquet`."""
        return self.out.with_name(f"{self.out.name}.evidence")

    @property
    def has_images(self) -> bool:
        """Whether there are images to validate cards on."""
        return self.images is not None or self.table is not None

    def check(self, *, has_vlm: bool, is_terminal: bool) -> None:
        """Raise UsageError for settings that contradict one another, or need a VLM or a terminal that is not there."""
        if self.out.suffix not in (".yaml", ".yml") or self.out.is_dir():
            raise UsageError(f"--out {self.out} is no YAML file", "Name a file, such as cards.yaml.")
        if self.truth is not None and not self.has_images:
            raise UsageError("--truth needs images", "Add --table TABLE or --images FOLDER.")
        if self.has_images and not has_vlm:
            raise UsageError("no model is named to look at the images", "Add --model or --endpoint.")
        if self.review and not is_terminal:
            raise UsageError("--review needs a terminal, and this is none", "Run it in a terminal.")
