"""How label names are written and found again: `render_names` for questions, `Lexicon` for answers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache

from tagllm_cli.vocabulary.forms import folded, inflected
from tagllm_cli.vocabulary.model import Vocabulary

QUOTES = "\"'`\u2018\u2019\u201c\u201d\u00ab\u00bb"
SEPARATORS = ",;|\u2022\u00b7\uff0c\u3001\uff1b\u060c"
TOKEN = re.compile(r"[^\W_]+(?:['.][^\W_]+)*|[^\w\s]|_")

_NEEDS_QUOTES = re.compile(rf"[,{QUOTES}\x00-\x1f\x7f-\x9f\u2028\u2029]")
_QUANTITY = re.compile(
    r"^(?:(?:an?|the|some|several|many|multiple|one|two|three|four|five|six|[1-9]\d{0,2}x?) )+(?:pairs? of )?"
)
# A label of such a name is found where it is a whole item, never inside of a sentence.
_NOT_IN_SENTENCES = frozenset(["yes", "no", "not", "none", "nothing", "other", "others", "both", "true", "false"])


def render_names(names: Iterable[str], none: Sequence[str] = ("none",)) -> str:
    r"""Return names as one comma-separated line; a name that could be misread is written as a JSON string.

    That is a name with a comma, quote, control character or outer space, an empty one, or one that reads like yes, no
    or one of the answers that mean `none`.

    >>> print(render_names(["cat", "salt, pepper", "None", 'a "b"']))
    cat, "salt, pepper", "None", "a \"b\""
    """
    reserved = reserved_forms(none)
    return ", ".join(
        json.dumps(name, ensure_ascii=False)
        if not name or name != name.strip() or _NEEDS_QUOTES.search(name) or said(name) in reserved
        else name
        for name in names
    )


def reserved_forms(none: Sequence[str]) -> frozenset[str]:
    """Return the answers that are no names unless they stand in quotes, casefolded."""
    return plain_forms((*none, "none", "yes", "no"))


@lru_cache(maxsize=64)
def plain_forms(forms: tuple[str, ...]) -> frozenset[str]:
    """Return forms without case and outer spaces."""
    return frozenset(form.strip().casefold() for form in forms)


def said(text: str) -> str:
    """Return a short answer without full stops, outer spaces and case."""
    return text.strip(" .").casefold()


class Lexicon:
    """From any way to write a label to its name: name, synonym, singular, plural; case, spaces, hyphens do not matter.

    Names come before synonyms, synonyms before derived forms; a form that two labels claim alike belongs to neither.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.position: Mapping[str, int] = {name: index for index, name in enumerate(vocabulary.names)}
        self._forms: dict[str, str | None] = {}
        self._claim((folded(label.name), label.name) for label in vocabulary.labels)
        self._claim((folded(synonym), label.name) for label in vocabulary.labels for synonym in label.synonyms)
        # Separators within a form: how many pieces of a list may belong to one name that lost its quotes.
        self.most_pieces = 1 + max((sum(map(form.count, SEPARATORS)) for form in self._forms), default=0)
        self._claim((each, name) for form, name in self._won() for each in inflected(form))
        self._claim((form.replace(" & ", " and "), name) for form, name in self._won() if " & " in form)
        self._claim((form.replace(" ", ""), name) for form, name in self._won() if " " in form)
        # The longest form that starts with a token, in tokens: how far `mentions` has to look.
        self._reach: dict[str, int] = {}
        for form in self._forms:
            tokens = TOKEN.findall(form)
            if tokens and form not in _NOT_IN_SENTENCES:
                self._reach[tokens[0]] = max(len(tokens), self._reach.get(tokens[0], 0))
        # Names in scripts without spaces, by their first character.
        self._unspaced: dict[str, list[str]] = {}
        for form in self._forms:
            if form and form[0] >= "\u0e00":
                self._unspaced.setdefault(form[0], []).append(form)

    def _won(self) -> list[tuple[str, str]]:
        return [(form, name) for form, name in self._forms.items() if name is not None]

    def _claim(self, claims: Iterable[tuple[str, str]]) -> None:
        owners: dict[str, str | None] = {}
        for form, name in claims:
            if form and form not in self._forms and owners.setdefault(form, name) != name:
                owners[form] = None
        self._forms.update(owners)

    def find(self, form: str) -> str | None:
        """Return the label that `form` means (articles and small numbers before it do not matter), or None."""
        if form in self.position:
            return form
        key = folded(form)
        bare = _QUANTITY.sub("", key)
        for each in (key, bare, bare.replace(" ", "")):
            if each in self._forms:
                return self._forms[each]
        return None

    def mentions(self, text: str, spans: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int, str]]:
        """Yield each label that a folded text names, the longest forms first: first token, end token, name.

        `spans` are the places of the text's tokens. A form that belongs to no label is passed over.
        """
        start = 0
        while start < len(spans):
            reach = self._reach.get(text[slice(*spans[start])], 0)
            for end in range(min(len(spans), start + reach), start, -1):
                form = text[spans[start][0] : spans[end - 1][1]]
                if form in self._forms and form not in _NOT_IN_SENTENCES:
                    name = self._forms[form]
                    if name is not None:
                        yield start, end, name
                    start = end - 1
                    break
            start += 1

    def unspaced_mentions(self, text: str) -> set[str]:
        """Return the labels in scripts without spaces that a text holds anywhere."""
        return {
            name
            for index, character in enumerate(text)
            for form in self._unspaced.get(character, ())
            if text.startswith(form, index) and (name := self._forms[form]) is not None
        }

    def ordered(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return distinct label names in the vocabulary's order."""
        return tuple(sorted(set(names), key=self.position.__getitem__))
