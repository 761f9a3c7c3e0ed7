"""Captions as trainers of LoRAs read them. sd-scripts cannot be installed here: its rules, restated, are the judge."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tagllm_cli.errors import UsageError
from tagllm_cli.export.base import ExportSettings, ExportSummary
from tagllm_cli.export.registry import export_table
from tagllm_cli.records import LabelEntry
from tagllm_cli.store.table import open_table, write_table
from tagllm_cli.vocabulary.model import Label, Vocabulary
from tests.export.test_conformance import HOSTILE
from tests.export.test_formats import content, rows, said
from tests.support.photo_software import edit_caption

# library/train_util.py of sd-scripts 0.9: IMAGE_EXTENSIONS, each in lower and upper case.
ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def sd_scripts(folder: Path, caption_extension: str = ".txt") -> dict[str, str]:
    """The caption of every image of one folder, as DreamBoothDataset.load_dreambooth_dir and read_caption have it.

    Images are the files of the folder itself; the caption is the first line, stripped, of the file with the image's
    name but for its ending, or with that of a name without its last four parts; an empty file is an error.
    """
    captions = {}
    for name in sorted(os.listdir(folder)):
        base, ending = os.path.splitext(name)
        if ending.lower() not in ENDINGS:
            continue
        parts = base.split("_")
        bases = [base, "_".join(parts[:-4]) if len(parts) >= 5 else base]
        found = [
            folder / f"{each}{caption_extension}" for each in bases if (folder / f"{each}{caption_extension}").is_file()
        ]
        with found[0].open(encoding="utf-8") as file:
            lines = file.readlines()
        assert lines, f"caption file is empty: {found[0]}"
        captions[name] = lines[0].strip()
    return captions


def tokens(caption: str, keep_tokens: int = 0, separator: str = ",") -> tuple[list[str], list[str]]:
    """The tags that stay in front and those that are shuffled, as process_caption cuts them."""
    found = [tag.strip() for tag in caption.strip().split(separator)]
    return found[:keep_tokens], found[keep_tokens:]


def export(table: Path, out: Path, *, images: str | None = None, **options: str) -> ExportSummary:
    return export_table(table, "captions", out, ExportSettings(images=images, format_options=options))


def labeled(table: Path, root: Path, names: tuple[str, ...], *entries: LabelEntry) -> Path:
    """A table with one image that has these labels."""
    (first, *_) = rows(root)
    info = replace(open_table(table).info, vocabulary=Vocabulary("words", tuple(map(Label, names))))
    write_table(table, info, [replace(first, labels=entries)])
    return table


def test_sd_scripts_reads_the_labels_of_every_image(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "train"
    summary = export(table, out)
    assert (summary.images, summary.labels, summary.left_out) == (4, 4, {"failed": 1, "pending": 1})
    found = sd_scripts(out)
    assert found == {
        "a dog & cat.png": "cat, dog",
        "sub__human.png": "cat",
        "sub__nothing.jpg": "",
        "sub__ünsicher_.png": 'salt "pepper"',
    }
    with Image.open(out / "a dog & cat.png") as image:
        assert image.size == (8, 6)


def test_the_trigger_word_is_the_token_that_stays_in_front(table: Path, tmp_path: Path) -> None:
    export(table, tmp_path / "out", prefix="sks style", underscores="yes")
    for caption in sd_scripts(tmp_path / "out").values():
        kept, shuffled = tokens(caption, keep_tokens=1)
        assert kept == ["sks style"]
        assert all(" " not in tag for tag in shuffled)


@pytest.mark.parametrize(
    ("order", "caption"), [("probability", "b, c, A"), ("vocabulary", "c, b, A"), ("alphabetical", "A, b, c")]
)
def test_tags_are_in_the_order_that_was_asked_for(
    table: Path, root: Path, tmp_path: Path, order: str, caption: str
) -> None:
    entries = said("A", "yes", 0.6), said("b", "yes", 0.9), said("c", "yes", 0.7)
    export(labeled(table, root, ("c", "b", "A"), *entries), tmp_path / "out", order=order)
    assert list(sd_scripts(tmp_path / "out").values()) == [caption]


def test_separator_and_escapes_are_as_asked_for(table: Path, root: Path, tmp_path: Path) -> None:
    entries = said("cat (animal)", "yes", 0.6), said("a, b", "yes", 0.5)
    labeled(table, root, ("cat (animal)", "a, b"), *entries)
    export(table, tmp_path / "out", separator="; ", escape="yes")
    (caption,) = sd_scripts(tmp_path / "out").values()
    assert tokens(caption, separator=";") == ([], [r"cat \(animal\)", "a, b"])
    export(table, tmp_path / "spaced", separator=" ")
    assert list(sd_scripts(tmp_path / "spaced").values()) == ["cat_(animal) a,_b"]


def test_hostile_names_are_tags_of_one_line_and_two_that_are_alike_are_refused(
    table: Path, root: Path, tmp_path: Path
) -> None:
    names = tuple(name for name in HOSTILE if name != "\tcat")
    export(labeled(table, root, names, *(said(name, "yes", 0.5) for name in names)), tmp_path / "out")
    (caption,) = sd_scripts(tmp_path / "out").values()
    assert tokens(caption)[1] == [" ".join(name.replace(",", " ").split()) for name in names]
    with pytest.raises(UsageError, match=r"'\\tcat' is written like ' cat '"):
        export(labeled(table, root, (" cat ", "\tcat")), tmp_path / "alike")


@pytest.mark.parametrize("separator", ["", "\n", "a\nb"])
def test_a_separator_that_divides_nothing_is_refused(table: Path, tmp_path: Path, separator: str) -> None:
    with pytest.raises(UsageError, match="cannot stand between tags"):
        export(table, tmp_path / "out", separator=separator)


def test_two_images_of_one_name_have_captions_of_their_own(table: Path, root: Path, tmp_path: Path) -> None:
    (first, second, *_) = rows(root)
    twin = root / "a dog & cat.jpg"
    twin.write_bytes((root / second.uri).read_bytes())
    pair = [first, replace(second, image_id=twin.name, uri=twin.name)]
    write_table(table, open_table(table).info, pair)
    export(table, tmp_path / "out")
    assert sorted(sd_scripts(tmp_path / "out").values()) == ["", "cat, dog"]
    assert export(table, tmp_path / "alone", images="reference").left_out == {"shared_caption": 1}


def test_captions_alone_mirror_the_folders_of_the_images(table: Path, tmp_path: Path) -> None:
    export(table, tmp_path / "out", images="reference")
    found = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.txt")}
    assert {"a dog & cat.txt", "sub/human.txt"} <= found
    assert not list((tmp_path / "out").rglob("*.png"))


def test_splits_are_folders_and_links_are_the_images_themselves(table: Path, root: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"split": (("train", 0.5), ("val", 0.5)), "images": "link"}
    export_table(table, "captions", tmp_path / "out", ExportSettings(**settings))
    both = {**sd_scripts(tmp_path / "out/train"), **sd_scripts(tmp_path / "out/val")}
    assert len(both) == 4
    (linked,) = (tmp_path / "out").rglob("a dog & cat.png")
    assert linked.samefile(root / "a dog & cat.png")


def test_an_earlier_export_is_replaced_and_one_that_somebody_edited_is_not(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(table, out)
    export(table, out, order="vocabulary")
    edit_caption(out / "a dog & cat.txt", add="bird", remove="dog")
    before = content(out)
    with pytest.raises(UsageError, match=r"were edited: a dog & cat.txt"):
        export(table, out)
    assert content(out) == before
    edit_caption(out / "a dog & cat.txt", add="elephant")  # now the size of the folder is another one, too
    with pytest.raises(UsageError, match=r"were edited: a dog & cat.txt"):
        export(table, out)
    (out / "a dog & cat.txt").unlink()
    with pytest.raises(UsageError, match=r"were edited: a dog & cat.txt"):
        export(table, out)


@pytest.mark.parametrize("name", ["mine.txt", "captions.jsonl"])
def test_a_folder_of_somebody_is_refused(table: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("mine")
    with pytest.raises(UsageError, match="holds something else"):
        export(table, tmp_path / "out")


def test_unknown_options_and_values_are_refused_with_what_there_is(table: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no option 'seperator'") as found:
        export(table, tmp_path / "out", seperator=";")
    assert found.value.hint == "Did you mean separator?"
    with pytest.raises(UsageError, match="order=random") as found:
        export(table, tmp_path / "out", order="random")
    assert "alphabetical" in found.value.hint
