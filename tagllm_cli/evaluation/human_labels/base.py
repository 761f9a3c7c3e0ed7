"""Records of what people said, as a reader of one form of file returns them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tagllm_cli.evaluation.truth.base import TruthFile

# What can be said of a label: `WITHDRAWN` takes back what the same person said before.
YES, NO, UNKNOWN, WITHDRAWN = "yes", "no", "unknown", "withdrawn"


class Statement(NamedTuple):
    """What a person said about one label of one image; a file may hold millions.

    `image` and `label` are names as the file has them. `decision` is YES, NO, UNKNOWN or WITHDRAWN. `who` is "" where
    the file does not say, `when` microseconds since the epoch (UTC), None where it does not say. `fingerprint` is that
    of the bytes that the person saw, as hex, "" where the file does not say (only ours do).
    """

    image: str
    label: str
    decision: str
    who: str = ""
    when: int | None = None
    fingerprint: str = ""


class CheckedImage(NamedTuple):
    """An image that a person went through, whether or not anything was found in it.

    With `import --complete`, every label of `HumanLabels.names` that nothing in `statements` and `kept` is about is no.
    """

    image: str
    who: str = ""
    when: int | None = None
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class HumanLabels:
    """What a file of one form says.

    `checked` lists each image of the file that was finished (not one that waits for its annotation), in the file's
    order, once per person. `names` are the labels that could be chosen, where the file lists them (COCO categories,
    a labeling config); None: not listed, then it is the table's vocabulary. `is_explicit`: the form has a way to say
    no, and uses it (a column of decisions): `--complete` is not needed. `form` names the form as people know it;
    `notes` say what was not read, `warnings` what may be wrong with the file.

    `kept` is what a program had proposed and nobody changed (CVAT, FiftyOne: the file holds the model's labels beside
    people's): with `--complete` the person agrees, and it counts like a statement; without, nobody said anything.
    """

    statements: Sequence[Statement]
    checked: Sequence[CheckedImage]
    form: str
    kept: Sequence[Statement] = ()
    names: tuple[str, ...] | None = None
    is_explicit: bool = False
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reader:
    """One form of human labels: whether a file (or folder) has it, and what it says.

    `read` raises UsageError, with what to do, for a file of this form that is damaged, of an unknown version or says
    nothing.
    """

    name: str
    recognizes: Callable[[TruthFile], bool]
    read: Callable[[TruthFile], HumanLabels]
