"""A contact sheet of the demo's pills: every class with a few photos, labelled."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from opslib.core.files import write_bytes_atomic
from opslib.demo.photo import photograph
from opslib.demo.pills import KINDS, PillKind
from opslib.demo.relief import font_path

_INK, _FAINT, _PAPER = (40, 44, 52), (112, 118, 128), (255, 255, 255)
_GAP_PX, _LABEL_PX, _MARGIN_PX, _FONT_PX = 4, 34, 12, 12


def contact_sheet(
    path: Path,
    *,
    kinds: tuple[PillKind, ...] = KINDS,
    samples: int = 2,
    columns: int = 13,
    photo_px: int = 90,
    seed: int = 20240,
    split: str = "val",
) -> Path:
    """Write a PNG with the first `samples` photos of each class under its name; return the path.

    The photos are reduced to `photo_px` and the sheet to 256 colours, to keep the file small.
    """
    rows = -(-len(kinds) // columns)
    cell_w = photo_px + _GAP_PX
    cell_h = _LABEL_PX + samples * (photo_px + _GAP_PX) + _MARGIN_PX
    wide = min(columns, len(kinds)) * cell_w - _GAP_PX + 2 * _MARGIN_PX
    sheet = Image.new("RGB", (wide, rows * cell_h + _MARGIN_PX), _PAPER)
    draw = ImageDraw.Draw(sheet)
    bold = ImageFont.truetype(str(font_path()), _FONT_PX)
    plain = ImageFont.truetype(str(font_path().with_name("DejaVuSans.ttf")), _FONT_PX)
    for place, kind in enumerate(kinds):
        left = _MARGIN_PX + place % columns * cell_w
        top = _MARGIN_PX + place // columns * cell_h
        shape, _, rest = kind.name.partition("-")
        draw.text((left, top), shape, font=bold, fill=_INK)
        draw.text((left, top + 15), rest, font=plain, fill=_FAINT)
        for index in range(samples):
            data = photograph(kind, seed=seed, split=split, index=index)
            photo = Image.open(io.BytesIO(data)).resize(
                (photo_px, photo_px), Image.Resampling.LANCZOS
            )
            sheet.paste(photo, (left, top + _LABEL_PX + index * (photo_px + _GAP_PX)))
    reduced = sheet.quantize(256, kmeans=3, dither=Image.Dither.FLOYDSTEINBERG)
    buffer = io.BytesIO()
    reduced.save(buffer, "PNG", optimize=True)
    write_bytes_atomic(path, buffer.getvalue())
    return path
