"""One XMP packet: its array properties are read and edited, and every other byte stays as it is.

An XML library would write the whole packet anew, in its own quotes and line breaks. Photo software keeps develop
settings of hours of work in these files, so that what is edited is cut out by the offsets that expat reports. The
syntax is that of the XMP specification, part 1 (ISO 16684-1), clause 7: properties are children of the
`rdf:Description` elements of one `rdf:RDF`, and an array is an `rdf:Bag`, `rdf:Seq` or `rdf:Alt` of `rdf:li`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape, quoteattr

from tagllm_cli.store.xmp.elements import RDF, START_TAG, Element, XmpError, parsed

EMPTY_PACKET = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="tagllm">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>
""".encode()

_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, production 2
_ESCAPES = {"\r": "&#13;"}  # a plain one would be read as a line feed


class Name(NamedTuple):
    """A property: the URI of its namespace, its local name, prefix and kind of array of a new element."""

    uri: str
    local: str
    prefix: str
    array: str = "Bag"

    @property
    def expanded(self) -> str:
        """The name as expat reports it."""
        return f"{self.uri} {self.local}"


class Splice(NamedTuple):
    """Bytes `start` to `end` of the packet become `new`."""

    start: int
    end: int
    new: bytes


def can_hold(text: str) -> bool:
    """Return whether XML can hold a text: it has no way to write control characters, not even as references."""
    return _FORBIDDEN.search(text) is None


