"""Which column of a file holds the images, and which the ids: from the file's Arrow schema."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tagllm_cli.errors import SourceError

# Names of columns of strings that hold paths or URLs of images.
_PATHS = "path file filepath file_path filename file_name url uri"
_IMAGE_PATHS = "image img image_path img_path image_file image_filename image_file_name image_url image_uri img_url"
PATH_NAMES = frozenset(f"{_PATHS} {_IMAGE_PATHS}".split())

_LABEL_TABLE = b"tagllm.schema_version"
_ONE_PER_ROW = "Give each image a row of its own, or name a column of single images with --image-column."
_MOST_NAMED = 12

Leaf = tuple[str, ...]  # a column, or a column and a field of it


@dataclass(frozen=True, slots=True)
class Columns:
    """Where a file has its images (bytes, paths or URLs, or both: bytes first) and ids; None where it has no such."""

    image: Leaf | None
    path: Leaf | None
    id: Leaf | None

    @property
    def leaves(self) -> tuple[Leaf, ...]:
        """All of them."""
        return tuple(leaf for leaf in (self.image, self.path, self.id) if leaf)

    @property
    def name(self) -> Leaf | None:
        """What a row is named by."""
        return self.id or self.path


def is_label_table(schema: pa.Schema) -> bool:
    """Tell whether tagllm wrote this file: labels, not images."""
    return _LABEL_TABLE in (schema.metadata or {})


def find_columns(schema: pa.Schema, image_column: str = "", id_column: str = "") -> Columns:
    """Return the columns named, or the only one that can hold images.

    Without a name: the column that the Hugging Face features call an image, else a struct of `bytes` or `path`, else a
    binary column, else a column of strings with one of PATH_NAMES. Raises SourceError where there is none or more than
    one, or where what is named does not exist or cannot hold images or ids.
    """
    place, kind = _named(schema, image_column, "--image-column") if image_column else _only_image(schema)
    image, path = _leaves(place, kind)
    if not id_column:
        return Columns(image, path, None)
    place, kind = _named(schema, id_column, "--id-column")
    if pa.types.is_nested(kind):
        hint = "Name a column of plain values with --id-column."
        raise SourceError(f"column {id_column!r} holds {_short(kind)}, no ids", hint)
    return Columns(image, path, place)


def column(batch: pa.RecordBatch, leaf: Leaf) -> pa.Array:
    """Return the values of a column, or of a field of it, as plain arrays: no dictionaries, no extension types."""
    values = _plain(batch.column(leaf[0]))
    return _plain(pc.struct_field(values, list(leaf[1:]))) if leaf[1:] else values


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Return the type of the values themselves, below extension types and dictionaries."""
    if isinstance(kind, pa.BaseExtensionType):
        return plain_type(kind.storage_type)
    return plain_type(kind.value_type) if pa.types.is_dictionary(kind) else kind


