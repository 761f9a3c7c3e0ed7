"""The files of a dataset: Parquet, and the Arrow files that `save_to_disk` of `datasets` names."""

from __future__ import annotations

import json
import posixpath
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from tagllm_cli.errors import SourceError
from tagllm_cli.sources.base import ReadFailure, SourceOptions
from tagllm_cli.sources.parquet.row_files import ARROW_ENDING, PARQUET_ENDING, is_arrow
from tagllm_cli.sources.parquet.splits import choose, find_splits
from tagllm_cli.sources.storage.file_names import why_excluded
from tagllm_cli.sources.storage.storage import Storage, StoredFile

_MOST_TEXT = 1 << 22  # bytes of a README or of a JSON file


def find_files(storage: Storage, options: SourceOptions) -> tuple[list[StoredFile], Counter[str]]:
    """Return the files of the splits wanted, by name, and what was left out.

    Left out are what the options exclude, and Arrow files that no state.json beside them names (a cache of `datasets`),
    unless a pattern names them. Raises SourceError where files cannot be listed, or where there is no such split.
    """
    counts: Counter[str] = Counter()
    found: dict[str, StoredFile] = {}
    for file in storage.find((PARQUET_ENDING, ARROW_ENDING), options.pattern):
        excluded = _why_excluded(file.name, options.exclude)
        if excluded is None:
            found[file.name] = file
        else:
            counts[excluded] += 1
    saved = _saved_splits(storage, [name for name in found if is_arrow(name)])
    for name in [name for name in found if is_arrow(name) and name not in saved and not options.pattern]:
        del found[name]
        counts[ARROW_ENDING] += 1
    names = list(found)
    if options.splits:
        names = choose(names, options.splits, _splits(storage, names, saved))
    return [found[name] for name in names], counts


def _why_excluded(name: str, exclude: Sequence[str]) -> str | None:
    """Return what to count a file under that is left out by its own path or that of a folder above it."""
    parts = name.split("/")
    above = ("/".join(parts[:count]) for count in range(1, len(parts) + 1))
    return next((reason for each in above if (reason := why_excluded(each, exclude)) is not None), None)


def _splits(storage: Storage, names: Iterable[str], saved: dict[str, str]) -> dict[str, set[str]]:
    splits: dict[str, set[str]] = {}
    others = [name for name in names if name not in saved]
    if others:
        readme = _read(storage, "README.md").decode("utf-8", "replace")
        splits = {split: set(of) for split, of in find_splits(others, readme).items()}
    for name, split in saved.items():
        splits.setdefault(split, set()).add(name)
    return splits


def _saved_splits(storage: Storage, names: Iterable[str]) -> dict[str, str]:
    """Return the split of each file that the state.json beside it names."""
    splits: dict[str, str] = {}
    for folder in sorted({posixpath.dirname(name) for name in names}):
        state = _read_json(storage, posixpath.join(folder, "state.json"))
        files = state.get("_data_files")
        above, _, last = folder.rpartition("/")
        split = state.get("_split")
        if last in _read_json(storage, posixpath.join(above, "dataset_dict.json")).get("splits", ()):
            split = last
        for file in files if isinstance(files, list) else []:
            if isinstance(file, dict):
                splits[posixpath.join(folder, str(file.get("filename")))] = str(split or "train")
    return {name: splits[name] for name in names if name in splits}


def _read_json(storage: Storage, name: str) -> dict[str, Any]:
    try:
        found = json.loads(_read(storage, name) or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _read(storage: Storage, name: str) -> bytes:
    """Return a small file, b"" where there is none that may be read."""
    try:
        return storage.read(name, 0, _MOST_TEXT)
    except ReadFailure as failure:
        if failure.kind == "unreachable":
            message = f"{storage.locate(name)!r} cannot be read: {failure.message}"
            raise SourceError(message, "Try again when the storage answers.") from failure
        return b""
