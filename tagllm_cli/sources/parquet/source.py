"""Parquet files, folders of them, Hugging Face datasets, and what `datasets` wrote with `save_to_disk`."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence, Set
from typing import ClassVar

from tagllm_cli.errors import SourceError
from tagllm_cli.records import Image, Shard, SourceInfo
from tagllm_cli.sources.base import DEFAULT_OPTIONS, ReadFailure, SourceOptions, summarize_left_out
from tagllm_cli.sources.parquet.column_values import ColumnValues
from tagllm_cli.sources.parquet.columns import Columns, find_columns, is_label_table
from tagllm_cli.sources.parquet.dataset_files import find_files
from tagllm_cli.sources.parquet.linked_files import read_ahead, read_linked
from tagllm_cli.sources.parquet.row_files import ARROW_ENDING, PARQUET_ENDING, RowFile, is_arrow, open_rows
from tagllm_cli.sources.parquet.row_ids import Hashes, RowNames, SharedIds, hashes_of, is_same
from tagllm_cli.sources.parquet.row_listing import all_names, image_of, list_rows, place_of, placeholder
from tagllm_cli.sources.parquet.row_reader import OpenFiles, Row, RowReader
from tagllm_cli.sources.storage.file_names import why_excluded
from tagllm_cli.sources.storage.storage import Storage, StoredFile

_OPEN_FILES = 2  # that are kept open, for the rows near the last one
_CHECKED_FILES = 10  # whose columns are looked at before anything is listed
_LABEL_TABLE = "label table of tagllm"


class Parquet:
    """The rows of the Parquet files below `root`, a path or URL; or of Arrow files, as `datasets` saves them.

    An image's id is as in row_ids.py, its uri is `FILE#ROW`, counted from 0. Where rows hold paths or URLs, these are
    read relative to the file, else to the root.
    """

    is_ordered: ClassVar[bool] = True
    readers: ClassVar[int] = 2

    def __init__(self, root: str, options: SourceOptions = DEFAULT_OPTIONS) -> None:
        self._storage = Storage(root)
        self._options = options
        self._files: list[StoredFile] | None = None
        self._versions: Mapping[str, str] = {}
        self._left_out: dict[str, Counter[str]] = {}
        self._shared = SharedIds(self._ids)
        self._open_files = OpenFiles(self._version, self._reader)
        self._lock = threading.Lock()
        self._is_checked = False

    @property
    def left_out(self) -> Mapping[str, int]:
        """Files by ending or pattern, and tables of labels that tagllm wrote."""
        return sum(self._left_out.values(), Counter())

    @property
    def lists_by_reading(self) -> bool:
        """Whether files lie elsewhere, or are Arrow files, which say nothing about their rows before they are read."""
        if not self._storage.is_local:
            return True
        try:
            files = self._known_files()
        except SourceError:  # not there now
            return False
        return any(is_arrow(file.name) for file in files)

    def check(self) -> None:
        """Raise SourceError where no file can be listed. None is opened: a run may have nothing to do."""
        self._storage.check(self._options.pattern)
        self._find()

    def describe(self) -> SourceInfo:
        """Return the kind `parquet`, the root without secrets, and the options that are not the defaults."""
        return SourceInfo("parquet", self._storage.root, self._options.to_json())

    def shards(self) -> Iterator[Shard]:
        """Yield the files by name. Raises SourceError where there is none, or where a split is not known."""
        files, counts = self._find()
        for file in files:
            yield Shard(file.name, file.version)
        self._left_out[""] = counts

    def images(self, shard: Shard) -> Iterator[Image]:
        """Yield the rows of a file: of Parquet from its footer and the column of ids or paths, without the images.

        Rows of a damaged row group are listed by their number. A file that cannot be read, or has no column of images,
        is one image of the file's name.
        """
        self._check_columns(shard.name)
        counts: Counter[str] = Counter()
        try:
            with self._opened(shard.name) as file:
                if is_label_table(file.schema):
                    counts[_LABEL_TABLE] += 1
                else:
                    for image in self._listed(shard, file):
                        if excluded := self._why_excluded(image):
                            counts[excluded] += 1
                        else:
                            yield image
        except ReadFailure:
            yield placeholder(shard)
        self._note(shard, counts)

    def read(self, image: Image) -> bytes:
        """Return the bytes of a row's image. Cheap for rows one after the other: the last piece of the file is kept.

        Raises ReadFailure of a kind of `Storage`, or `no_image` (an empty row), `vanished` (another image is there),
        `corrupt_file`, `truncated_file`, `no_image_column`.
        """
        name, row = place_of(image.uri)
        if row is None:
            raise self._reason(name)
        with self._lock:  # neighbors share a file
            reader = self._open_files.take(name)
            try:
                found = _found(reader, image, row)
            except ReadFailure:
                reader.close()
                raise
            self._open_files.keep(name, reader)
        if isinstance(found, Row):
            return self._linked(name, found)
        if isinstance(found, ReadFailure):
            raise found
        return found

    def stream(
        self, shard: Shard, images: Sequence[Image] | None = None
    ) -> Iterator[tuple[Image, bytes | ReadFailure]]:
        """Yield the images with their bytes, a few megabytes of a row group at a time.

        Row groups without a wanted image are skipped. What rows name by path or URL is read ahead.
        """
        if images is None and is_arrow(shard.name):
            self._check_columns(shard.name)
            rows = self._all_rows(shard)
        else:
            rows = self._rows(shard.name, self.images(shard) if images is None else images)
        with contextlib.closing(rows):
            yield from read_ahead(rows, lambda row: self._linked(shard.name, row))

    def shard_of(self, uri: str) -> str:
        """Return the name of the file."""
        return place_of(uri)[0]

    def locate(self, image: Image) -> str | None:
        """Return None: the image is a part of a file, or the row has to be read to know where it is."""
        return None

    def column(self, name: str) -> Callable[[Image], str | None]:
        """Return what gives an image its value in a column, as text, or None; cheap in the order of the images.

        It raises SourceError where the image's file has no such column.
        """
        values = ColumnValues(self._storage, name, self._options.image_column)
        return lambda image: values.of(image.uri)

    def _note(self, shard: Shard, counts: Counter[str]) -> None:
        """Remember what was left out of a shard, now that it is listed to its end."""
        self._left_out.pop(shard.name, None)
        if counts:
            self._left_out[shard.name] = counts

    def _check_columns(self, name: str) -> None:
        """Raise SourceError where neither a file nor the first others say clearly which column holds the images."""
        if self._is_checked:
            return
        problem: SourceError | None = None
        for each in [name, *(file.name for file in self._known_files()[:_CHECKED_FILES])]:
            try:
                with self._opened(each) as rows:
                    if is_label_table(rows.schema):
                        continue
                    find_columns(rows.schema, self._options.image_column, self._options.id_column)
            except ReadFailure:  # the rows of the others will do; this one gets a row that says why
                continue
            except SourceError as error:
                problem = problem or SourceError(f"{each}: {error.message}", error.hint)
            else:
                problem = None
                break
        if problem is not None:
            raise problem
        self._is_checked = True

    def _find(self) -> tuple[list[StoredFile], Counter[str]]:
        files, counts = find_files(self._storage, self._options)
        if not files:
            left_out = f"Left out: {summarize_left_out(counts)}. " if counts else ""
            hint = f"{left_out}Known endings: {PARQUET_ENDING}, and {ARROW_ENDING} where state.json names the file."
            matching = f" matching {self._options.pattern!r}" if self._options.pattern else ""
            raise SourceError(f"there are no images in {self._storage.root}: no Parquet file{matching}", hint)
        self._files = files
        self._versions = {file.name: file.version for file in files if not is_arrow(file.name)}
        return files, counts

    def _known_files(self) -> list[StoredFile]:
        """Return the files as they were last looked at."""
        return self._files if self._files is not None else self._find()[0]

    def _opened(self, name: str) -> contextlib.closing[RowFile]:
        """Open a file whose images will not be read."""
        return contextlib.closing(open_rows(self._storage, name, is_sparse=True))

    def _version(self, name: str) -> str:
        return self._storage.stat(name).version

    def _reader(self, name: str, version: str) -> RowReader:
        file = open_rows(self._storage, name)
        try:
            return RowReader(file, self._columns(file), version)
        except ReadFailure:
            file.close()
            raise

    def _columns(self, file: RowFile) -> Columns:
        try:
            return find_columns(file.schema, self._options.image_column, self._options.id_column)
        except SourceError as error:
            raise ReadFailure("no_image_column", error.message) from error

    def _listed(self, shard: Shard, file: RowFile) -> Iterator[Image]:
        return list_rows(shard, file, self._columns(file), self._shared_ids(shard.name))

    def _why_excluded(self, image: Image) -> str | None:
        """Return what to count a row under that --exclude leaves out by the image's own path, or by its id."""
        own = image.id.removeprefix(f"{image.shard}/")
        return why_excluded(f"{image.shard}/{own}", self._options.exclude)

    def _shared_ids(self, name: str) -> Set[int] | None:
        """Return the hashes of ids that several files have, None where a file's images are not named by an id alone."""
        if not self._options.id_column or is_arrow(name):
            return None
        self._known_files()
        return self._shared.of(name, self._versions)

    def _ids(self, name: str) -> Hashes | None:
        """Return the hashes of a file's ids, None where they cannot be read now."""
        ids: list[str] = []
        try:
            with self._opened(name) as file:
                if not is_label_table(file.schema):
                    for names in all_names(file, self._columns(file)):
                        ids += names.drop_null().to_pylist()
        except ReadFailure:
            return None
        return hashes_of(ids)

    def _reason(self, name: str) -> ReadFailure:
        """Return why a file cannot be listed to its end."""
        try:
            with self._opened(name) as file:
                for _ in self._listed(Shard(name), file):
                    pass
        except ReadFailure as failure:
            return failure
        return ReadFailure("vanished", "the file can be read again: the next run lists its rows")

    def _rows(self, name: str, images: Iterable[Image]) -> Generator[tuple[Image, bytes | ReadFailure | Row]]:
        """Yield what the rows of a file hold; one failure of the storage is that of all the rest."""
        reader: RowReader | ReadFailure | None = None
        try:
            for image in images:
                row = place_of(image.uri)[1]
                if row is None:
                    yield image, self._reason(name)
                    continue
                try:
                    reader = reader or self._open_files.take(name)
                    found = reader if isinstance(reader, ReadFailure) else _found(reader, image, row)
                except ReadFailure as failure:
                    if isinstance(reader, RowReader):
                        reader.close()
                    found = reader = failure
                yield image, found
        finally:
            if isinstance(reader, RowReader):
                self._open_files.keep(name, reader)

    def _all_rows(self, shard: Shard) -> Generator[tuple[Image, bytes | ReadFailure | Row]]:
        """Yield the rows of an Arrow file as `images` lists them, reading it once."""
        namer, counts = RowNames(), Counter[str]()
        try:
            with self._opened(shard.name) as file:
                reader = RowReader(file, self._columns(file), shard.version)
                for row in itertools.count():
                    found = reader.row(row)
                    if found is None:
                        break
                    if isinstance(found, ReadFailure):
                        raise found
                    image = image_of(shard, row, found.own, namer.name(row, found.own), None)
                    if excluded := self._why_excluded(image):
                        counts[excluded] += 1
                    else:
                        yield image, _content(found)
        except ReadFailure as failure:
            yield placeholder(shard), failure
        self._note(shard, counts)

    def _linked(self, name: str, row: Row) -> bytes:
        return read_linked(self._storage, name, row.path or "")


def _found(reader: RowReader, image: Image, row: int) -> bytes | ReadFailure | Row:
    """Return what a row holds, where it is still that of the image. Raises ReadFailure where the storage fails."""
    found = reader.row(row)
    if found is None:
        return ReadFailure("vanished", f"the file has no row {row} any more")
    if isinstance(found, ReadFailure):
        return found
    is_changed = bool(image.version and reader.version) and image.version != f"{reader.version}#{row}"
    if (found.own is None and is_changed) or not is_same(image.id, place_of(image.uri)[0], row, found.own):
        return ReadFailure("vanished", f"the file has changed: another image is in row {row}")
    return _content(found)


def _content(row: Row) -> bytes | ReadFailure | Row:
    """Return a row's bytes, or the row itself where it names a file."""
    if row.data is not None:
        return row.data
    return row if row.path is not None else ReadFailure("no_image", "the row holds no image")
