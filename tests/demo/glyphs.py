"""The glyph atlas: `glyphs.png`, one 112-pixel RGBA cell per thing, so that drawing needs no font.

Made once from Debian's package fonts-noto-color-emoji by `python -m tests.demo.glyphs`. The pictures are Noto Emoji
by Google: images under Apache-2.0, the font under the SIL Open Font License 1.1.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from tests.demo.things import ALIKE, THINGS

CELL = 112
_COLUMNS = 10
_ATLAS = Path(__file__).with_name("glyphs.png")
_DEBIAN_FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
_STRIKE = 109  # the only size that the bitmap font has
_LEVELS = (112, 80, 56, 40, 28)  # sides of the ready-made reductions, so that a small thing is never aliased


def make_atlas(font_file: Path, out: Path) -> None:
    """Draw every thing's glyph, its longer side filling the cell, and write the atlas as PNG to `out`."""
    font = ImageFont.truetype(str(font_file), _STRIKE)
    rows = -(-len(THINGS) // _COLUMNS)
    atlas = Image.new("RGBA", (_COLUMNS * CELL, rows * CELL))
    for index, thing in enumerate(THINGS.values()):
        sheet = Image.new("RGBA", (200, 200))
        # Without the variation selector every Pillow finds the glyph, also one built without text shaping.
        ImageDraw.Draw(sheet).text((20, 20), thing.glyph.replace("\ufe0f", ""), font=font, embedded_color=True)
        drawn = sheet.crop(sheet.getbbox())
        if drawn.size == sheet.size or max(drawn.size) < CELL // 2:
            raise ValueError(f"{thing.id}: the font has no glyph for {thing.glyph!r}")
        scale = CELL / max(drawn.size)
        drawn = drawn.resize((round(drawn.width * scale), round(drawn.height * scale)), Image.Resampling.LANCZOS)
        left, top = _corner(index)
        atlas.paste(drawn, (left + (CELL - drawn.width) // 2, top + (CELL - drawn.height) // 2))
    atlas.save(out, optimize=True)


def _corner(index: int) -> tuple[int, int]:
    return index % _COLUMNS * CELL, index // _COLUMNS * CELL


@lru_cache(maxsize=1)
def _cells() -> Mapping[str, Image.Image]:
    with Image.open(_ATLAS) as atlas:
        # Premultiplied alpha: transparent pixels must not lend their colour to edges when a glyph is blended or scaled.
        sheet = atlas.convert("RGBA").convert("RGBa")
    corners = {thing_id: _corner(index) for index, thing_id in enumerate(THINGS)}
    return {key: sheet.crop((x, y, x + CELL, y + CELL)) for key, (x, y) in corners.items()}


@lru_cache(maxsize=8)
def sprites(alike: float) -> Mapping[str, tuple[Image.Image, ...]]:
    """Every thing's picture as square premultiplied "RGBa" images, largest first.

    `alike`, 0 to 0.5, is how far each look-alike is cross-faded towards its partner; at 0.5 the two are one picture.
    """
    cells = dict(_cells())
    for first, second in ALIKE:
        one, other = cells[first], cells[second]
        cells[first], cells[second] = Image.blend(one, other, alike), Image.blend(other, one, alike)
    return {key: tuple(cell.resize((n, n), Image.Resampling.BOX) for n in _LEVELS) for key, cell in cells.items()}


def sprite(thing_id: str, alike: float, side: float) -> Image.Image:
    """The smallest ready-made picture of a thing that is at least `side` pixels wide (the largest if none is)."""
    levels = sprites(alike)[thing_id]
    return next((image for image in reversed(levels) if image.width >= side), levels[0])


def main() -> None:
    """Make the committed atlas anew."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--font", type=Path, default=_DEBIAN_FONT, help="NotoColorEmoji.ttf")
    parser.add_argument("--out", type=Path, default=_ATLAS)
    options = parser.parse_args()
    make_atlas(options.font, options.out)


if __name__ == "__main__":
    main()
