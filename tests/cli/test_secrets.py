"""Passwords and signatures of URLs are in no output and in no file, whatever fails."""

from __future__ import annotations

import contextlib
import shlex
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.command_line import tagllm
from tests.support.faulty_proxy import FaultyProxy
from tests.support.packing import parquet_of, tar_of
from tests.support.stub_server import stub_server
from tests.support.web_server import Reply, WebServer, redirect
from tests.support.workspace import paint

PASSWORD, SIGNATURE = "pa55word-of-mine", "hunter2hunter2"
QUERY = f"x=1&X-Amz-Signature={SIGNATURE}&X-Amz-Expires=60&X-Amz-Credential=AKIA{SIGNATURE}"

FAULTS = {
    "none": None,
    "forbidden": Reply(403, body=f"<Error>{SIGNATURE}</Error>".encode()),
    "down": Reply(503),
    "redirected": redirect(f"http://me:{PASSWORD}@127.0.0.1:9/x?{QUERY}"),
    "redirected to nothing": redirect(f"nowhere://{SIGNATURE}"),
    "a page": Reply(200, {"Content-Type": "text/html"}, f"<html>{SIGNATURE}</html>".encode()),
}
# What is typed for SOURCE, and further options; {} is a URL with secrets but for its path.
SOURCES = {
    "tar": "{}/s.tar",
    "parquet": "{}/s.parquet",
    "manifest on the web": "{}/m.csv",
    "manifest": "m.csv",
    "text": "m.txt",
    "column": "urls.parquet",
    "column of ids": "urls.parquet --id-column id",
}
REFUSED = {"no source": "{}/nothing", "archive": "{}/s.zip", "image": "{}/0.png", "other scheme": "no-such-{}/a"}
CASES = {f"{source}, {fault}": (SOURCES[source], FAULTS[fault]) for source in SOURCES for fault in FAULTS}
CASES |= {name: (source, None) for name, source in REFUSED.items()}


@pytest.fixture(scope="module")
def server() -> Iterator[FaultyProxy]:
    with stub_server() as running:
        yield running


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user waits for a minute until a server is given up."""
    monkeypatch.setattr("tagllm_cli.sources.storage.web._WAITS_S", (0.01,))
    monkeypatch.setattr("tagllm_cli.sources.storage.remote_errors.PATIENCE_S", 0.1)


def in_files(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the names of files with the text that is in them, compressed or not."""
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            yield path.name, f"{table.to_pylist()} {table.schema.metadata}"
        if path.suffix == ".evidence":
            with contextlib.closing(sqlite3.connect(path)) as evidence:
                yield path.name, "\n".join(evidence.iterdump())
        if path.is_file():
            yield path.name, path.read_bytes().decode("latin-1")


@pytest.mark.parametrize(("source", "fault"), CASES.values(), ids=CASES)
def test_secrets_of_urls_are_nowhere(
    source: str, fault: Reply | None, tmp_path: Path, server: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    files = {f"{number}.png": paint(tmp_path / f"{number}.png", number).read_bytes() for number in range(3)}
    with WebServer({f"/{name}": data for name, data in files.items()}) as web:
        place = f"http://me:{PASSWORD}@{web.url.removeprefix('http://')}"
        urls = [f"{place}/{name}?{QUERY}" for name in files]
        Path("m.csv").write_text("\n".join(["url", *urls]))
        Path("m.txt").write_text("\n".join(urls))
        pq.write_table(pa.table({"image": urls, "id": urls}), "urls.parquet")
        web.files |= {"/s.tar": tar_of(files), "/s.parquet": parquet_of(files), "/m.csv": Path("m.csv").read_bytes()}
        for path in ("/0.png", "/s.tar", "/s.parquet"):
            web.on(path, fault)
        spec, *options = source.format(place).split()
        spec = f"{spec}?{QUERY}" if place in spec else spec
        for line in (
            ["candidates", spec, "--vocab", "voc", "--out", "out/c.parquet", *options, "--verbose"],
            ["candidates", spec, "--vocab", "voc", "--out", "out/c.parquet", *options, "--json"],
            ["disambiguate", "out/c.parquet", "--out", "out/l.parquet", "--verbose"],
            ["disambiguate", "out/c.parquet", "--out", "out/m.parquet", "--verbose", "--root", f"{place}/?{QUERY}"],
            ["export", "out/l.parquet", "--format", "coco", "--out", "out/coco.json"],
            ["export", "out/l.parquet", "--format", "hf", "--out", "out/hf"],
            ["export", "out/l.parquet", "--format", "hf", "--no-embed", "--out", "out/links", "--json"],
        ):
            monkeypatch.setattr(sys, "argv", ["tagllm", *line])  # is written to the log
            result = tagllm(line, server.url)
            assert result.exit_code in (0, 2, 3), shlex.join(line)
            assert PASSWORD not in result.output
            assert SIGNATURE not in result.output
    for name, text in in_files(Path("out")):
        assert PASSWORD not in text, name
        assert SIGNATURE not in text, name
