"""XML from anywhere, without what could harm whoever parses it."""

from __future__ import annotations

import re

from tagllm_cli.evaluation.truth.base import TruthFile

_DECLARATION = re.compile(rb"<!\s*(?:DOCTYPE|ENTITY)", re.IGNORECASE)


def without_declarations(file: TruthFile, data: bytes) -> bytes:
    """Return XML that declares neither a document type nor entities; raises UsageError for other XML.

    Entities could stand for gigabytes, or for other files.
    """
    if _DECLARATION.search(data.replace(b"\0", b"")):
        raise file.error("this XML declares a document type or entities, which are not read", "Remove them.")
    return data
