"""What stands around the names in a model's answer: thoughts, refusals, verdicts, "none", words of sentences."""

from __future__ import annotations

import re
import unicodedata


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _phrases(text: str) -> frozenset[str]:
    return frozenset(phrase.strip() for phrase in text.split(","))


_THOUGHT = re.compile(r"^.*?(?:</think(?:ing)?>|\u25c1/think\u25b7)", re.DOTALL)
_OPEN_THOUGHT = re.compile(r"\s*(?:<think|<\|?(?:thinking|reasoning)|\u25c1think)")
_FENCE = re.compile(r"^[ \t]*```\w*[ \t]*$", re.MULTILINE)
_INSIDE = re.compile(r"<answer>(.*?)</answer>|\\boxed\{([^{}]*)\}", re.DOTALL)
_ROLE = re.compile(r"\s*(?:<\|[^|<>]{1,30}\|>\s*)*(?:assistant\b\s*:?|### ?response:)", re.IGNORECASE)
_BREAK = re.compile(r"<(?:br|li|p|tr|/tr|/li|/p)\s*/?>", re.IGNORECASE)
_TAG = re.compile(
    r"<\|[^|<>]{1,30}\|>|</?(?:answer|ref|box|quad|points?|think|b|i|s|em|strong|[ou]l|li|p|br|div|span|table|t[rdh]|code|pre)"
    r"(?:\s[^<>]{0,200})?/?>",
    re.IGNORECASE,
)
_STRAIGHT = str.maketrans(
    {"\u2018": "'", "\u2019": "'", "\u02bc": "'", "\u00a0": " ", "\ufe0f": "", "\uff1a": ":", "\u2192": ":"}
)

REFUSAL = re.compile(
    r"^\W*(?:(?:but|unfortunately|i apologize|my apologies)\b\W*)?"
    r"(?:(?:i['\u2019]?m |i am )?(?:very |so |really )?sorry\b|i apologi[sz]e\b|my apologies\b|as an? (?:ai|language)\b"
    r"|i (?:can ?no|can['\u2019])t (?!(?:see|find|spot|detect|identify) any (?!image|picture|photo))"
    r"(?:see|view|assist|help|identify|provide|determine|process|access|analy[sz]e|comply|answer|tell|fulfil|describe)\b"
    r"|i(?:['\u2019]m| am) (?:not able|unable|not allowed|not comfortable) "
    r"(?!to (?:see|find|spot|detect|identify) any (?!image|picture|photo))"
    r"|(?:there is |i see )?no image\b|please (?:provide|upload|share)\b)",
    re.IGNORECASE,
)
NEGATION = re.compile(
    r"\b(?:no|not|none|nor|neither|never|hardly|nothing|without|cannot|absent|missing|\w+n['\u2019]t)\b", re.IGNORECASE
)


def without_thought(text: str) -> str:
    """Return an answer without the thinking before it."""
    return _THOUGHT.sub("", text).strip()


def is_thought(text: str) -> bool:
    """Return whether an answer is a thought that never ended: what it weighs is not what it says."""
    return _OPEN_THOUGHT.match(text) is not None


def without_fences(text: str) -> str:
    """Return a text without the lines that open and close a block of code."""
    return _FENCE.sub("", text).strip()


def unwrapped(text: str) -> str:
    """Return an answer without chat tokens, tags and fences, its apostrophes straight."""
    if ("</answer>" in text or "\\boxed{" in text) and (inside := _INSIDE.search(text)):
        text = inside.group(1) or inside.group(2) or ""
    text = _ROLE.sub("", text, count=1) if _ROLE.match(text) else text
    return without_fences(_TAG.sub("", _BREAK.sub("\n", text))).translate(_STRAIGHT)


