"""Every error that a user can cause, each with an exit code and a hint.

    TagllmError                     exit 1
    ├── UsageError                  exit 2   the command, its options or its input cannot be used
    │   ├── VocabularyError                  a vocabulary, card or template file is wrong
    │   ├── SourceError                      images cannot be listed
    │   ├── TableError                       a table or its evidence is of another kind, busy or damaged
    │   ├── ModelError                       a model cannot be found or loaded
    │   ├── EndpointError                    no endpoint answers
    │   └── OfflineError                     `--offline`, and an answer is missing
    ├── GateError                   exit 1   the work is done, and a gate such as `--fail-under` was missed
    ├── TooManyFailedError          exit 3   finished, with more failed rows than allowed
    └── InterruptedRunError         exit 130 ended by a signal; what was answered is kept

Foreign exceptions become one of these at the border: where the foreign library is called, not in the CLI.
"""

from __future__ import annotations

from typing import ClassVar


class TagllmError(Exception):
    """One line of what went wrong (`message`) and one line of what to do about it (`hint`)."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def to_json(self) -> dict[str, str]:
        """Return kind, message and hint as plain JSON values."""
        return {"kind": type(self).__name__, "message": self.message, "hint": self.hint}


class UsageError(TagllmError):
    exit_code = 2


class VocabularyError(UsageError):
    pass


class SourceError(UsageError):
    pass


class TableError(UsageError):
    pass


class ModelError(UsageError):
    pass


class EndpointError(UsageError):
    pass


class OfflineError(UsageError):
    pass


class GateError(TagllmError):
    exit_code = 1


class TooManyFailedError(TagllmError):
    exit_code = 3


class InterruptedRunError(TagllmError):
    exit_code = 130
