"""Every error that a user can cause, each with an exit code and a hint.

    TagllmError                     exit 1   the work could not be done
    ├── UsageError                  exit 2   the command, its options or its input cannot be used; nothing was changed
    │   ├── VocabularyError                  a vocabulary, card or template file is wrong
    │   ├── SourceError                      images cannot be listed
    │   ├── TableError                       a table or its evidence is of another kind, busy or damaged
    │   ├── ModelError                       a model cannot be found or loaded
    │   ├── EndpointError                    no endpoint answers, or it refuses the key
    │   └── OfflineError                     `--offline`, and an answer is missing
    ├── EngineDiedError             exit 1   the engine's process is gone
    ├── GateError                   exit 1   the work is done, and a gate such as `--fail-under` was missed
    ├── IncompleteRunError          exit 3   answers are recorded and the table is written, but not all of it
    │   ├── TooManyFailedError               finished, with more failed rows than allowed
    │   └── StoppedRunError                  ended early by one of the errors above or by a check; the rest is pending
    └── InterruptedRunError         exit 130 ended by a signal; what was answered is kept

The exit code says what happened, not what went wrong. A server that refuses the key is an EndpointError (2) as long as
nothing was recorded:

    before asking    the error itself                 2 (nothing was changed), or 1 where it is an EngineDiedError
    while asking     StoppedRunError of that error    3 (the table shows what was answered, the rest is `pending`)
    after asking     TooManyFailedError or none       3 or 0

An answer and a failed request are both recorded: a run whose requests all failed ends with 3.
Foreign exceptions become one of these at the border: where the foreign library is called, not in the CLI.
"""

from __future__ import annotations

from typing import ClassVar

GOES_ON = "What was answered is kept; the same command goes on from there."


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


class EngineDiedError(TagllmError):
    exit_code = 1


class GateError(TagllmError):
    exit_code = 1


class IncompleteRunError(TagllmError):
    exit_code = 3


class TooManyFailedError(IncompleteRunError):
    pass


class StoppedRunError(IncompleteRunError):
    @classmethod
    def after(cls, cause: TagllmError) -> StoppedRunError:
        """Return the error of a run that `cause` ended after something was recorded."""
        if isinstance(cause, cls):
            return cause
        return cls(f"the run ended early: {cause.message}", f"{cause.hint} {GOES_ON}".lstrip())


class InterruptedRunError(TagllmError):
    exit_code = 130
