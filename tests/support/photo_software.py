"""Photo software: exiftool itself, sidecars as other programs write them, and changes as people make them."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

MISSING = "exiftool is not installed: apt-get install libimage-exiftool-perl"

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"

# As Lightroom Classic writes it beside a raw file: properties as attributes, develop settings, a tone curve.
LIGHTROOM = """<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="Adobe XMP Core 7.0-c000 1.000000">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
    xmlns:xmp="http://ns.adobe.com/xap/1.0/"
    xmlns:dc="http://purl.org/dc/elements/1.1/"
    xmlns:lr="http://ns.adobe.com/lightroom/1.0/"
    xmlns:crs="http://ns.adobe.com/camera-raw-settings/1.0/"
   xmp:Rating="4"
   xmp:Label="Red"
   xmp:MetadataDate="2026-05-01T12:30:15+02:00"
   crs:Version="17.2"
   crs:Exposure2012="+0.35"
   crs:HasSettings="True">
   <dc:subject>
    <rdf:Bag>
{flat}
    </rdf:Bag>
   </dc:subject>
   <lr:hierarchicalSubject>
    <rdf:Bag>
{paths}
    </rdf:Bag>
   </lr:hierarchicalSubject>
   <crs:ToneCurvePV2012>
    <rdf:Seq>
     <rdf:li>0, 0</rdf:li>
     <rdf:li>255, 255</rdf:li>
    </rdf:Seq>
   </crs:ToneCurvePV2012>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
"""

# As digiKam 8 writes it through Exiv2: packet marks, TagsList as a Seq, other programs' copies of the keywords.
DIGIKAM = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="XMP Core 4.4.0-Exiv2">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
    xmlns:digiKam="http://www.digikam.org/ns/1.0/"
    xmlns:dc="http://purl.org/dc/elements/1.1/"
    xmlns:lr="http://ns.adobe.com/lightroom/1.0/"
    xmlns:mwg-rs="http://www.metadataworkinggroup.com/schemas/regions/"
    xmlns:stArea="http://ns.adobe.com/xmp/sType/Area#"
    xmlns:xmp="http://ns.adobe.com/xap/1.0/"
   digiKam:PickLabel="3"
   xmp:Rating="5">
   <digiKam:TagsList>
    <rdf:Seq>
{digikam}
    </rdf:Seq>
   </digiKam:TagsList>
   <dc:subject>
    <rdf:Bag>
{flat}
    </rdf:Bag>
   </dc:subject>
   <lr:hierarchicalSubject>
    <rdf:Bag>
{paths}
    </rdf:Bag>
   </lr:hierarchicalSubject>
   <mwg-rs:Regions rdf:parseType="Resource">
    <mwg-rs:RegionList>
     <rdf:Bag>
      <rdf:li>
       <rdf:Description
        mwg-rs:Name="Anna"
        mwg-rs:Type="Face">
       <mwg-rs:Area
        stArea:x="0.4"
        stArea:y="0.3"
        stArea:w="0.1"
        stArea:h="0.15"
        stArea:unit="normalized"/>
       </rdf:Description>
      </rdf:li>
     </rdf:Bag>
    </mwg-rs:RegionList>
   </mwg-rs:Regions>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>"""

# As darktable 4 writes it: an XML declaration, keywords as Seq, the history stack.
DARKTABLE = """<?xml version="1.0" encoding="UTF-8"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="XMP Core 4.4.0-Exiv2">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
    xmlns:xmp="http://ns.adobe.com/xap/1.0/"
    xmlns:dc="http://purl.org/dc/elements/1.1/"
    xmlns:lr="http://ns.adobe.com/lightroom/1.0/"
    xmlns:darktable="http://darktable.sf.net/"
   xmp:Rating="1"
   darktable:xmp_version="5"
   darktable:raw_params="0"
   darktable:history_end="1">
   <darktable:masks_history>
    <rdf:Seq/>
   </darktable:masks_history>
   <darktable:history>
    <rdf:Seq>
     <rdf:li
      darktable:num="0"
      darktable:operation="exposure"
      darktable:params="gz02eJxjYGBgYAFiCQYYOOHEgAZY0QWAgBGLGANDgz0Ej1Q+dcF/IADRAGpyHQU="
      darktable:multi_name=""/>
    </rdf:Seq>
   </darktable:history>
   <dc:subject>
    <rdf:Seq>
{flat}
    </rdf:Seq>
   </dc:subject>
   <lr:hierarchicalSubject>
    <rdf:Seq>
{paths}
    </rdf:Seq>
   </lr:hierarchicalSubject>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
"""

