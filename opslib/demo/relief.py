"""The body of a pill kind: relief, colour and gloss on a grid seen from above."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from opslib.demo.pills import PillKind

Field = NDArray[np.float32]

GRID_PX = 240
HALF_LENGTH_PX = 100.0
_INK = (0.10, 0.10, 0.12)

# Half width over half length, and how much of the picture the long axis fills.
PROPORTIONS: dict[str, tuple[float, float]] = {
    "round": (1.0, 0.74),
    "oval": (0.60, 0.86),
    "oblong": (0.42, 0.88),
    "capsule": (0.36, 0.90),
    "softgel": (0.60, 0.80),
    "diamond": (0.74, 0.86),
    "hexagon": (0.90, 0.76),
    "square": (0.94, 0.66),
}


class Relief(NamedTuple):
    """What the camera needs of a body: seven layers of one size, lengths in grid pixels.

    `inside` is the distance to the outline (positive inside), `slope_x`/`slope_y` the height's
    gradient, `red`/`green`/`blue` linear reflectance, `hollow` 0..1 where imprint or score lies.
    """

    inside: Field
    slope_x: Field
    slope_y: Field
    red: Field
    green: Field
    blue: Field
    hollow: Field


def to_linear(srgb: NDArray[np.generic]) -> Field:
    """Linear light 0..1 of sRGB values 0..255 (gamma 2.2)."""
    return np.asarray((np.asarray(srgb, np.float32) / 255.0) ** 2.2, np.float32)


def blur(field: Field, sigma_px: float) -> Field:
    """The field after a Gaussian blur (by FFT, so the edges wrap around)."""
    down = np.fft.fftfreq(field.shape[0])[:, None]
    right = np.fft.rfftfreq(field.shape[1])[None, :]
    gain = np.exp(-2.0 * (np.pi * sigma_px) ** 2 * (down**2 + right**2))
    return np.fft.irfft2(np.fft.rfft2(field) * gain, s=field.shape).astype(np.float32)


def _polygon_distance(
    x: Field, y: Field, corners: list[tuple[float, float]], round_px: float
) -> Field:
    """Distance (positive inside) to a convex polygon, corners rounded by a smooth minimum."""
    nearest = np.full_like(x, 1e6)
    for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1], strict=True):
        length = float(np.hypot(bx - ax, by - ay))
        side = ((x - ax) * (ay - by) + (y - ay) * (bx - ax)) / length
        overlap = np.maximum(round_px - np.abs(nearest - side), 0.0) / round_px
        nearest = (np.minimum(nearest, side) - overlap**2 * round_px * 0.25).astype(np.float32)
    return nearest


def _outline(kind: PillKind, x: Field, y: Field) -> tuple[Field, float]:
    """Distance to the outline in grid pixels, and the half width."""
    long_px = HALF_LENGTH_PX
    wide_px = long_px * PROPORTIONS[kind.shape][0]
    if kind.shape in ("oblong", "capsule"):
        radius = np.full_like(x, wide_px)
        if kind.shape == "capsule":
            radius = np.where(x > 0.04 * long_px, wide_px * 0.94, wide_px).astype(np.float32)
        run = np.maximum(np.abs(x) - (long_px - wide_px), 0.0)
        return (radius - np.hypot(run, y)).astype(np.float32), wide_px
    if kind.shape in ("round", "oval", "softgel"):
        level = np.hypot(x / long_px, y / wide_px)
        steep = np.hypot(x / long_px**2, y / wide_px**2) / np.maximum(level, 1e-3)
        distance = (1.0 - level) / np.maximum(steep, 1e-4)
        return np.minimum(distance, wide_px).astype(np.float32), wide_px
    if kind.shape == "diamond":
        corners = [
            (long_px * 1.06, 0.0),
            (0.0, wide_px * 1.06),
            (-long_px * 1.06, 0.0),
            (0.0, -wide_px * 1.06),
        ]
        return _polygon_distance(x, y, corners, 34.0), wide_px * 0.82
    sides = 6 if kind.shape == "hexagon" else 4
    reach = long_px * (1.0 if sides == 6 else 1.22)
    turn = 0.0 if sides == 6 else np.pi / 4
    corners = [
        (
            reach * float(np.cos(turn + 2 * np.pi * i / sides)),
            reach * float(np.sin(turn + 2 * np.pi * i / sides)),
        )
        for i in range(sides)
    ]
    return _polygon_distance(x, y, corners, 26.0), wide_px * 0.86


def _height(kind: PillKind, inside: Field, wide_px: float) -> Field:
    """Height above the table's plane in grid pixels, before imprint."""
    share = np.clip(inside / wide_px, 0.0, 1.0)
    if kind.shape in ("capsule", "softgel"):
        return np.asarray(wide_px * 0.92 * np.sqrt(1.0 - (1.0 - share) ** 2), np.float32)
    dome = 0.26 if kind.finish == "film" else 0.13
    edge_px = wide_px * (0.16 if kind.finish == "film" else 0.10)
    edge = np.clip(inside / edge_px, 0.0, 1.0)
    rounded = edge_px * 0.9 * np.sqrt(1.0 - (1.0 - edge) ** 2)
    height = wide_px * dome * (1.0 - (1.0 - share) ** 2) + rounded
    return blur(height.astype(np.float32), 4.0 if kind.finish == "film" else 2.2)


