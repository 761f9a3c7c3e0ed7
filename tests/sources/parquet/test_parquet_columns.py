"""Which column holds the images: declared, of the right type, of a known name; or what is said where none or two do."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest

from tagllm_cli.errors import SourceError
from tagllm_cli.sources.parquet.columns import Columns, find_columns, is_label_table

STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def declared(fields: list[tuple[str, pa.DataType]], **features: object) -> pa.Schema:
    """Return a schema with the metadata that `datasets` writes."""
    return pa.schema(fields, {"huggingface": json.dumps({"info": {"features": features}})})


@pytest.mark.parametrize(
    ("schema", "image", "path"),
    [
        pytest.param(pa.schema([("x", pa.binary()), ("y", pa.int64())]), ("x",), None, id="binary"),
        pytest.param(pa.schema([("x", pa.large_binary())]), ("x",), None, id="large binary"),
        pytest.param(pa.schema([("x", pa.binary_view())]), ("x",), None, id="binary view"),
        pytest.param(pa.schema([("x", pa.dictionary(pa.int32(), pa.binary()))]), ("x",), None, id="dictionary"),
        pytest.param(pa.schema([("x", STRUCT), ("y", pa.binary())]), ("x", "bytes"), ("x", "path"), id="struct"),
        pytest.param(pa.schema([("x", pa.struct([("bytes", pa.binary())]))]), ("x", "bytes"), None, id="bytes only"),
        pytest.param(pa.schema([("x", pa.struct([("path", pa.string())]))]), None, ("x", "path"), id="path only"),
        pytest.param(
            pa.schema([("x", pa.struct([("bytes", pa.large_binary()), ("path", pa.null())]))]),
            ("x", "bytes"),
            None,
            id="pandas, no path",
        ),
        pytest.param(
            declared([("a", STRUCT), ("b", STRUCT)], a={"_type": "Value"}, b={"_type": "Image"}),
            ("b", "bytes"),
            ("b", "path"),
            id="declared struct",
        ),
        pytest.param(
            declared([("a", pa.binary()), ("b", pa.string())], b={"_type": "Image"}), None, ("b",), id="declared path"
        ),
        pytest.param(pa.schema([("text", pa.string()), ("File_Name", pa.string())]), None, ("File_Name",), id="names"),
        pytest.param(pa.schema([("url", pa.large_string()), ("hash", pa.binary(16))]), None, ("url",), id="URLs"),
    ],
)
def test_the_only_column_that_can_hold_images(
    schema: pa.Schema, image: tuple[str, ...] | None, path: tuple[str, ...] | None
) -> None:
    assert find_columns(schema) == Columns(image, path, None)


@pytest.mark.parametrize(
    ("schema", "said", "hint"),
    [
        pytest.param(pa.schema([("a", pa.binary()), ("b", pa.binary())]), "'a', 'b'", "--image-column a", id="two"),
        pytest.param(pa.schema([("a", STRUCT), ("b", STRUCT)]), "'a', 'b'", "--image-column a", id="two structs"),
        pytest.param(pa.schema([("url", pa.string()), ("path", pa.string())]), "'url', 'path'", "url", id="two names"),
        pytest.param(pa.schema([("a", pa.binary()), ("a", pa.binary())]), "'a', 'a'", "--image-column", id="same name"),
        pytest.param(pa.schema([("a", pa.int64())]), "a (int64)", "--image-column", id="none"),
        pytest.param(pa.schema([]), "columns are none", "--image-column", id="no columns"),
        pytest.param(pa.schema([(f"c{n}", pa.int8()) for n in range(40)]), "and 28 others", "--image", id="many"),
        pytest.param(pa.schema([("a", pa.list_(pa.binary()))]), "a list of images", "row of its own", id="list"),
        pytest.param(
            declared([("a", pa.large_list(STRUCT))], a={"_type": "List", "feature": {"_type": "Image"}}),
            "'a' holds a list of images",
            "row of its own",
            id="declared list",
        ),
    ],
)
def test_columns_that_are_not_clear(schema: pa.Schema, said: str, hint: str) -> None:
    with pytest.raises(SourceError) as caught:
        find_columns(schema)
    assert said in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize("features", [b"{", b"[]", b"null", b'{"info": 3}', b'{"info": {"features": ["x"]}}', b"\xff"])
def test_features_that_cannot_be_read_declare_nothing(features: bytes) -> None:
    schema = pa.schema([("x", pa.binary())], {b"huggingface": features})
    assert find_columns(schema).image == ("x",)


def test_a_column_that_is_named_is_taken() -> None:
    schema = pa.schema([("a", pa.binary()), ("note", pa.string()), ("id", pa.int64()), ("box", pa.list_(pa.int64()))])
    assert find_columns(schema, "note", "id") == Columns(None, ("note",), ("id",))
    for image, identity, said in (
        ("c", "", "no column 'c'"),
        ("id", "", "'id' holds int64, no images"),
        ("box", "", "no images"),
        ("a", "c", "no column 'c'"),
        ("a", "box", "no ids"),
    ):
        with pytest.raises(SourceError, match=said) as caught:
            find_columns(schema, image, identity)
        assert "--i" in caught.value.hint


def test_tables_of_labels_are_told_by_their_metadata() -> None:
    schema = pa.schema([("image", pa.binary())])
    assert not is_label_table(schema)
    assert is_label_table(schema.with_metadata({"tagllm.schema_version": "1"}))
