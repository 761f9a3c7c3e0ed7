"""Storage that is gone ends a run: without credentials or a connection, all that is left would be read in vain.

Images that a manifest names by URL lie at many hosts: one that is down takes its own images with it and no run.
"""

from __future__ import annotations

import re

from tagllm_cli.errors import SourceError
from tagllm_cli.records import Image
from tagllm_cli.sources.base import STORAGE_KINDS, ReadFailure, Source

_URL = re.compile(r": (https?://\S+)$")  # at the end of what the fetching of a URL says
MOST_FAILURES = 16  # one after the other
MOST_HOSTS = 8  # that these are at, where images have URLs of their own


class StorageWatch:
    """Looks at what is read, in order."""

    def __init__(self, source: Source) -> None:
        self._own_host = _host(source.describe().uri)
        self._in_storage = self._elsewhere = 0  # failures since the last image that the storage is not to blame for
        self._hosts: set[str] = set()

    def add(self, image: Image, data: bytes | ReadFailure) -> None:
        """Raise SourceError where image after image cannot be read for a reason that is not the image's."""
        if not isinstance(data, ReadFailure) or data.kind not in STORAGE_KINDS:
            self._in_storage = self._elsewhere = 0
            self._hosts.clear()
            return
        host = _host(_place(image, data))
        if host in ("", self._own_host):
            self._in_storage += 1
        else:
            self._elsewhere += 1
            self._hosts.add(host)
        if self._in_storage >= MOST_FAILURES or (self._elsewhere >= MOST_FAILURES and len(self._hosts) >= MOST_HOSTS):
            raise SourceError(
                f"the last {self._in_storage + self._elsewhere} images cannot be read: {data.kind}: {data.message}",
                "Look at the connection and the credentials.",
            )


def _place(image: Image, failure: ReadFailure) -> str:
    """Return the URL that a failure is about: the image's own, or that of a row, which the message names; else ""."""
    if "://" in image.uri:
        return image.uri
    named = _URL.search(failure.message)
    return "" if named is None else named[1]


def _host(place: str) -> str:
    """Return the host, with its port, or the bucket of a URL; "" for a path."""
    return place.partition("://")[2].partition("/")[0]
