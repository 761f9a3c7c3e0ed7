"""Review of proposed cards at a terminal: every decision is kept, and so is the place."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tagllm_cli.vocabulary.cards import load_cards
from tagllm_cli.vocabulary.load import load_vocabulary
from tests.support.command_line import one_object, tagllm
from tests.support.concept_workspace import RODENT, WINGED, WORDS, ConceptWorkspace, see
from tests.support.scripted_llm import ScriptedLLM, card
from tests.support.stub_server import stub_server

pytestmark = pytest.mark.slow

SCRIPTS = {
    "mouse": [card("mouse", RODENT, ["cat"])],
    "bat": [card("bat", WINGED)],
    "cat": [card("cat", "the animal that purrs")],
}
MENU = "[q]uit: "
PATIENCE_S = 5
# Both are real programs that take the file's path as their last argument.
SAYS_MORE = f"{sys.executable} -c \"import sys; open(sys.argv[1], 'a').write('excludes: [toys]\\n')\""
SPOILS = f"{sys.executable} -c \"import sys; open(sys.argv[1], 'w').write('colour: grey\\n')\""


class Terminal:
    """A pseudo-terminal: reads what is drawn, types lines."""

    def __init__(self, command: list[str], environment: Mapping[str, str]) -> None:
        named = ("VISUAL", "EDITOR")
        known = {key: value for key, value in os.environ.items() if key not in named and not key.startswith("TAGLLM_")}
        self._ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            command,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**known, "TERM": "dumb", "NO_COLOR": "1", **environment},
            start_new_session=True,
        )
        os.close(theirs)
        self.drawn = ""

    def read_until(self, text: str) -> str:
        """Wait until the text is drawn, and return everything drawn since the last time."""
        while text not in self.drawn:
            assert self._read(), f"{text!r} never came after {self.drawn!r}"
        before, _, self.drawn = self.drawn.partition(text)
        return before + text

    def type(self, line: str) -> None:
        """Type a line and Enter."""
        os.write(self._ours, f"{line}\n".encode())

    def decide(self, choice: str) -> str:
        """Wait for the menu, choose, and return what was shown before it."""
        shown = self.read_until(MENU)
        self.type(choice)
        return shown

    def end(self) -> tuple[int, str]:
        """Wait for the end; return the exit code and what was drawn last."""
        while self._read():
            pass
        return self.process.wait(), self.drawn

    def interrupt(self, how: signal.Signals) -> None:
        """Send a signal, and again while nothing comes of it: Python misses one just before it begins to read."""
        while self.process.poll() is None:
            self.process.send_signal(how)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(PATIENCE_S)

    def leave(self) -> None:
        """End the process, if a test has not, and give the terminal back."""
        self.process.kill()
        self.process.wait()
        os.close(self._ours)

    def _read(self) -> bool:
        try:
            chunk = os.read(self._ours, 65536)
        except OSError:  # EIO: the last one who held the other end is gone
            return False
        self.drawn += chunk.decode()
        return bool(chunk)


OpenTerminal = Callable[..., Terminal]


@pytest.fixture
def workspace(tmp_path: Path) -> ConceptWorkspace:
    return ConceptWorkspace(tmp_path / "workspace")


@pytest.fixture
def server() -> Iterator[ScriptedLLM]:
    with ScriptedLLM(SCRIPTS, WORDS, find='[{"label": "mouse"}, {"label": "bat"}]') as scripted:
        yield scripted


@pytest.fixture
def command(workspace: ConceptWorkspace, server: ScriptedLLM) -> Iterator[list[str]]:
    """The arguments after `tagllm`: the LLM and the VLM are servers."""
    with stub_server("rules", see) as eyes:
        options = {
            "--out": workspace.out,
            "--table": workspace.table,
            "--truth": workspace.truth,
            "--llm-endpoint": server.url,
            "--endpoint": eyes.url,
        }
        yield ["concepts", str(workspace.vocabulary), *(str(word) for option in options.items() for word in option)]


@pytest.fixture
def open_terminal(command: list[str]) -> Iterator[OpenTerminal]:
    """Start `tagllm` in a new terminal with these environment variables."""
    terminals = []

    def start(**environment: str) -> Terminal:
        terminals.append(Terminal([sys.executable, "-m", "tagllm_cli", *command, "--review"], environment))
        return terminals[-1]

    yield start
    for terminal in terminals:
        terminal.leave()


def decisions(workspace: ConceptWorkspace) -> dict[str, Any]:
    """The last word of each label's history."""
    return {
        name: entry["history"][-1]["why"] for section in workspace.file().values() for name, entry in section.items()
    }


