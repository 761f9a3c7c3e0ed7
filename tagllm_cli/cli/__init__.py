"""The command line: everything that is typed or drawn. `main` is the entry point.

Nothing but the standard library is imported before the signal handlers are in place.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

from tagllm_cli.errors import InterruptedRunError

__all__ = ["interrupted", "interrupts_raise", "main"]

# Commands that record what a model answers, so that there is something to go on from.
_ASKING = frozenset({"run", "candidates", "disambiguate", "concepts", "calibrate"})

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def main() -> None:
    """Run the command line. SIGTERM counts as Ctrl-C, at any time: exit code 130, and never a traceback."""
    ours = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]  # `nohup`, `&`
    for number in ours:
        signal.signal(number, _leave)
    from tagllm_cli.cli.app import app
    from tagllm_cli.cli.streams import tell_stdout_errors

    tell_stdout_errors()
    code: int | str | None = 0
    try:
        app(prog_name="tagllm")
    except SystemExit as end:
        code = end.code
        raise
    finally:
        # Python sets handlers back while it shuts down: a late SIGTERM would replace the exit code of finished work.
        for number in ours:
            signal.signal(number, signal.SIG_IGN if number == signal.SIGTERM else lambda *_: os._exit(int(code or 0)))


def interrupts_raise() -> None:
    """Let signals raise KeyboardInterrupt from now on: there is work that has to end in good order."""
    for number in _SIGNALS:
        if signal.getsignal(number) is _leave:
            signal.signal(number, signal.default_int_handler)


def interrupted() -> InterruptedRunError:
    """Return what is said of a command that was interrupted: what it leaves, and what to do."""
    if _ASKING.intersection(sys.argv[1:2]):
        return InterruptedRunError("interrupted; what was answered is kept", "The same command goes on from there.")
    return InterruptedRunError(
        "interrupted; every file is complete, or as it was before", "Run the same command again for the rest."
    )


def _leave(number: int, frame: FrameType | None) -> None:
    """End at once. Until there is work nothing can be lost, and an exception in the middle of an import may be."""
    error = interrupted()
    if "--json" in sys.argv:
        fields = ", ".join(f'"{key}": "{value}"' for key, value in error.to_json().items())
        os.write(1, f'{{"error": {{{fields}}}}}\n'.encode())  # the module json may be what is being imported
    os.write(2, f"error: {error.message}\n{error.hint}\n".encode())
    os._exit(error.exit_code)
