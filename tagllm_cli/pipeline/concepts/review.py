"""Review of proposed cards by a human, one after the other; every decision is written to the card file at once.

After an interruption the same command continues at the next undecided card.
"""

from __future__ import annotations

import datetime
import os
import re
import shlex
import subprocess
import tempfile
from pathlib import Path

import yaml

from tagllm_cli.errors import TagllmError, VocabularyError
from tagllm_cli.pipeline.concepts.card_store import CardStore, wording_values
from tagllm_cli.pipeline.progress import Dialog
from tagllm_cli.resources import read_yaml
from tagllm_cli.vocabulary.cards import Entry, Wording, read_card
from tagllm_cli.vocabulary.model import Vocabulary

_MENU = "[a]ccept [e]dit [r]eject [s]kip [q]uit: "
_CHOICES = ("accept", "edit", "reject", "skip", "quit")
_KEYS = re.compile(r"[\x00-\x1f\x7f]")  # arrow keys, say, where the terminal does not know them
_ACCEPTED, _EDITED, _REJECTED = "accepted by a person", "edited by a person", "rejected by a person"


def review(store: CardStore, vocabulary: Vocabulary, dialog: Dialog, round_: int, folder: Path | None = None) -> None:
    """Ask about every proposed card in the vocabulary's order, until all were shown or the human quits.

    `round_` is the last round, `folder` is where the disputed images are. The end of the input counts as quitting.
    """
    names = [name for name in vocabulary.names if name in store.proposed]
    for number, name in enumerate(names, 1):
        dialog.show(f"{name} (card {number} of {len(names)})", facts(store.proposed[name], folder))
        if not _decide(store, name, vocabulary, dialog, round_):
            return


def facts(entry: Entry, folder: Path | None) -> list[tuple[str, str]]:
    """Return what is known about a proposed card, as (what, text)."""
    wording = entry.wording
    lists = [(key, getattr(wording, key)) for key in ("similar", "synonyms", "includes", "excludes")]
    shown = [("here it means", wording.description), *((key, ", ".join(texts)) for key, texts in lists if texts)]
    attempt = next((attempt for attempt in reversed(entry.history) if attempt.kept), None)
    if attempt is None:
        return shown
    relation = f" ({attempt.relation})" if attempt.relation else ""
    if attempt.reading:
        shown.append(("the model thinks", f"{attempt.reading}{relation}"))
    shown.append(("validation", attempt.why))
    paths = [each if folder is None else str(folder / each) for each in attempt.disputed]
    return [*shown, *(("disputed", path) for path in paths)]


def _decide(store: CardStore, name: str, vocabulary: Vocabulary, dialog: Dialog, round_: int) -> bool:
    """Ask until there is a decision, and save it; False where the human quits."""
    proposal, today = store.proposed[name].wording, datetime.date.today().isoformat()
    while True:
        answer = dialog.ask(_MENU)
        typed = "quit" if answer is None else answer.strip().lower()
        choice = next((word for word in _CHOICES if typed and word.startswith(typed)), "")
        if choice == "accept":
            store.decide(name, proposal, _ACCEPTED, round_, today)
        elif choice == "reject":
            store.decide(name, None, _REJECTED, round_, today)
        elif choice == "edit":
            edited = _edited(name, proposal, vocabulary, dialog)
            if edited is None:
                continue
            store.decide(name, edited, _EDITED, round_, today)
        elif not choice:
            continue
        return choice != "quit"


def _edited(name: str, proposal: Wording, vocabulary: Vocabulary, dialog: Dialog) -> Wording | None:
    """Return the edited wording, None where nothing was changed."""
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if editor:
        return _edited_in(editor, name, proposal, vocabulary, dialog)
    description = dialog.ask("Here it means (empty: leave it): ")
    while description and description.strip():
        try:
            if _KEYS.search(description):
                raise ValueError("the line holds keys that are no text")
            return read_card(
                {"name": name, **wording_values(proposal), "description": description}, vocabulary.names
            ).wording
        except ValueError as error:
            dialog.explain(VocabularyError(str(error), "Say what the picture must show, in one phrase."))
            description = dialog.ask("Here it means (empty: leave it): ")
    return None


def _edited_in(editor: str, name: str, proposal: Wording, vocabulary: Vocabulary, dialog: Dialog) -> Wording | None:
    """Open the card as YAML in an editor; explain what is wrong with it, and open it again on request."""
    with tempfile.TemporaryDirectory(prefix="tagllm-") as folder:
        path = Path(folder) / "card.yaml"
        path.write_text(yaml.safe_dump(wording_values(proposal), allow_unicode=True, sort_keys=False), encoding="utf-8")
        while True:
            try:
                subprocess.run([*shlex.split(editor), str(path)], check=True)
                wording = _read(path, name, vocabulary)
            except (OSError, ValueError, subprocess.CalledProcessError) as error:
                dialog.explain(
                    VocabularyError(f"the editor {editor!r} failed: {error}", "Set EDITOR to one that runs.")
                )
                return None
            except TagllmError as error:
                dialog.explain(error)
                if (dialog.ask("[e]dit again, or leave it [Enter]: ") or "").strip().lower()[:1] != "e":
                    return None
                continue
            return None if wording == proposal else wording


def _read(path: Path, name: str, vocabulary: Vocabulary) -> Wording:
    content = read_yaml(path)
    try:
        if not isinstance(content, dict):
            raise ValueError("it is not a mapping")
        return read_card({"name": name, **content}, vocabulary.names).wording
    except ValueError as error:
        raise VocabularyError(
            f"the card: {error}", "Its keys: description, similar, synonyms, includes, excludes."
        ) from error