def test_one_card_is_accepted_and_another_rejected(workspace: ConceptWorkspace, open_terminal: OpenTerminal) -> None:
    terminal = open_terminal()
    shown = terminal.decide("a")
    assert "mouse (card 1 of 2)" in shown
    for fact in (RODENT, "similar", "what mouse looks like to me (broader)", "corrects 12 and breaks 0 of 48"):
        assert fact in shown
    assert f"{workspace.images}/052.png: yes -> no, the truth says no" in shown
    assert workspace.file()["proposed"].keys() == {"mouse", "bat"}  # nothing is a card before it is decided
    assert "bat (card 2 of 2)" in terminal.decide("r")
    code, last = terminal.end()
    assert code == 0
    assert ": 1 card" in last
    file = workspace.file()
    assert (list(file["cards"]), list(file["proposed"]), list(file["unwritten"])) == (["mouse"], [], ["bat"])
    assert (file["cards"]["mouse"]["author"], file["unwritten"]["bat"]["why"]) == (
        "scripted-llm",
        "rejected by a person",
    )
    assert decisions(workspace) == {"mouse": "accepted by a person", "bat": "rejected by a person"}


def test_a_decision_is_not_asked_for_again(
    workspace: ConceptWorkspace, server: ScriptedLLM, open_terminal: OpenTerminal, command: list[str]
) -> None:
    terminal = open_terminal()
    terminal.decide("a")
    terminal.decide("r")
    assert terminal.end()[0] == 0
    questions, before = len(server.questions), workspace.out.read_bytes()
    code, last = open_terminal().end()
    assert (code, MENU in last, len(server.questions)) == (0, False, questions)
    assert workspace.out.read_bytes() == before
    assert tagllm([*command, "--seed", "1"]).exit_code == 0  # other images, and no review: the decision stands
    assert len(server.asked("draft")) == 2
    assert workspace.out.read_bytes() == before


def test_an_edited_card_is_human(workspace: ConceptWorkspace, open_terminal: OpenTerminal) -> None:
    """Without an editor a line is asked for; an empty one goes back to the question."""
    terminal = open_terminal()
    terminal.decide("e")
    terminal.read_until("leave it): ")
    terminal.type(" . ")
    assert "'mouse' has no description" in terminal.read_until("leave it): ")
    terminal.type("an animal\x1b[D")  # an arrow key
    assert "the line holds keys that are no text" in terminal.read_until("leave it): ")
    terminal.type("")
    terminal.decide("e")
    terminal.read_until("leave it): ")
    terminal.type("an animal, and never a device.")
    terminal.decide("q")
    assert terminal.end()[0] == 0
    mouse = workspace.file()["cards"]["mouse"]
    assert (mouse["description"], mouse["similar"], mouse["author"]) == (
        "an animal, and never a device",
        ["cat"],
        "person",
    )
    assert [attempt["author"] for attempt in mouse["history"]] == ["scripted-llm", "person"]


def test_an_editor_gets_the_card_as_yaml(workspace: ConceptWorkspace, open_terminal: OpenTerminal) -> None:
    terminal = open_terminal(EDITOR=SAYS_MORE)
    terminal.decide("e")
    terminal.decide("s")
    code, last = terminal.end()
    assert (code, "1 waiting for review" in last) == (0, True)
    card_of = load_cards(workspace.out, load_vocabulary(str(workspace.vocabulary)))
    assert card_of["mouse"].description == f"{RODENT}, but not toys"
    assert list(workspace.file()["proposed"]) == ["bat"]


