"""One packet: arrays are read and edited, every other byte stays."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagllm_cli.store.xmp.elements import RDF, XmpError
from tagllm_cli.store.xmp.packet import EMPTY_PACKET, Name, Packet
from tests.support.photo_software import STYLES, sidecar

SUBJECT = Name("http://purl.org/dc/elements/1.1/", "subject", "dc")
TAGS = Name("http://www.digikam.org/ns/1.0/", "TagsList", "digiKam", "Seq")


def packet(properties: str, rdf: str = "rdf") -> bytes:
    inner = f"<{rdf}:Description {rdf}:about='x' xmlns:dc='{SUBJECT.uri}'>{properties}</{rdf}:Description>"
    return f"<{rdf}:RDF xmlns:{rdf}='{RDF}'>{inner}</{rdf}:RDF>".encode()


def edited(data: bytes, *values: str) -> bytes:
    new = Packet(data).edited({SUBJECT: values})
    assert Packet(new).values(SUBJECT) == list(values)
    return new


@pytest.mark.parametrize("style", STYLES)
def test_only_the_edited_array_differs_in_a_sidecar_of_each_program(style: str) -> None:
    before = sidecar(style, ("animal", "cat"), ("Anna & Bo",))
    after = edited(before, "cat", "Anna & Bo", "new <1>")
    assert after.replace(b"\n     <rdf:li>new &lt;1&gt;</rdf:li>", b"") == before
    assert edited(after, "cat", "Anna & Bo") == before


@pytest.mark.parametrize("style", STYLES)
def test_a_property_that_is_taken_out_leaves_the_rest_as_it_was(style: str) -> None:
    before = sidecar(style, ("cat",))
    after = edited(before)
    start, end = before.index(b"\n   <dc:subject>"), before.index(b"</dc:subject>") + len(b"</dc:subject>")
    assert after == before[:start] + before[end:]


TWICE = (
    "<dc:subject><rdf:Bag><rdf:li>cat</rdf:li><rdf:li>cow</rdf:li></rdf:Bag></dc:subject>"
    "<dc:subject><rdf:Bag><rdf:li>cow</rdf:li><rdf:li>dog</rdf:li></rdf:Bag></dc:subject>"
)


@pytest.mark.parametrize(
    "form",
    [
        "",
        "<dc:subject/>",
        "<dc:subject></dc:subject>",
        "<dc:subject>cat</dc:subject>",
        "<dc:subject><rdf:Bag/></dc:subject>",
        "<dc:subject><rdf:Bag></rdf:Bag></dc:subject>",
        "<dc:subject><rdf:Seq rdf:nodeID='>/'><rdf:li>cat</rdf:li><rdf:li>dog</rdf:li></rdf:Seq></dc:subject>",
        "<dc:subject><rdf:Alt><rdf:li xml:lang='en'>cat</rdf:li></rdf:Alt></dc:subject>",
        "<dc:subject><rdf:Bag><rdf:li>cat</rdf:li></rdf:Bag></dc:subject><dc:subject>dog</dc:subject>",
        TWICE,
    ],
)
@pytest.mark.parametrize("prefix", ["rdf", "R"])
def test_every_way_to_write_an_array_is_edited(form: str, prefix: str) -> None:
    before = packet(form.replace("rdf:", f"{prefix}:"), prefix)
    for values in ([], ["cat"], ["dog"], ["cat", "dog"], ["cat", "dog", "bird & co"]):
        after = Packet(before).edited({SUBJECT: values})
        assert sorted(Packet(after).values(SUBJECT)) == sorted(values)
        assert Packet(Packet(after).edited({SUBJECT: []})).values(SUBJECT) == []


def test_a_packet_without_a_description_gets_one_about_the_same() -> None:
    for empty in (EMPTY_PACKET, f"<r:RDF xmlns:r='{RDF}'/>".encode(), f"<r:RDF xmlns:r='{RDF}'></r:RDF>".encode()):
        assert b'rdf:about=""' in edited(empty, "cat")
    assert b'rdf:about="x"\n' in Packet(packet("")).edited({TAGS: ["cat"]})


def test_a_value_with_qualifiers_is_a_value_and_a_structure_is_none() -> None:
    qualified = "<rdf:li rdf:parseType='Resource'><rdf:value>cat</rdf:value><dc:type>x</dc:type></rdf:li>"
    structure = "<rdf:li rdf:parseType='Resource'><dc:type>x</dc:type></rdf:li>"
    before = packet(f"<dc:subject><rdf:Bag>{qualified}{structure}</rdf:Bag></dc:subject>")
    assert Packet(before).values(SUBJECT) == ["cat"]
    after = edited(before, "cat", "dog")
    assert qualified.encode() in after
    assert structure.encode() in after


def test_keywords_of_a_region_are_not_those_of_the_photograph() -> None:
    inner = "<rdf:Description><dc:subject><rdf:Bag><rdf:li>face</rdf:li></rdf:Bag></dc:subject></rdf:Description>"
    assert Packet(packet(f"<dc:relation>{inner}</dc:relation>")).values(SUBJECT) == []


def test_a_property_as_an_attribute_is_read_and_not_edited() -> None:
    data = f"<r:RDF xmlns:r='{RDF}' xmlns:dc='{SUBJECT.uri}'><r:Description dc:subject='cat'/></r:RDF>".encode()
    assert Packet(data).values(SUBJECT) == ["cat"]
    with pytest.raises(XmpError, match="dc:subject is an attribute"):
        Packet(data).edited({SUBJECT: ["dog"]})


@pytest.mark.parametrize(
    "form",
    [
        "<dc:subject rdf:parseType='Resource'><rdf:value>mine</rdf:value><dc:type>x</dc:type></dc:subject>",
        "<dc:subject><rdf:Description><rdf:value><rdf:Bag/></rdf:value><dc:type>x</dc:type></rdf:Description></dc:subject>",
        "<dc:subject rdf:resource='https://mine'/>",
        "<dc:subject rdf:parseType='Collection'><rdf:Description rdf:about='mine'/></dc:subject>",
    ],
)
def test_a_property_that_holds_more_than_keywords_is_not_written_anew(form: str) -> None:
    for values in (["cat"], []):
        with pytest.raises(XmpError, match="dc:subject has more in it than keywords"):
            Packet(packet(form)).edited({SUBJECT: values})


def test_a_new_description_is_about_what_the_others_are_about_whatever_their_attributes_say() -> None:
    data = packet("").replace(b"rdf:about='x'", b"""dc:title="all about='dogs'" rdf:about='a&amp;b'""")
    assert b'rdf:about="a&amp;b"\n' in edited(data, "cat")


BOMB = "".join(f"<!ENTITY e{n + 1} '{f'&e{n};' * 10}'>" for n in range(9))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "not XML"),
        (b"\xff\xd8\xff\xe0JFIF", "not XML"),
        (b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>", "no rdf:RDF"),
        (packet("<dc:subject>")[:-30], "not XML"),
        (packet("").decode().encode("utf-16"), "not in UTF-8"),
        (b"<?xml version='1.0' encoding='latin-1'?>" + packet(""), "in latin-1, not in UTF-8"),
        (f"<!DOCTYPE x [<!ENTITY e0 'x'>{BOMB}]><x>&e9;</x>".encode(), "document type"),
        (b"<!DOCTYPE x SYSTEM 'file:///etc/passwd'><x/>", "document type"),
        (packet("<dc:subject>&other;</dc:subject>"), "not XML"),
        (packet("<dc:subject>\xe4</dc:subject>").decode().encode("latin-1"), "not XML"),
    ],
)
def test_what_is_no_packet_of_xmp_is_refused_with_the_reason(data: bytes, why: str) -> None:
    with pytest.raises(XmpError, match=why):
        Packet(data)


def test_deep_nesting_ends_neither_the_program_nor_the_reading() -> None:
    deep = "<dc:a>" * 20_000 + "</dc:a>" * 20_000
    assert edited(packet(deep), "cat")


TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=9).map(
    lambda text: text.replace("\ufffe", "").replace("\uffff", "") or "x"
)


@given(st.lists(TEXTS, unique=True, max_size=5), st.lists(TEXTS, unique=True, max_size=5))
def test_any_text_comes_back_as_it_was(first: list[str], second: list[str]) -> None:
    data = edited(EMPTY_PACKET, *first)
    new = Packet(data).edited({SUBJECT: second, TAGS: first})
    assert sorted(Packet(new).values(SUBJECT)) == sorted(second)
    assert Packet(new).values(TAGS) == first