class Packet:
    """A packet of XMP in UTF-8, in memory. Raises XmpError for what is none.

    >>> Packet(EMPTY_PACKET).values(Name("http://purl.org/dc/elements/1.1/", "subject", "dc"))
    []
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        roots = [each for each in parsed(data).walk() if each.name == f"{RDF} RDF"]
        if not roots:
            raise XmpError("it has no rdf:RDF element")
        self._rdf = roots[0]

    def values(self, name: Name) -> list[str]:
        """Return the texts of an array property, in their order; of a simple property its one value."""
        found = [value for each in self._elements(name) for value in _texts(each)]
        return found + [value for each in self._descriptions() if (value := each.attributes.get(name.expanded, ""))]

    def edited(self, changes: Mapping[Name, Sequence[str]]) -> bytes:
        """Return the packet in which each array property has these values; the elements of those that stay are kept.

        A property without values is taken out. New values come last, new properties into a description of their own.
        """
        splices: list[Splice] = []
        missing: dict[Name, Sequence[str]] = {}
        for name, values in changes.items():
            elements = self._elements(name)
            if any(name.expanded in each.attributes for each in self._descriptions()):
                raise XmpError(f"{name.prefix}:{name.local} is an attribute in it, which holds one value only")
            if any(not _is_plain(each) for each in elements):
                raise XmpError(f"{name.prefix}:{name.local} has more in it than keywords")
            if elements:
                splices += self._changed(name, elements, values)
            elif values:
                missing[name] = values
        if missing:
            splices.append(self._description(missing))
        data = self.data
        for splice in sorted(splices, key=lambda each: (each.start, each.end), reverse=True):
            data = data[: splice.start] + splice.new + data[splice.end :]
        return data

    def _descriptions(self) -> Iterator[Element]:
        return self._rdf.named("Description")

    def _elements(self, name: Name) -> list[Element]:
        return [each for one in self._descriptions() for each in one.children if each.name == name.expanded]

    def _changed(self, name: Name, elements: Sequence[Element], values: Sequence[str]) -> Iterator[Splice]:
        """Yield what gives a property these values. Where it stands several times, which XMP forbids, it is united."""
        boxes = {number: box for number, each in enumerate(elements) if (box := _box(each)) is not None}
        main = next(iter(boxes), 0)
        for number, element in enumerate(elements):
            if number == main:
                continue
            if number in boxes and any(_text_of(item) is None for item in boxes[number].children):
                raise XmpError(f"{name.prefix}:{name.local} stands in it more than once")
            yield self._without(element)
        if main not in boxes:  # nothing in it, or one value without an array
            yield self._whole(elements[main], name, values)
            return
        items = [(each, _text_of(each)) for each in boxes[main].named("li")]
        gone = [each for each, text in items if text is not None and text not in values]
        new = [value for value in values if value not in [text for _, text in items]]
        if len(gone) == len(boxes[main].children) and not new:
            yield self._without(elements[main])
        else:
            yield from (self._without(each) for each in gone)
            yield from self._appended(boxes[main], new)

    def _whole(self, element: Element, name: Name, values: Sequence[str]) -> Splice:
        if not values:
            return self._without(element)
        new = _array(name, values, self._indent(element))
        declared = f'<{name.prefix}:{name.local} xmlns:{name.prefix}="{name.uri}" xmlns:rdf="{RDF}">'.encode()
        return Splice(element.start, element.end, declared + new.partition(b">")[2])

    def _without(self, element: Element) -> Splice:
        before = self.data[: element.start]
        return Splice(len(before.rstrip()) if before.rstrip().endswith(b">") else element.start, element.end, b"")

    def _indent(self, element: Element) -> str:
        line = self.data[: element.start].rpartition(b"\n")[2]
        return line.decode("utf-8") if not line.strip() else ""

    def _appended(self, box: Element, values: Sequence[str]) -> Iterator[Splice]:
        if not values:
            return
        tag = _raw_name(self.data, box)
        item = re.sub(r"[^:]+$", "li", tag)
        last = box.children[-1] if box.children else None
        gap = f"\n{self._indent(last) if last else f'{self._indent(box)} '}"
        new = "".join(f"{gap}<{item}>{_escaped(value)}</{item}>" for value in values)
        if box.is_empty_tag:
            opened = re.sub(rb"\s*/>$", b">", self.data[box.start : box.inner])
            yield Splice(box.start, box.end, opened + f"{new}\n{self._indent(box)}</{tag}>".encode())
        elif last is None:
            yield Splice(box.inner, box.close, f"{new}\n{self._indent(box)}".encode())
        else:
            yield Splice(last.end, last.end, new.encode())

    def _description(self, properties: Mapping[Name, Sequence[str]]) -> Splice:
        """Return the splice that puts properties into a description of their own, about what the others are about."""
        first = next(self._descriptions(), None)
        about = quoteattr(first.attributes.get(f"{RDF} about", "") if first else "")
        indent = f"{self._indent(self._rdf)} "
        tag = _raw_name(self.data, self._rdf)
        declared = {} if tag == "rdf:RDF" else {"rdf": RDF}
        declared |= {name.prefix: name.uri for name in properties}
        lines = [f"{indent}<rdf:Description rdf:about={about}"]
        lines += [f'{indent}  xmlns:{prefix}="{uri}"' for prefix, uri in declared.items()]
        arrays = b"".join(
            f"\n{indent} ".encode() + _array(name, values, f"{indent} ") for name, values in properties.items()
        )
        new = "\n".join(lines).encode() + b">" + arrays + f"\n{indent}</rdf:Description>".encode()
        if self._rdf.is_empty_tag:
            opened = re.sub(rb"\s*/>$", b">", self.data[self._rdf.start : self._rdf.inner])
            return Splice(self._rdf.start, self._rdf.end, opened + b"\n" + new + f"\n</{tag}>".encode())
        last = self._rdf.children[-1].end if self._rdf.children else self._rdf.inner
        return Splice(last, last, b"\n" + new)


def _array(name: Name, values: Sequence[str], indent: str) -> bytes:
    tag, box = f"{name.prefix}:{name.local}", f"rdf:{name.array}"
    items = "".join(f"\n{indent}  <rdf:li>{_escaped(value)}</rdf:li>" for value in values)
    return f"<{tag}>\n{indent} <{box}>{items}\n{indent} </{box}>\n{indent}</{tag}>".encode()


def _escaped(value: str) -> str:
    return escape(value, _ESCAPES)


def _raw_name(data: bytes, element: Element) -> str:
    found = START_TAG.match(data, element.start)
    assert found is not None  # expat has read it
    return found[1].decode()


def _box(element: Element) -> Element | None:
    return next(element.named("Bag", "Seq", "Alt"), None)


def _is_plain(element: Element) -> bool:
    """Return whether a property is an array, a text or empty: anything else would be lost if it were written anew."""
    if element.children:
        return element.children == [_box(element)]
    return not any(each.startswith(f"{RDF} ") for each in element.attributes)  # rdf:resource, rdf:parseType


def _texts(element: Element) -> list[str]:
    """Return the values of a property: those of its array, or its own text."""
    boxes = list(element.named("Bag", "Seq", "Alt"))
    if not boxes:
        return [element.text.strip()] if not element.children and element.text.strip() else []
    return [text for box in boxes for each in box.named("li") if (text := _text_of(each)) is not None]


def _text_of(item: Element) -> str | None:
    """Return the text of a value, with qualifiers (`rdf:value` beside others) or without; None for a structure."""
    if not item.children:
        return item.text
    inner = next(item.named("Description"), item)
    return next((each.text for each in inner.named("value") if not each.children), None)
