"""CVAT's XML: tags that people set, tags that were only uploaded, tasks, jobs and projects."""

from __future__ import annotations

import zipfile
from io import BytesIO
from pathlib import Path

import pytest

from tagllm_cli.errors import UsageError
from tagllm_cli.evaluation.human_labels.base import CheckedImage, Statement
from tagllm_cli.evaluation.human_labels.readers import cvat
from tagllm_cli.evaluation.human_labels.registry import read_human_labels
from tests.evaluation.human_labels.reading import TABLE, by_image, read
from tests.support.annotation_tools import DECIDED_AT, cvat_image, cvat_tag, cvat_xml

LABELS = ["cat", "dog", '<"&>']


def zipped(xml: str, *names: str) -> bytes:
    data = BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names or ("annotations.xml",):
            archive.writestr(name, xml)
    return data.getvalue()


def test_what_a_person_tagged_is_said_and_what_was_uploaded_is_kept(tmp_path: Path) -> None:
    tags = cvat_tag("cat") + cvat_tag("dog", "file") + cvat_tag('<"&>', "semi-auto")
    images = cvat_image(0, "a/one.jpg", tags) + cvat_image(1, "a/two.jpg", cvat_tag("dog", "auto"))
    found = read(tmp_path, cvat_xml(LABELS, images))
    assert found.statements == [Statement("a/one.jpg", label, "yes", "ann", DECIDED_AT) for label in ("cat", '<"&>')]
    assert by_image(found.kept) == {"a/one.jpg": {"dog": "yes"}, "a/two.jpg": {"dog": "yes"}}
    assert found.checked == [CheckedImage(name, "ann", DECIDED_AT) for name in ("a/one.jpg", "a/two.jpg")]
    assert (found.form, found.names, found.warnings) == ("CVAT for images 1.1", tuple(LABELS), ())


def test_versions_that_wrote_annotation_type_are_read(tmp_path: Path) -> None:
    tags = (cvat_tag("cat") + cvat_tag("dog", "auto")).replace("source=", "annotation_type=")
    found = read(tmp_path, cvat_xml(LABELS, cvat_image(0, "a/one.jpg", tags)))
    assert by_image(found.statements) == {"a/one.jpg": {"cat": "yes"}}
    assert by_image(found.kept) == {"a/one.jpg": {"dog": "yes"}}


def test_a_decision_in_the_attribute_counts(tmp_path: Path) -> None:
    decisions = {"yes": "yes", "no": "no", "unknown": "unknown", "proposed": "kept", "unclear": "kept"}
    tags = "".join(cvat_tag(name, "file", score="0.5", decision=name) for name in decisions)
    found = read(tmp_path, cvat_xml([*decisions], cvat_image(0, "a/one.jpg", tags)))
    assert by_image(found.statements) == {"a/one.jpg": {"yes": "yes", "no": "no", "unknown": "unknown"}}
    assert by_image(found.kept) == {"a/one.jpg": {"proposed": "yes", "unclear": "unknown"}}


def test_shapes_that_people_drew_name_labels(tmp_path: Path) -> None:
    box = '<box label="cat" source="manual" occluded="0" xtl="0" ytl="0" xbr="1" ybr="1" z_order="0"></box>'
    found = read(tmp_path, cvat_xml(LABELS, cvat_image(0, "a/one.jpg", box + box)))
    assert by_image(found.statements) == {"a/one.jpg": {"cat": "yes"}}


def test_parts_of_skeletons_are_no_labels(tmp_path: Path) -> None:
    xml = cvat_xml(LABELS, cvat_image(0, "a/one.jpg", cvat_tag("cat")))
    part = "<label><name>nose</name><type>points</type><parent>cat</parent></label>"
    assert read(tmp_path, xml.replace("</labels>", f"{part}</labels>")).names == tuple(LABELS)


def test_a_zip_a_folder_and_the_file_say_the_same(tmp_path: Path) -> None:
    xml = cvat_xml(LABELS, cvat_image(0, "a/one.jpg", cvat_tag("cat")))
    plain = read(tmp_path, xml, "plain.xml")
    assert read(tmp_path, zipped(xml), "task.zip") == plain
    assert read(tmp_path, zipped(xml, "task_5/annotations.xml", "task_5/images/a/one.jpg"), "backup.zip") == plain
    read(tmp_path, xml, "folder/annotations.xml")

    assert read_human_labels(tmp_path / "folder", table=TABLE) == plain


def test_a_job_has_its_assignee_and_without_one_its_owner(tmp_path: Path) -> None:
    images = cvat_image(0, "a/one.jpg", cvat_tag("cat"))
    assert [each.who for each in read(tmp_path, cvat_xml(LABELS, images, unit="job")).statements] == ["ann"]
    assert [each.who for each in read(tmp_path, cvat_xml(LABELS, images, assignee="")).statements] == ["admin"]


