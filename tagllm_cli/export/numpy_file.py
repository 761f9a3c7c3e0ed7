"""NumPy arrays in one compressed `.npz` file that `numpy.load` opens without pickle.

labels      [images, labels] bool     present
unknown     [images, labels] bool     undecided: to be left out of a loss
scores      [images, labels] float32  in [0, 1]; 0 for labels that were not proposed, 1 and 0 where people decided
image_ids   [images] str
names       [labels] str
label_ids   [labels] int64            permanent ids; the labels are in their order
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Any
from zipfile import ZIP_DEFLATED, BadZipFile, ZipFile, ZipInfo

from tagllm_cli.export.base import Examples, ExportSettings, ExportSummary, Format
from tagllm_cli.export.chunks import UNKNOWN, YES, Chunk
from tagllm_cli.store.atomic import replacing

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from tagllm_cli.store.table import Table

    Array = npt.NDArray[Any]

_MARK = b"tagllm export: numpy"
_LEVEL = 1  # of compression: most of it is zeros
_BLOCK = 1 << 20  # bytes, and rows


def export(table: Table, out: Path, settings: ExportSettings) -> ExportSummary:
    """Write one file. Memory does not grow with the table: the arrays wait on disk for their number of rows."""
    import numpy as np

    examples = Examples(table, settings)
    labels, longest = len(examples.vocabulary), _longest_id(table)
    columns: Mapping[str, tuple[np.dtype[Any], Callable[[Chunk], Array]]] = {
        "labels": (np.dtype(np.bool_), lambda chunk: _matrix(chunk, labels, chunk.state == YES)),
        "unknown": (np.dtype(np.bool_), lambda chunk: _matrix(chunk, labels, chunk.state == UNKNOWN)),
        "scores": (np.dtype(np.float32), lambda chunk: _matrix(chunk, labels, chunk.score)),
        "image_ids": (np.dtype(f"<U{longest}"), lambda chunk: np.array(chunk.batch["image_id"].to_pylist())),
    }
    with replacing(out, is_ours=_is_ours) as new, ExitStack() as stack:
        files = {name: stack.enter_context(TemporaryFile(dir=new.parent)) for name in columns}
        images = 0
        for chunk in examples.chunks():
            images += len(chunk)
            for name, (kind, values) in columns.items():
                files[name].write(values(chunk).astype(kind).tobytes())
        with ZipFile(new, "w", ZIP_DEFLATED, compresslevel=_LEVEL) as archive:
            archive.comment = _MARK
            for name, (kind, _) in columns.items():
                _add(archive, name, kind, (images,) if name == "image_ids" else (images, labels), files[name])
            _add_whole(archive, "names", np.array([label.name for label in examples.vocabulary], np.str_))
            _add_whole(archive, "label_ids", np.array(examples.ids, np.int64))
    return examples.summary([out])


def _is_ours(path: Path) -> bool:
    if not path.is_file():
        return False
    try:
        with ZipFile(path) as archive:
            return archive.comment == _MARK
    except (BadZipFile, OSError):
        return False


FORMAT = Format("numpy", "NumPy .npz, multi-hot labels with names", export, _is_ours, holds_unknown=True)


def _longest_id(table: Table) -> int:
    """Return the most characters of an id of the table: all splits of it have one type of strings."""
    import pyarrow.compute as pc

    ids = (batch["image_id"] for batch in table.batches(_BLOCK, ["image_id"]))
    return max(1, 1, *(pc.max(pc.utf8_length(some)).as_py() or 0 for some in ids))


def _matrix(chunk: Chunk, labels: int, values: Array) -> Array:
    import numpy as np

    found = np.zeros((len(chunk), labels), values.dtype)
    found[chunk.image, chunk.place] = values
    return found


def _add(archive: ZipFile, name: str, kind: np.dtype[Any], shape: tuple[int, ...], data: IO[bytes]) -> None:
    from numpy.lib import format as npy

    header = {"descr": npy.dtype_to_descr(kind), "fortran_order": False, "shape": shape}  # type: ignore[no-untyped-call]
    data.seek(0)
    with archive.open(_entry(name), "w", force_zip64=True) as file:
        npy.write_array_header_1_0(file, header)  # type: ignore[no-untyped-call]
        shutil.copyfileobj(data, file, _BLOCK)


def _add_whole(archive: ZipFile, name: str, values: Array) -> None:
    from numpy.lib import format as npy

    with archive.open(_entry(name), "w") as file:
        npy.write_array(file, values, allow_pickle=False)  # type: ignore[no-untyped-call]


def _entry(name: str) -> ZipInfo:
    entry = ZipInfo(f"{name}.npy")  # its time is always the same
    entry.compress_type = ZIP_DEFLATED
    entry._compresslevel = _LEVEL  # type: ignore[attr-defined]
    return entry
