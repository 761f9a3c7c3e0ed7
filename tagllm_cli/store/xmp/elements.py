"""XML as elements that know where in the file they stand, for packets of XMP; nothing hostile is read."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from xml.parsers import expat

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
MOST_BYTES = 64 << 20  # develop settings with masks take some megabytes

START_TAG = re.compile(rb"""<([^\s/>]+)(?:"[^"]*"|'[^']*'|[^"'>])*>""")
_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class XmpError(ValueError):
    """A packet that cannot be read, or not edited without a guess. The text says why, in a phrase."""


@dataclass(slots=True)
class Element:
    """An element with its offsets: `[start, inner)` is the start tag, `[close, end)` the end tag."""

    name: str
    attributes: Mapping[str, str]
    start: int
    inner: int
    close: int = 0
    end: int = 0
    text: str = ""
    children: list[Element] = field(default_factory=list)

    @property
    def is_empty_tag(self) -> bool:
        """Whether it is written as `<name/>`."""
        return self.inner == self.end

    def named(self, *locals_: str) -> Iterator[Element]:
        """Yield the children of these names in RDF."""
        return (each for each in self.children if each.name in [f"{RDF} {local}" for local in locals_])

    def walk(self) -> Iterator[Element]:
        """Yield the element and all below it, in document order."""
        waiting = [self]
        while waiting:
            each = waiting.pop()
            yield each
            waiting += reversed(each.children)


def parsed(data: bytes) -> Element:
    """Return the root of an XML document. Raises XmpError for one that is broken, hostile or not in UTF-8."""
    if len(data) > MOST_BYTES:
        raise XmpError(f"it is larger than {MOST_BYTES >> 20} MiB")
    if data.startswith(_MARKS) or b"\0" in data[:256]:
        raise XmpError("it is not in UTF-8")
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    builder = _Builder(parser, data)
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise XmpError(f"it is not XML: {error}") from error
    return builder.root


class _Builder:
    """Makes elements with offsets of what expat reports."""

    def __init__(self, parser: expat.XMLParserType, data: bytes) -> None:
        self.root = Element("", {}, 0, 0)
        self._open = [self.root]
        self._parser, self._data = parser, data
        parser.XmlDeclHandler = self._declaration
        parser.StartDoctypeDeclHandler = self._doctype
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text

    def _declaration(self, _version: str, encoding: str | None, _standalone: int) -> None:
        if encoding and encoding.lower() not in ("utf-8", "utf8", "us-ascii"):
            raise XmpError(f"it is in {encoding}, not in UTF-8")

    def _doctype(self, *_: object) -> None:
        # Entities could stand for gigabytes, or for other files; no XMP needs one.
        raise XmpError("it declares a document type, which XMP never has")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        start = self._parser.CurrentByteIndex
        tag = START_TAG.match(self._data, start)
        if tag is None:
            raise XmpError(f"it is not XML at byte {start}")
        element = Element(name, attributes, start, tag.end())
        self._open[-1].children.append(element)
        self._open.append(element)

    def _end(self, _name: str) -> None:
        element = self._open.pop()
        if self._data[element.inner - 2 : element.inner] == b"/>":
            element.close = element.end = element.inner
        else:
            element.close = self._parser.CurrentByteIndex
            element.end = self._data.index(b">", element.close) + 1

    def _text(self, text: str) -> None:
        self._open[-1].text += text
