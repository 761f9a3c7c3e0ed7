"""What kind of source a folder is, by the files that lie in it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

from tagllm_cli.errors import SourceError
from tagllm_cli.sources.base import ReadFailure
from tagllm_cli.sources.storage.file_names import EXTENSIONS
from tagllm_cli.sources.storage.local_files import LocalFiles
from tagllm_cli.sources.storage.patterns import literal
from tagllm_cli.sources.storage.storage import Storage

ENDINGS = {
    "tar": (".tar",),
    "parquet": (".parquet", ".arrow"),
    "manifest": (".csv", ".tsv", ".txt", ".jsonl", ".ndjson"),
}
FILES_INSTEAD = "Give the folder that holds them, or a text file with one path or URL per line."
_LOOKED_AT = (*ENDINGS["tar"], *ENDINGS["parquet"], *EXTENSIONS)
_WORDS = {"folder": "image files", "tar": "tar files", "parquet": "Parquet or Arrow files", "manifest": "manifests"}
# Lists of images that have to be saved in another form.
_LINES = "Write a manifest of it: `jq -c '.[]' FILE.json > FILE.jsonl`; of COCO files `jq -c '.images[]'`."
_SPREADSHEET = ("a spreadsheet", "Save it as CSV.")
_CONVERTED = {".json": ("JSON", _LINES), ".xlsx": _SPREADSHEET, ".xls": _SPREADSHEET, ".ods": _SPREADSHEET}
_OUR_TABLE = b"tagllm.schema_version"  # in the metadata of a label table


def kind_of_contents(root: str) -> str:
    """Return the kind of a folder: `folder`, `tar` or `parquet`; `folder` where nothing tells.

    Images anywhere below make it a folder of images, unless shards lie at its top as well (or Parquet in `data/`, as
    datasets have it): that is for the user to decide. Label tables of our own do not count. Raises SourceError where it
    is ambiguous, or a remote folder cannot be listed.
    """
    storage = Storage(root)
    top: set[str] = set()
    below: set[str] = set()
    # A local folder that cannot be listed is told better by the source, which may be allowed to leave a part out.
    with contextlib.suppress(SourceError) if storage.is_local else contextlib.nullcontext():
        names = [*_names(storage, "*"), *_names(storage, "data/*.parquet")]
        # Parquet alone is not opened elsewhere: a run may have nothing to do.
        opens = storage.is_local or any(_kind(name) == "folder" for name in names)
        top = _kinds(storage, names, opens=opens)
        below = set() if "folder" in top else _kinds(storage, _names(storage, ""), opens=opens)
    return _decide(root, top, below)


def kind_of_matches(root: str, pattern: str) -> str:
    """Return the kind of the files that match a pattern. Raises SourceError where there are none, or several kinds."""
    storage = Storage(root)
    kinds = _kinds(storage, (file.name for file in storage.find(_LOOKED_AT, pattern)), opens=storage.is_local)
    if not kinds:
        name = literal(pattern)
        _refuse_known(storage, name or "")
        what = (
            f"no file matches {pattern!r} in {root}" if name is None else f"{storage.locate(name)} has no known ending"
        )
        raise SourceError(what, "Name tar or Parquet files or a manifest, or say with --source-format what it is.")
    if kinds == {"folder"}:
        raise SourceError(f"{pattern!r} in {root} names image files one by one", FILES_INSTEAD)
    return _decide(root, kinds, set())


def _refuse_known(storage: Storage, name: str) -> None:
    for ending, (what, hint) in _CONVERTED.items():
        if name.lower().endswith(ending):
            raise SourceError(f"{storage.locate(name)} is {what}, which is not read", hint)


def _names(storage: Storage, pattern: str) -> Iterator[str]:
    """Yield names below the root, of a local one as they are found: the first image often ends the search."""
    if not storage.is_local:
        yield from (file.name for file in storage.find(_LOOKED_AT, pattern))
        return
    folder = pattern.rpartition("/")[0]
    ending = pattern.rpartition("*")[2]
    for name in LocalFiles(storage.root).walk(folder, 0 if pattern else None):
        if name.lower().endswith(_LOOKED_AT) and name.endswith(ending):
            yield name


def _kinds(storage: Storage, names: Iterable[str], *, opens: bool = True) -> set[str]:
    """Return the kinds of files, no more once there is an image and something else, or an image below the top.

    With `opens` off, label tables of our own count as Parquet.
    """
    kinds: set[str] = set()
    for name in names:
        kind = _kind(name)
        if kind is None or kind in kinds or (kind == "parquet" and opens and _is_label_table(storage, name)):
            continue
        kinds.add(kind)
        if kind == "folder" and "/" in name:
            break
    return kinds


def _decide(root: str, top: set[str], below: set[str]) -> str:
    kinds = top | below
    if "folder" in kinds and top <= {"folder"}:
        return "folder"
    if len(kinds) > 1:
        both = " and ".join(_WORDS[kind] for kind in sorted(kinds))
        choices = " or ".join(f"--source-format {kind}" for kind in sorted(kinds))
        raise SourceError(f"{root} holds {both}", f"Say which of them are meant: {choices}.")
    return kinds.pop() if kinds else "folder"


def _kind(name: str) -> str | None:
    if name.lower().endswith(tuple(EXTENSIONS)):
        return "folder"
    return next((kind for kind, endings in ENDINGS.items() if name.lower().endswith(endings)), None)


def _is_label_table(storage: Storage, name: str) -> bool:
    if not name.lower().endswith(".parquet"):
        return False
    import pyarrow.parquet as pq

    try:
        with storage.open(name) as file:
            return _OUR_TABLE in (pq.read_schema(file).metadata or {})
    except (ReadFailure, OSError, ValueError):  # its source will say what is wrong with it
        return False
