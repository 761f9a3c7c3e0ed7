"""How a server wants to be asked, learned from what it refuses.

Servers that speak OpenAI's protocol differ in the parameters that they take. A refusal names the parameter, and often
what is taken instead; the same question is asked again in the server's way, and every later one at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tagllm_cli.engines.base import failure_kind
from tagllm_cli.engines.http.bodies import error_message, error_of, parse_json

FEWEST_LOGPROBS = 2  # with one alone, the likeliest answer would always be certain
_USUAL_LOGPROBS = 5  # what servers give that refuse 20 without saying how many they give
_COLDEST = 0.01  # for servers that take no 0
_MOST_READ = 2_000  # characters of a message
_OPTIONAL = frozenset({"temperature", "stream", "repetition_penalty", "chat_template_kwargs", "uuid"})

_REFUSED = re.compile(
    r"unrecogni[sz]ed|unknown|unexpected|unsupported|(?:not|n't) (?:support|permit|allow|accept|available|recogni[sz])"
    r"|only the default|extra[ _](?:input|field|forbidden)|not a valid (?:param|field|argument)|instead",
    re.IGNORECASE,
)
_LOGPROBS = re.compile(r"logprobs|top_n_tokens", re.IGNORECASE)
_TOO_MANY = re.compile(
    r"invalid|exceed|too (?:large|many|high|big)|range|at most|maximum|less than|greater", re.IGNORECASE
)
_LIMIT = re.compile(
    r"(?P<below>(?:less than|below|under|<)\s*)?(?<![\w.-])(?P<number>\d{1,4})(?![\w.]*\w)"
    r"(?P<open>\s*\(exclusive|\s*\))?",
    re.IGNORECASE,
)
_POSITIVE = re.compile(
    r"positive|(?:greater|larger|more|bigger) than (?:or equal to )?0|> ?0|\(0(?:\.0)?,", re.IGNORECASE
)
_SYSTEM_ROLE = re.compile(
    r"system (?:role|messages?|prompts?)\b|roles?\b.{0,40}\bsystem\b|roles must alternate|only user and assistant",
    re.IGNORECASE,
)
_NO_ROLE = re.compile(r"must alternate|only user and assistant", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a server wants to be asked.

    Args:
        max_tokens: name of the parameter that bounds the length of an answer.
        most_logprobs: largest `top_logprobs` that is given.
        temperature: 0, or the lowest one that is taken.
        without: names of parameters that are refused.
        has_system: whether a system message is taken; if not, its text begins the user's.
        template_kwargs: the user's variables for the chat template. They are never left out: a server that refuses them
            would answer as another model.
    """

    max_tokens: str = "max_tokens"
    most_logprobs: int = 1_000
    temperature: float = 0.0
    without: frozenset[str] = frozenset()
    has_system: bool = True
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)


PLAIN = Dialect()  # as vLLM and OpenAI's older models want it


def learned(dialect: Dialect, refusal: bytes, sent: Mapping[str, Any]) -> Dialect:
    """Return the dialect under which a refused request may be taken; the same one where the refusal says nothing of it.

    Args:
        dialect: under which the request was sent.
        refusal: body of the response.
        sent: the request's parameters beside its model and messages.
    """
    for parameter, message in _complaints(refusal):
        if failure_kind(message) != "too_long":
            dialect = _after(dialect, parameter, message, sent)
    return dialect


def _after(dialect: Dialect, parameter: str, message: str, sent: Mapping[str, Any]) -> Dialect:
    """Return the dialect after one complaint; `parameter` is empty where the text alone may name it."""
    if "max_tokens" in sent and "max_completion_tokens" in message and _REFUSED.search(message):
        return replace(dialect, max_tokens="max_completion_tokens")
    if _SYSTEM_ROLE.search(message) and (_REFUSED.search(message) or _NO_ROLE.search(message)):
        return replace(dialect, has_system=False)
    if _LOGPROBS.search(f"{parameter} {message}"):
        most = _most_logprobs(message, int(sent.get("top_logprobs", 0)))
        return dialect if most is None else replace(dialect, most_logprobs=most)
    named = {parameter} if parameter else {each for each in _OPTIONAL if re.search(rf"\b{each}\b", message)}
    if "temperature" in named and sent.get("temperature") == 0 and _POSITIVE.search(message):
        return replace(dialect, temperature=_COLDEST)
    if parameter or _REFUSED.search(message):
        optional = _OPTIONAL - {"chat_template_kwargs"} if dialect.template_kwargs else _OPTIONAL
        return replace(dialect, without=dialect.without | (named & optional))
    return dialect


def _most_logprobs(message: str, asked: int) -> int | None:
    """Return how many log-probabilities a message says are given, where that is fewer than were asked for."""
    limits = []
    for found in _LIMIT.finditer(message):
        is_range = found["open"] and found["open"].strip() == ")" and "[" in message[: found.start()]
        is_open = found["below"] or is_range or (found["open"] or "").strip().startswith("(")
        limits.append(int(found["number"]) - bool(is_open))
    fitting = [limit for limit in limits if FEWEST_LOGPROBS <= limit < asked]
    if fitting:
        return max(fitting)
    says_why = _TOO_MANY.search(message) and not _REFUSED.search(message)
    return _USUAL_LOGPROBS if says_why and not limits and asked > _USUAL_LOGPROBS else None


def _complaints(refusal: bytes) -> Iterator[tuple[str, str]]:
    """Yield the parameters that a refusal names outside its text, "" where it names none, each with the text."""
    try:
        content = error_of(parse_json(refusal))
    except ValueError:
        content = refusal[:_MOST_READ].decode("utf-8", "replace")
    if isinstance(content, dict) and isinstance(content.get("detail"), list):
        content = content["detail"]
    for each in content if isinstance(content, list) else [content]:
        parameter = ""
        if isinstance(each, dict):
            where = each.get("loc")
            parameter = str(each.get("param") or (where[-1] if isinstance(where, list) and where else ""))
        yield parameter, error_message(each, _MOST_READ)