STYLES = {"lightroom": LIGHTROOM, "digikam": DIGIKAM, "darktable": DARKTABLE}


def sidecar(style: str, *paths: Sequence[str]) -> bytes:
    """A sidecar as a program writes it, with keywords as paths: ("animal", "cat")."""

    def items(texts: Sequence[str]) -> str:
        return "\n".join(f"     <rdf:li>{escape(text)}</rdf:li>" for text in texts)

    flat = items([path[-1] for path in paths])
    digikam, lightroom = (items([mark.join(path) for path in paths]) for mark in "/|")
    filled = STYLES[style].replace("{flat}", flat).replace("{paths}", lightroom).replace("{digikam}", digikam)
    return filled.encode()


def exiftool(*arguments: str | Path) -> str:
    """Run exiftool and return what it prints; a warning is an error. File names are never read as options."""
    assert shutil.which("exiftool"), MISSING
    done = subprocess.run(
        ["exiftool", "-charset", "filename=utf8", *map(str, arguments)],
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr, done.stderr
    return done.stdout


def metadata(path: Path) -> dict[str, Any]:
    """All that exiftool reads of a file, as `group:tag`, lists included, but for the file's own times and sizes."""
    (found,) = json.loads(exiftool("-json", "-struct", "-a", "-G1", "-n", path))
    own = ("SourceFile", "ExifTool:", "System:", "File:")
    return {key: value for key, value in found.items() if not key.startswith(own)}


def keywords(path: Path) -> list[list[str]]:
    """What exiftool reads of a file's keywords: flat, Lightroom's paths, digiKam's paths."""
    found = metadata(path)
    values = (found.get(f"XMP-{name}", []) for name in ("dc:Subject", "lr:HierarchicalSubject", "digiKam:TagsList"))
    return [[str(each) for each in value] if isinstance(value, list) else [str(value)] for value in values]


def problems(path: Path) -> str:
    """What `exiftool -validate` has to say against a file: "" if nothing."""
    text = exiftool("-validate", "-warning", "-error", "-a", "-s3", path).strip()
    return "" if text == "OK" else text


def add_keyword(path: Path, name: str, *above: str) -> None:
    """Add a keyword to a sidecar (or an image's own XMP) as digiKam does: flat and as a path of either kind."""
    parts = [*above, name]
    exiftool(
        "-q",
        "-overwrite_original",
        f"-XMP-dc:Subject+={name}",
        f"-XMP-lr:HierarchicalSubject+={'|'.join(parts)}",
        f"-XMP-digiKam:TagsList+={'/'.join(parts)}",
        path,
    )


def remove_keyword(path: Path, name: str, *above: str) -> None:
    """Take a keyword out of a sidecar as digiKam does: from all three properties."""
    parts = [*above, name]
    exiftool(
        "-q",
        "-overwrite_original",
        f"-XMP-dc:Subject-={name}",
        f"-XMP-lr:HierarchicalSubject-={'|'.join(parts)}",
        f"-XMP-digiKam:TagsList-={'/'.join(parts)}",
        path,
    )


def edit_caption(path: Path, *, add: str = "", remove: str = "", separator: str = ",") -> None:
    """Change the tags of a caption file as a person does in an editor."""
    tags = [tag.strip() for tag in path.read_text(encoding="utf-8").split(separator)]
    kept = [tag for tag in tags if tag and tag != remove]
    path.write_text(f"{separator} ".join([*kept, *([add] if add else [])]) + "\n", encoding="utf-8")
