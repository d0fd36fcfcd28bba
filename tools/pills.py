"""Write the picture of the demo's pills in the README: every kind with two photos, labelled."""

from __future__ import annotations

import io
import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from opslib.demo.photo import photograph
from opslib.demo.pills import KINDS, DemoSize

PICTURE = Path(__file__).parents[1] / "docs" / "img" / "pills.png"
COLUMNS, SAMPLES, PHOTO_PX, GAP_PX, LABEL_PX, FONT_PX = 13, 2, 90, 4, 34, 13


def draw_sheet() -> Image.Image:
    """The photos of the validation set, reduced to 256 colours to keep the file small."""
    wide, tall = PHOTO_PX + GAP_PX, LABEL_PX + SAMPLES * (PHOTO_PX + GAP_PX) + GAP_PX
    sheet = Image.new("RGB", (COLUMNS * wide, -(-len(KINDS) // COLUMNS) * tall), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(FONT_PX)
    for place, kind in enumerate(KINDS):
        left, top = place % COLUMNS * wide, place // COLUMNS * tall
        shape, _, rest = kind.name.partition("-")
        draw.text((left, top), shape, font=font, fill=(40, 44, 52))
        draw.text((left, top + FONT_PX + 2), rest, font=font, fill=(112, 118, 128))
        for index in range(SAMPLES):
            data = photograph(kind, seed=DemoSize.seed, split="val", index=index)
            photo = Image.open(io.BytesIO(data)).resize((PHOTO_PX, PHOTO_PX))
            sheet.paste(photo, (left, top + LABEL_PX + index * wide))
    return sheet.quantize(256, kmeans=3)


if __name__ == "__main__":
    draw_sheet().save(sys.argv[1] if len(sys.argv) > 1 else PICTURE, optimize=True)