def bare(text: str) -> str:
    """Return a text without the punctuation, symbols and spaces around it."""
    start, end = 0, len(text)
    while start < end and unicodedata.category(text[start])[0] in "PSZC":
        start += 1
    while end > start and unicodedata.category(text[end - 1])[0] in "PSZC":
        end -= 1
    return text[start:end]


# --- verdicts

TICKS = "\u2705\u2713\u2714\u2611\U0001f7e2\U0001f44d"
CROSSES = "\u274c\u2717\u2718\u2716\u2610\U0001f534\U0001f44e"
_NUMBER = r"(?P<number>\d+(?:\.\d+)?)(?![.\d])"
_VERDICT = re.compile(
    r"(?:(?:it|is|are|was|clearly|partially|partly|barely|definitely|likely|probably|also|only|at|least|about) )*"
    r"(?:(?P<yes>yes|true|present|visible|seen|shown|detected|found|observed|exists?|appears?|one|two|three|four|five|six"
    r"|several|many|multiple|some|a few|a pair|a couple)"
    r"|(?P<no>no|not|none|false|absent|missing|invisible|undetected|unseen|zero|n/a|there (?:is|are) (?:no|not|none)"
    r"|i (?:do not|don't|cannot|can't) see|(?:is|are)n't|cannot|can't)"
    rf"|[x\u00d7]?{_NUMBER}\s?[x\u00d7]?)(?!\w)"
)


def verdict(note: str) -> bool | None:
    """Return what a note beside a name says: True for seen, False for not seen, None where it says neither.

    >>> verdict("Yes, on the left"), verdict("not visible"), verdict("0"), verdict("near the window")
    (True, False, False, None)
    """
    note = note.strip(" \t*_`\"'()[]{}.!,:=")
    if note[:1] and note[0] in TICKS:
        return True
    if (note[:1] and note[0] in CROSSES) or note in ("-", "\u2013", "\u2014"):
        return False
    match = _VERDICT.match(note.casefold())
    if match is None:
        return None
    if match["number"]:
        return float(match["number"]) > 0
    return match["yes"] is not None


# --- none

_NONE = _phrases("""
    none, nothing, n/a, nil, null, nope, not visible, none visible, no objects, no matches, not applicable, empty,
    keine, keiner, keines, kein, nichts, aucun, aucune, rien, ninguno, ninguna, ningún, nada, nessuno, nessuna, niente,
    nulla, nenhum, nenhuma, geen, niets, ingen, inga, inget, ingenting, intet, ei mitään, ei mikään, yok, hiçbiri, hiç,
    brak, żaden, żadne, żadna, nic, žádné, žádná, žádný, nimic, niciuna, niciunul, semmi, egyik sem, нет, ничего,
    ни одного, ни одна, ни один, немає, нічого, няма, κανένα, καμία, τίποτα, אין, כלום, لا شيء, لا يوجد, لا أحد, هیچ,
    کوئی نہیں, कोई नहीं, कुछ नहीं, không có, không, tidak ada, wala, hakuna, ไม่มี,
    无, 無, 没有, 沒有,
    都没有, 皆无, なし, 無し,
    ありません, 없음, 없습니다, 없다
""")
_NONE_FIRST = _phrases("""
    keine, keiner, keines, kein, aucun, aucune, ninguno, ninguna, nessuno, nessuna, nenhum, nenhuma, geen, ingen, inga,
    inget, žádné, žádná, żadna, żadne, żaden, nic, niciuna, ни, hiçbiri, nada, rien, nichts, niets, لا, không, tidak
""")
_NONE_ANYWHERE = re.compile(
    r"\b(?:aucune?|keine?[rsn]?|ningun[oa]|ningún|nessun[oa]?|nenhum[a]?|geen|inga|żadn[aey]|ни од\w+)\b"
    "|没有|沒有|不存在|都不|ありません|見当たりません|없습니다|नहीं|ไม่มี|لا توجد|لا يوجد"
)
_NONE_OF_THEM = re.compile(
    r"\b(?:categor|label|object|item|animal|class|thing|list|option|above|any\b|of (?:the|these|those|them)\b|visible"
    r"|present|shown|seen|match|nothing|none)",
    re.IGNORECASE,
)
_UNABLE = re.compile(
    r"\b(?:determin|tell|say\b|sure|certain|able\b|unable|access|process|make out|clear|blurr|open|load|provide|help"
    r"|assist|confiden|know)",
    re.IGNORECASE,
)


