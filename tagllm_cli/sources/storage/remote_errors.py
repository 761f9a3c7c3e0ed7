"""What fsspec and the libraries below it raise, as kinds of ReadFailure; trying again what is transient.

The libraries are not imported: an error is told by its status, its code or the names of its classes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from tagllm_cli.errors import SourceError
from tagllm_cli.sources.base import ReadFailure
from tagllm_cli.text import public_text

PATIENCE_S = 60.0  # how long what is transient is tried again
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 10.0

_T = TypeVar("_T")

_CODES = {
    "forbidden": "AccessDenied ExpiredToken InvalidAccessKeyId SignatureDoesNotMatch InvalidToken TokenRefreshRequired "
    "RequestTimeTooSkewed AllAccessDisabled AccountProblem InvalidObjectState ExpiredTokenException RequestExpired",
    "vanished": "NoSuchKey NoSuchBucket NoSuchVersion",
    "unreachable": "SlowDown InternalError RequestTimeout ServiceUnavailable Throttling",
    "changed": "PreconditionFailed",
}
_BY_CODE = {code: kind for kind, codes in _CODES.items() for code in codes.split()}
_CLASSES = {
    "changed": "FileExpired",
    "forbidden": "NoCredentialsError PartialCredentialsError CredentialRetrievalError TokenRetrievalError SSOError "
    "ProfileNotFound DefaultCredentialsError RefreshError GatedRepoError PermissionError",
    "vanished": "RepositoryNotFoundError EntryNotFoundError RevisionNotFoundError FileNotFoundError",
    "not_a_file": "IsADirectoryError",
    "unreachable": "HTTPClientError ClientConnectionError ClientPayloadError ConnectionError TimeoutError gaierror "
    "SSLError FSTimeoutError HttpProcessingError IncompleteRead ConnectError TransportError ResponseStreamingError",
}
_BY_CLASS = {name: kind for kind, names in _CLASSES.items() for name in names.split()}
_WORDS = {
    "vanished": "the file is not there any more",
    "changed": "the file was changed while it was read",
    "not_a_file": "a folder",
}


def explain(error: BaseException) -> ReadFailure:
    """Return the kind of failure that an error of fsspec stands for, with a message in one line without secrets."""
    if isinstance(error, ReadFailure):
        return error
    for each in reversed(_chain(error)):  # what came first knows most: fsspec turns all into FileNotFoundError
        kind = _kind(each)
        if kind is not None:
            return ReadFailure(kind, _WORDS.get(kind) or _said(each))
    return ReadFailure("unreadable", _said(error))


def patiently(operation: Callable[[], _T], patience_s: float | None = None) -> _T:
    """Return what an operation returns, tried again while it is `unreachable`, for `patience_s` (PATIENCE_S) seconds.

    Raises ReadFailure for whatever it raises.
    """
    deadline = time.monotonic() + (PATIENCE_S if patience_s is None else patience_s)
    wait_s = _FIRST_WAIT_S
    while True:
        try:
            return operation()
        except Exception as error:
            failure = explain(error)
            if failure.kind != "unreachable" or time.monotonic() + wait_s > deadline:
                raise failure from error
        time.sleep(wait_s)
        wait_s = min(2 * wait_s, _LONGEST_WAIT_S)


def source_error(url: str, failure: ReadFailure) -> SourceError:
    """Return the error of a root or folder that cannot be listed: what happened, and which setting may help."""
    if failure.kind == "vanished":
        return SourceError(f"there is nothing at {url}", advice(url, failure))
    return SourceError(f"{url} cannot be listed: {failure.message}", advice(url, failure))


def advice(url: str, failure: ReadFailure) -> str:
    """Return what to do about a URL that cannot be read."""
    if failure.kind == "vanished":
        return "Give the URL of a folder or of files that exist."
    return "Try again later." if failure.kind == "unreachable" else _CREDENTIALS.get(url.partition("://")[0], _OTHER)


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status of a response that was refused, None where there is none."""
    response: Any = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        status = getattr(response, "status_code", None) or getattr(error, "status", None) or getattr(error, "code", 0)
    return status if isinstance(status, int) and 400 <= status < 600 else None


def is_beyond_end(failure: ReadFailure) -> bool:
    """Tell whether a read failed since it began at the end of the file or behind it."""
    return any(status_of(each) == 416 for each in _chain(failure))


_S3 = (
    "Set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, to credentials that may list and read it; "
    "a public bucket: FSSPEC_S3_ANON=true."
)
_GS = (
    "Run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS; "
    "a public bucket: FSSPEC_GS_TOKEN=anon."
)
_WEB = "Put user:password@ before the host, or use URLs that are signed."
_OTHER = "Give credentials in ~/.config/fsspec/conf.json or in the environment, as fsspec documents it."
_CREDENTIALS = {
    "s3": _S3,
    "s3a": _S3,
    "gs": _GS,
    "gcs": _GS,
    "hf": "Set HF_TOKEN, or run `hf auth login`, and accept the dataset's terms on its page.",
    "http": _WEB,
    "https": _WEB,
}


def _chain(error: BaseException) -> list[BaseException]:
    chain: list[BaseException] = []
    each: BaseException | None = error
    while each is not None and each not in chain:
        chain.append(each)
        each = each.__cause__
    return chain


def _kind(error: BaseException) -> str | None:
    code = _code(error)
    if code in _BY_CODE:
        return _BY_CODE[code]
    kind = next((_BY_CLASS[each.__name__] for each in type(error).__mro__ if each.__name__ in _BY_CLASS), None)
    status = status_of(error)
    if kind is not None or status is None:  # aiohttp gives a body that is cut the code 400
        return kind
    return "forbidden" if _is_bad_key(error) else _kind_of_status(status)


def _is_bad_key(error: BaseException) -> bool:
    """Tell whether S3 refused a HEAD with 400: no body says why, and it has no other reason than the credentials."""
    return status_of(error) == 400 and str(getattr(error, "operation_name", "")).startswith("Head")


def _kind_of_status(status: int) -> str:
    kinds = {401: "forbidden", 403: "forbidden", 407: "forbidden", 404: "vanished", 410: "vanished", 412: "changed"}
    if status in (408, 425, 429) or status >= 500:
        return "unreachable"
    return kinds.get(status, "unreadable")


def _code(error: BaseException) -> str:
    response = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def _said(error: BaseException) -> str:
    """Return an error's own words; those of HTTP clients repeat whole URLs."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        said = response.get("Error", {})
        if _is_bad_key(error):
            return "the credentials are wrong or have expired (HTTP 400)"
        words = " ".join(str(said[key]) for key in ("Code", "Message") if said.get(key))
        return public_text(f"HTTP {words}" if words[:1].isdigit() else words)
    status = status_of(error)
    if status is not None and "HttpProcessingError" not in {each.__name__ for each in type(error).__mro__}:
        reason = getattr(error, "message", "") or getattr(getattr(error, "response", None), "reason", "")
        return public_text(f"HTTP {status} {reason if isinstance(reason, str) else ''}".rstrip())
    return public_text(error) or type(error).__name__
