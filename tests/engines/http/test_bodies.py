"""Bodies of any encoding are read, and errors of every form are one line that can be stored."""

from __future__ import annotations

import codecs
import gzip

import pytest

from tagllm_cli.engines.http.bodies import MOST_BYTES, parse_json, read_error

ERROR = '{"error": {"message": "no images"}}'


@pytest.mark.parametrize(
    "body",
    [
        ERROR.encode(),
        codecs.BOM_UTF8 + ERROR.encode(),
        ERROR.encode("utf-16"),
        ERROR.encode("utf-32"),
        b"\n\n  " + ERROR.encode(),
        gzip.compress(ERROR.encode(), mtime=0),
    ],
)
def test_json_is_read_in_any_encoding(body: bytes):
    assert parse_json(body) == {"error": {"message": "no images"}}
    assert read_error(body) == "no images"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\x1f\x8bbroken",
        gzip.compress(ERROR.encode(), mtime=0)[:-20],
        b"[" * 10**5,
        b"\xff\xfe\x00",
        b"1" * 5000,
    ],
)
def test_what_is_no_json_is_one_kind_of_error(body: bytes):
    with pytest.raises(ValueError):  # noqa: PT011 (the kind is what is promised)
        parse_json(body)


def test_a_body_that_unpacks_to_gigabytes_is_not_unpacked():
    bomb = gzip.compress(b'"' + b" " * (4 * MOST_BYTES) + b'"')
    with pytest.raises(ValueError, match="Unterminated string"):
        parse_json(bomb)


@pytest.mark.parametrize(
    ("response", "message"),
    [
        ('{"error": {"message": "no\\nimages"}}', "no images"),
        ('{"error": "no images"}', "no images"),
        ('{"detail": "Not Found"}', "Not Found"),
        ('{"object": "error", "message": "no images", "code": 40001}', "no images"),
        ('{"msg": "no images"}', "no images"),
        ('{"error": {"message": {"detail": "no images"}}}', "no images"),
        ('{"detail": [{"loc": ["body", "n"], "msg": "too many"}, {"msg": "odd"}]}', "body.n: too many; : odd"),
        (
            '{"error": {"message": "Provider returned error", "metadata": {"raw": "{\\"error\\": \\"no images\\"}"}}}',
            "Provider returned error: no images",
        ),
        ('{"error": {"message": "half \\ud83d"}}', "half ?"),
        ("<html>\n<b>Bad</b></html>", "<html> <b>Bad</b></html>"),
        ("", ""),
    ],
)
def test_errors_of_every_form_are_one_line(response: str, message: str):
    assert read_error(response.encode()) == message


def test_an_error_of_any_length_is_cut():
    assert len(read_error(b'{"error": "' + b"x" * (10 * MOST_BYTES) + b'"}')) == 300
    assert len(read_error(b'{"error": "' + b"x" * 1000 + b'"}')) == 300