@pytest.mark.parametrize(
    ("editor", "message", "again"),
    [
        (SPOILS, "the card: unknown key 'colour'", "e"),
        ("false", "the editor 'false' failed", None),
        ("no-such-editor", "the editor 'no-such-editor' failed", None),
        ("true", "", None),  # nothing was changed: nothing is decided
    ],
)
def test_an_edit_that_cannot_be_used_is_explained_and_asked_again(
    workspace: ConceptWorkspace,
    server: ScriptedLLM,
    open_terminal: OpenTerminal,
    editor: str,
    message: str,
    again: str | None,
) -> None:
    terminal = open_terminal(VISUAL=editor, EDITOR="true")
    terminal.decide("e")
    if again:
        for answer in (again, ""):
            assert message in terminal.read_until("[Enter]: ")
            terminal.type(answer)
        assert MENU not in terminal.drawn
        message = ""
    assert message in terminal.decide("q")
    assert terminal.end()[0] == 0
    assert list(workspace.file()["proposed"]) == ["mouse", "bat"]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, None])
def test_an_interrupted_review_goes_on_at_the_next_card(
    workspace: ConceptWorkspace, server: ScriptedLLM, open_terminal: OpenTerminal, how: signal.Signals | None
) -> None:
    terminal = open_terminal()
    terminal.decide("a")
    terminal.read_until("bat (card 2 of 2)")
    terminal.read_until(MENU)
    if how is None:
        terminal.type("\x04")  # the end of the input, after what was not typed to the end
        terminal.type("q")
    else:
        terminal.interrupt(how)
    code, last = terminal.end()
    assert ("interrupted; what was answered is kept" in last) is (how == signal.SIGINT)
    assert code == {None: 0, signal.SIGINT: 130, signal.SIGKILL: -9}[how]
    assert list(workspace.file()["cards"]) == ["mouse"]
    questions = len(server.questions)
    terminal = open_terminal()
    assert "bat (card 1 of 1)" in terminal.decide("a")
    assert terminal.end()[0] == 0
    assert list(workspace.file()["cards"]) == ["mouse", "bat"]
    assert len(server.questions) == questions


def test_other_keys_decide_nothing(workspace: ConceptWorkspace, open_terminal: OpenTerminal) -> None:
    terminal = open_terminal()
    for line in ("x", "", "?", "again", "\x1b[A"):
        terminal.decide(line)
    terminal.decide("Quit")
    assert terminal.end()[0] == 0
    assert list(workspace.file()["proposed"]) == ["mouse", "bat"]


def test_without_a_review_what_waits_goes_on_waiting(
    workspace: ConceptWorkspace, open_terminal: OpenTerminal, command: list[str]
) -> None:
    terminal = open_terminal()
    terminal.decide("q")
    assert terminal.end()[0] == 0
    before = workspace.out.read_bytes()
    summary = one_object(tagllm([*command, "--seed", "1", "--json"]).stdout)
    assert (summary["waiting"], summary["next"]) == (["mouse", "bat"], "the same command with --review")
    assert workspace.out.read_bytes() == before


def test_a_file_that_is_edited_during_the_review_stays_as_it_is(
    workspace: ConceptWorkspace, open_terminal: OpenTerminal
) -> None:
    terminal = open_terminal()
    terminal.decide("a")
    terminal.read_until(MENU)
    edited = workspace.out.read_text() + "# a line of ours\n"
    workspace.out.write_text(edited)
    terminal.type("a")
    code, last = terminal.end()
    assert (code, "was changed while cards were being written" in last) == (2, True)
    assert workspace.out.read_text() == edited
    terminal = open_terminal()
    assert "bat (card 1 of 1)" in terminal.decide("a")
    assert terminal.end()[0] == 0