def says_none(text: str) -> bool:
    """Return whether a text that names no label says that nothing is seen, in English or another language.

    >>> says_none("Keine."), says_none("None of the categories are visible."), says_none("a red car")
    (True, True, False)
    """
    plain = bare(text).casefold()
    if plain in _NONE:
        return True
    words = plain.split(maxsplit=40)
    if not words or len(words) > 30:
        return False
    if words[0] in _NONE_FIRST or _NONE_ANYWHERE.search(plain):
        return True
    return bool(NEGATION.search(plain) and _NONE_OF_THEM.search(plain) and not _UNABLE.search(plain))


# --- sentences (all words folded: lower case, no hyphens)

NUMERALS = _words("""
    one two three four five six seven eight nine ten
""")
DETERMINERS = NUMERALS | _words("""
    a an the some any several many multiple various numerous few another this that these those his her their its each
    every all both more just only also least
""")
ADJECTIVES = _words("""
    black white brown gray grey red blue green yellow orange pink purple golden tan beige blonde silver dark light
    bright colorful striped spotted small little tiny large big huge tall short long old young adult new single
    different visible wooden metal plastic empty parked open closed cute beautiful
""")
PREPOSITIONS = _words("""
    in on at near by with beside besides behind under underneath below beneath above over inside outside within around
    between among against across along alongside through into onto from to next front top left right while as together
""")
CONJUNCTIONS = _words("""
    and & or nor plus + und et y e och og en i
""")
VERBS = _words("""
    is are was were be being has have having can could see sees shows show showing contains contain containing
    features feature featuring includes include including depicts depict displays display holding riding wearing
    there's i've sits stands lies sit stand lie spot find it's that's identify detect recognize observe appear appears
    am where who which
""")
FINITE = _words("""
    is are was were shows contains features includes depicts sits stands
""")
AUXILIARIES = _words("""
    is are was were do does did can could has have will would am
""")
# A part of what follows is meant: "a group of people", "in front of a car", "a photo of a cat".
BEFORE_OF = _words("""
    group pair pairs couple bunch number lot lots row set herd flock pack stack pile slice slices piece pieces variety
    front top side left right middle edge part image picture photo photograph view shot close up none consists one two
    three
""")
HEDGES = _words("""
    may might maybe perhaps possibly would should could probably unclear unsure uncertain whether if
""")
DOUBT = (HEDGES - {"could"}) | _words("""
    likely seem seems seemingly looks resembles resembling like unless except excluding than hard difficult almost
    instead reminds wait hmm
""")
NEGATIVE = _words("""
    no not none nor neither never nothing without cannot 0 zero absent missing
""")
# Words of talk, not of names: a line that has one is a sentence.
TALK = _words("""
    i you me we us it this that these those here there let please note hope is are was were do does did can could
    would will am be been have has what which who if thanks thank my your its i'm it's i've there's here's let's feel
    helps shows contains features depicts includes captures
""")

_DESCRIPTION = re.compile(
    r"\W*(?:(?:the|this|it) (?:image |picture |photo |photograph |scene )?"
    r"(?:shows|depicts|features|contains|displays|includes|is)\b"
    r"|there (?:is|are)\b|i (?:can )?see\b|in th(?:e|is) (?:image|picture|photo)\b)",
    re.IGNORECASE,
)


def describes(text: str) -> bool:
    """Return whether a sentence says what is in the image, as far as its first words tell."""
    return _DESCRIPTION.match(text) is not None