def is_bytes(kind: pa.DataType) -> bool:
    """Tell whether a plain type is one of bytes of any length."""
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def is_text(kind: pa.DataType) -> bool:
    """Tell whether a plain type is one of strings."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _plain(values: pa.Array) -> pa.Array:
    if isinstance(values, pa.UuidArray):
        return pa.array([None if value is None else str(value) for value in values.to_pylist()], pa.string())
    if isinstance(values, pa.ExtensionArray):
        return _plain(values.storage)
    return _plain(values.dictionary_decode()) if isinstance(values, pa.DictionaryArray) else values


def _named(schema: pa.Schema, name: str, option: str) -> tuple[Leaf, pa.DataType]:
    """Return the column of this name, or the field of a struct that `column.field` names, with its plain type."""
    fields = [field for field in schema if field.name == name]
    if len(fields) > 1:
        raise SourceError(f"there are {len(fields)} columns {name!r}", "Rename one.")
    if fields:
        return (name,), plain_type(fields[0].type)
    outer, _, inner = name.rpartition(".")
    if outer:
        place, kind = _named(schema, outer, option)
        if pa.types.is_struct(kind) and kind.get_field_index(inner) >= 0:
            return (*place, inner), plain_type(kind.field(inner).type)
    raise SourceError(f"there is no column {name!r}: {_all_columns(schema)}", f"Name one of them with {option}.")


def _only_image(schema: pa.Schema) -> tuple[Leaf, pa.DataType]:
    for is_image in (_is_declared(schema), _is_image_struct, _is_binary, _is_path):
        found = [field.name for field in schema if is_image(field)]
        if len(found) > 1:
            names = ", ".join(map(repr, found))
            raise SourceError(
                f"several columns can hold the images: {names}", f"Name one with --image-column {found[0]}."
            )
        if found:
            return _named(schema, found[0], "--image-column")
    nested = next((field.name for field in schema if _is_list_of_images(field.type)), None)
    if nested is not None:
        raise SourceError(f"column {nested!r} holds a list of images in each row", _ONE_PER_ROW)
    raise SourceError(f"no column holds images: {_all_columns(schema)}", "Name the column with --image-column.")


def _leaves(place: Leaf, kind: pa.DataType) -> tuple[Leaf | None, Leaf | None]:
    """Return where the bytes and where the paths are in an image column."""
    if is_bytes(kind):
        return place, None
    if is_text(kind):
        return None, place
    name = ".".join(place)
    if _is_list_of_images(kind):
        raise SourceError(f"column {name!r} holds a list of images in each row", _ONE_PER_ROW)
    if not _is_struct(kind):
        hint = "Name a column of bytes, paths or URLs, or a struct of `bytes` and `path`, with --image-column."
        raise SourceError(f"column {name!r} holds {_short(kind)}, no images", hint)
    image, path = ((*place, part) if _has(kind, part, is_kind) else None for part, is_kind in _PARTS)
    return image, path


_PARTS: Sequence[tuple[str, Callable[[pa.DataType], bool]]] = (("bytes", is_bytes), ("path", is_text))


def _has(struct: pa.StructType, name: str, is_kind: Callable[[pa.DataType], bool]) -> bool:
    return struct.get_field_index(name) >= 0 and is_kind(plain_type(struct.field(name).type))


def _is_image_struct(field: pa.Field) -> bool:
    return _is_struct(plain_type(field.type))


def _is_struct(kind: pa.DataType) -> bool:
    return pa.types.is_struct(kind) and any(_has(kind, name, is_kind) for name, is_kind in _PARTS)


def _is_binary(field: pa.Field) -> bool:
    return is_bytes(plain_type(field.type))


def _is_path(field: pa.Field) -> bool:
    return field.name.lower() in PATH_NAMES and is_text(plain_type(field.type))


def _is_declared(schema: pa.Schema) -> Callable[[pa.Field], bool]:
    features = _features(schema)
    names = {
        name for name, feature in features.items() if isinstance(feature, dict) and feature.get("_type") == "Image"
    }
    return lambda field: field.name in names


def _features(schema: pa.Schema) -> dict[str, Any]:
    """Return the Hugging Face features of a schema; {} where it has none that can be read."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, LookupError, TypeError):
        return {}
    return features if isinstance(features, dict) else {}


def _is_list_of_images(kind: pa.DataType) -> bool:
    kind = plain_type(kind)
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        return False
    return (
        is_bytes(plain_type(kind.value_type))
        or _is_struct(plain_type(kind.value_type))
        or _is_list_of_images(kind.value_type)
    )


def _all_columns(schema: pa.Schema) -> str:
    shown = [f"{field.name} ({_short(field.type)})" for field in schema][:_MOST_NAMED]
    rest = len(schema) - len(shown)
    return f"the columns are {', '.join(shown) or 'none'}" + (f" and {rest} others" if rest else "")


def _short(kind: pa.DataType) -> str:
    said = str(kind)
    return said if len(said) <= 40 else f"{said[:37]}..."