def project(*images: str) -> str:
    """A project with two tasks, by two people."""
    tasks = "".join(
        f"<task><id>{number}</id><name>t{number}</name><mode>annotation</mode><subset>default</subset>"
        f"<updated>2026-11-2{number} 10:00:00+00:00</updated><owner><username>admin</username></owner>"
        f"<assignee><username>{who}</username></assignee></task>"
        for number, who in ((7, "ann"), (8, "bea"))
    )
    labels = "".join(f"<label><name>{name}</name><attributes></attributes></label>" for name in ("cat", "dog"))
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version><meta><project><id>1</id>'
        f"<name>p</name><created>2026-11-20 10:00:00+00:00</created><labels>{labels}</labels><tasks>{tasks}</tasks>"
        f"</project><dumped>2026-11-30 10:00:00+00:00</dumped></meta>{''.join(images)}</annotations>"
    )


def test_a_project_says_who_and_when_by_task(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        project(
            cvat_image(0, "a/one.jpg", cvat_tag("cat"), subset="default", task_id="7"),
            cvat_image(0, "a/one.jpg", "", subset="default", task_id="8"),
            cvat_image(1, "a/two.jpg", cvat_tag("dog"), subset="default", task_id="8"),
        ),
    )
    day = 86_400_000_000
    start = DECIDED_AT - 250_000 - 28 * day
    assert found.checked == [
        CheckedImage("a/one.jpg", "ann", start + 27 * day),
        CheckedImage("a/one.jpg", "bea", start + 28 * day),
        CheckedImage("a/two.jpg", "bea", start + 28 * day),
    ]
    assert [(each.image, each.label, each.who) for each in found.statements] == [
        ("a/one.jpg", "cat", "ann"),
        ("a/two.jpg", "dog", "bea"),
    ]


def test_a_file_that_nobody_touched_says_so(tmp_path: Path) -> None:
    found = read(tmp_path, cvat_xml(LABELS, cvat_image(0, "a/one.jpg", cvat_tag("cat", "file"))))
    assert found.warnings == ("nobody has set or changed a tag in this file",)


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        (cvat_xml(LABELS, cvat_image(0, "a", ""), version="1.0"), "is of version 1.0, and 1.1 is read"),
        ('<annotations count="1"><image id="0" name="a"></image></annotations>', "is of version 1.0"),
        (cvat_xml(LABELS, '<track id="0" label="cat"></track>'), "tracks of a video, and no images"),
        (cvat_xml(LABELS, '<image id="0"></image>'), "has no name"),
        (cvat_xml(LABELS, cvat_image(0, "a", cvat_tag("cat")))[:-80], "not XML"),
        (cvat_xml(LABELS, "") + "<!-- <!ENTITY a 'b'> -->", "declares a document type or entities"),
        (f'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>{cvat_xml(LABELS, "")[38:]}', "declares a document"),
    ],
)
def test_other_versions_videos_and_broken_or_dangerous_xml_are_refused(tmp_path: Path, xml: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        read(tmp_path, xml)
    assert error.value.hint


def test_a_bomb_of_entities_is_not_opened(tmp_path: Path) -> None:
    levels = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 12))
    bomb = f'<?xml version="1.0"?><!DOCTYPE annotations [<!ENTITY e0 "ha">{levels}]><annotations>&e11;</annotations>'
    for text in (bomb, bomb.encode("utf-16")):
        with pytest.raises(UsageError, match="declares a document type or entities"):
            read(tmp_path, text, "annotations.xml")
    with pytest.raises(UsageError, match="declares a document type or entities"):
        read(tmp_path, zipped(bomb), "a.zip")


def test_a_zip_that_is_cut_off_or_holds_several_tasks_is_refused(tmp_path: Path) -> None:
    xml = cvat_xml(LABELS, cvat_image(0, "a/one.jpg", cvat_tag("cat")))
    with pytest.raises(UsageError, match="not a zip that can be read") as error:
        read(tmp_path, zipped(xml)[:-30])
    assert "download it again" in error.value.hint
    with pytest.raises(UsageError, match=r"holds 2 files named annotations\.xml"):
        read(tmp_path, zipped(xml, "1/annotations.xml", "2/annotations.xml"))


def test_a_zip_of_something_else_is_no_cvat(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="neither JSON, Parquet nor a text"):
        read(tmp_path, zipped("hello", "notes.txt"))


def test_a_zip_that_would_fill_the_memory_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    xml = cvat_xml(LABELS, cvat_image(0, "a/one.jpg", cvat_tag("cat")))
    monkeypatch.setattr(cvat, "_LARGEST", len(xml.encode()) - 1)
    with pytest.raises(UsageError, match=r"annotations\.xml in this zip has more than") as error:
        read(tmp_path, zipped(xml))
    assert error.value.hint == "Unzip it, and name it."


def test_a_label_and_its_image_keep_their_markup(tmp_path: Path) -> None:
    found = read(tmp_path, cvat_xml(LABELS, cvat_image(0, 'a/<"&>.jpg', cvat_tag('<"&>'))))
    assert by_image(found.statements) == {'a/<"&>.jpg': {'<"&>': "yes"}}
