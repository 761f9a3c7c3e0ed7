"""Keywords that exiftool wrote into image files, in every format that it writes."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tagllm_cli.evaluation.human_labels.base import YES
from tagllm_cli.evaluation.human_labels.readers.embedded_xmp import read, recognizes
from tagllm_cli.evaluation.truth.base import TableContext, TruthFile
from tagllm_cli.vocabulary.model import Label, Vocabulary
from tests.support.photo_software import add_keyword, exiftool

VOCABULARY = Vocabulary("pets", (Label("cat", parent="animal"), Label("dog", parent="animal")))


def opened(path: Path) -> TruthFile:
    return TruthFile(path, table=TableContext((), VOCABULARY))


@pytest.mark.parametrize("ending", ["jpg", "png", "tif", "webp"])
def test_keywords_in_images_of_each_format_are_read(tmp_path: Path, ending: str) -> None:
    path = tmp_path / "sub" / f"a.{ending}"
    path.parent.mkdir()
    Image.effect_noise((1500, 1500), 90).convert("RGB").save(path)
    assert not recognizes(opened(tmp_path))
    add_keyword(path, "cat", "animal")
    exiftool("-q", "-overwrite_original", "-XMP-dc:Subject+=holiday", path)
    found = read(opened(tmp_path))
    when = path.stat().st_mtime_ns // 1000
    assert recognizes(opened(tmp_path))
    assert [tuple(each)[:3] for each in found.statements] == [(f"sub/a.{ending}", "cat", YES)]
    assert (found.checked[0].when, found.notes) == (when, ("keywords that are no labels of the table: 1 (holiday)",))
    assert "do not say who wrote them" in found.warnings[0]


def test_images_without_keywords_and_broken_packets_say_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8<x:xmpmeta>no end")
    (tmp_path / "b.jpg").write_bytes(b"\xff\xd8<x:xmpmeta <</x:xmpmeta>")
    (tmp_path / "c.txt").write_text("cat")
    assert not recognizes(opened(tmp_path))
    assert not recognizes(opened(tmp_path / "c.txt"))
    assert (read(opened(tmp_path)).statements, read(opened(tmp_path)).checked) == ([], [])