@lru_cache(maxsize=1)
def font_path() -> Path:
    """Where the imprint's typeface lies (it travels with matplotlib)."""
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans-Bold.ttf"


def _write_line(
    draw: ImageDraw.ImageDraw, text: str, centre: tuple[float, float], width: float, height: float
) -> None:
    """Write one line of text as large as its box allows, centred."""
    size = height * 1.32
    font = ImageFont.truetype(str(font_path()), size)
    span = font.getlength(text)
    if span > width:
        font = ImageFont.truetype(str(font_path()), size * width / span)
    draw.text(centre, text, font=font, fill=255, anchor="mm")


def _imprint(kind: PillKind, wide_px: float) -> Field:
    """Depth 0..1 of the imprint's characters."""
    fine = 3
    image = Image.new("L", (GRID_PX * fine, GRID_PX * fine), 0)
    draw = ImageDraw.Draw(image)
    middle, wide, long_ = GRID_PX * fine / 2, wide_px * fine, HALF_LENGTH_PX * fine
    if len(kind.imprint) == 2 and kind.shape == "round":
        for text, place in zip(kind.imprint, (-0.43, 0.43), strict=True):
            _write_line(draw, text, (middle, middle + place * wide), wide * 1.0, wide * 0.52)
    elif len(kind.imprint) == 2:
        for text, place in zip(kind.imprint, (-0.46, 0.46), strict=True):
            _write_line(draw, text, (middle + place * long_, middle), long_ * 0.5, wide * 0.9)
    elif kind.shape == "capsule":
        _write_line(
            draw, kind.imprint[0], (middle + 0.44 * long_, middle), long_ * 0.66, wide * 0.50
        )
    elif kind.imprint:
        room = 1.30 if kind.shape in ("round", "hexagon", "square") else 1.0
        tall = 0.72 if kind.shape == "diamond" else 0.84
        _write_line(draw, kind.imprint[0], (middle, middle), long_ * room, wide * tall)
    small = image.resize((GRID_PX, GRID_PX), Image.Resampling.BOX)
    return np.asarray(small, np.float32) / 255.0


def _score(kind: PillKind, x: Field, y: Field) -> Field:
    """Depth 0..1 of the break line."""
    if not kind.score:
        return np.zeros_like(x)
    across = y if kind.shape == "round" else x
    return np.asarray(np.exp(-((across / 3.4) ** 2)), np.float32)


def _colour(kind: PillKind, x: Field, hollow: Field, ink: Field) -> Field:
    """Linear reflectance [3, GRID_PX, GRID_PX]."""
    tones = [to_linear(np.array(colour)) for colour in kind.colours]
    share = np.clip((x - 0.04 * HALF_LENGTH_PX) + 0.5, 0.0, 1.0) if len(tones) == 2 else 0.0 * x
    colour = tones[0][:, None, None] * (1.0 - share) + tones[-1][:, None, None] * share
    noise = np.random.default_rng(7).standard_normal(x.shape).astype(np.float32)
    if kind.speckled:
        spots = blur(noise, 1.5)
        spots = np.clip((spots / spots.std() - 1.5) * 2.0, 0.0, 1.0)
        colour = colour * (1.0 - 0.55 * spots)
    if kind.finish == "chalk":
        colour = colour * (1.0 + 0.055 * blur(noise, 1.1) * 3.0)
    colour = colour * (1.0 - (0.52 if kind.finish == "film" else 0.42) * hollow)
    dark = np.array(_INK, np.float32)[:, None, None] ** 2.2
    return np.asarray(colour * (1.0 - 0.9 * ink) + dark * 0.9 * ink, np.float32)


@lru_cache(maxsize=64)
def shape_relief(kind: PillKind) -> Field:
    """The body of a kind, [GRID_PX, GRID_PX, 7] in the order of `Relief` (cached)."""
    axis = np.arange(GRID_PX, dtype=np.float32) - (GRID_PX - 1) / 2
    y, x = np.meshgrid(axis, axis, indexing="ij")
    inside, wide_px = _outline(kind, x, y)
    height = _height(kind, inside, wide_px)
    letters = _imprint(kind, wide_px)
    printed = kind.shape == "capsule"
    pressed = np.zeros_like(x) if printed else np.maximum(letters, _score(kind, x, y))
    ink = letters if printed else np.zeros_like(x)
    soft = 1.3 if kind.finish == "film" else 1.1
    sunk = blur(pressed, soft)
    height = height - 6.5 * sunk
    if kind.finish == "chalk":
        grain = np.random.default_rng(11).standard_normal(x.shape).astype(np.float32)
        height = height + 0.9 * blur(grain, 1.6)
    slope_y, slope_x = np.gradient(height)
    red, green, blue = _colour(kind, x, blur(pressed, 2.0), ink)
    limit = 3.0
    slope_x = np.asarray(np.clip(slope_x, -limit, limit), np.float32)
    slope_y = np.asarray(np.clip(slope_y, -limit, limit), np.float32)
    layers = Relief(inside, slope_x, slope_y, red, green, blue, sunk)
    return np.ascontiguousarray(np.stack(layers, axis=-1), np.float32)
