"""The body of a pill kind as seen from above, and the textures that it may lie on."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import gaussian_filter

from opslib.demo.pills import PillKind

Field = NDArray[np.floating]

GRID_PX = 200
HALF_PX = 80.0
TILE_PX = 400
_INK = 0.006


class Shape(NamedTuple):
    """Half width over half length, the long axis' share of the picture, room for text."""

    width: float
    fill: float
    text_width: float = 1.0
    text_height: float = 0.84


class Finish(NamedTuple):
    """Shares of the half width (edge, rises, straight wall); gloss and its sharpness."""

    edge: float
    edge_rise: float
    dome_rise: float
    wall: float
    gloss: float
    sharpness: float


SHAPES = {
    "round": Shape(1.0, 0.74, 1.3),
    "oval": Shape(0.60, 0.86),
    "oblong": Shape(0.42, 0.88),
    "capsule": Shape(0.36, 0.90, 0.66, 0.5),
    "softgel": Shape(0.60, 0.80),
    "diamond": Shape(0.74, 0.86, 1.0, 0.72),
    "hexagon": Shape(0.90, 0.76, 1.3),
    "square": Shape(0.94, 0.66, 1.3),
}
FINISHES = {
    "chalk": Finish(0.05, 0.10, 0.10, 0.34, 0.05, 12.0),
    "film": Finish(0.09, 0.16, 0.26, 0.20, 0.28, 52.0),
    "gel": Finish(0.42, 0.92, 0.0, 0.0, 0.75, 110.0),
}
# sRGB, then noise as (sigma along, sigma across, strength), and the pitch of a weave; in pixels.
MATERIALS: dict[str, tuple[tuple[int, int, int], tuple[tuple[float, float, float], ...], float]] = {
    "paper": ((231, 229, 223), ((0.8, 0.8, 0.014), (9, 9, 0.012)), 0),
    "desk": ((135, 139, 144), ((0.7, 0.7, 0.02), (24, 24, 0.03)), 0),
    "wood": ((158, 115, 74), ((120, 4, 0.08), (16, 0.8, 0.04), (60, 1.4, 0.05)), 0),
    "walnut": ((98, 67, 45), ((120, 5, 0.10), (16, 0.8, 0.05), (60, 1.4, 0.05)), 0),
    "linen": ((186, 178, 162), ((1, 1, 0.05), (30, 30, 0.03)), 6),
    "denim": ((70, 86, 118), ((1, 1, 0.05), (30, 30, 0.03)), 5),
    "skin": ((205, 163, 140), ((2, 2, 0.015), (12, 3, 0.02), (45, 45, 0.045)), 0),
    "foil": ((168, 171, 176), ((0.8, 0.8, 0.015), (34, 34, 0.07)), 8),
    "tray": ((64, 118, 158), ((1.2, 1.2, 0.022), (30, 30, 0.03)), 0),
    "steel": ((158, 160, 161), ((70, 0.7, 0.035), (50, 50, 0.06)), 0),
}


class Body(NamedTuple):
    """What the lamp and the camera need of a kind, on a grid of `GRID_PX` a side. `colour` [3, ...]
    is linear reflectance, `normal` [3, ...] points out of the surface (x to the right, y down, z to
    the camera), `cover` is 1 inside the outline."""

    colour: Field
    normal: Field
    cover: Field


def _to_linear(srgb: NDArray[np.generic]) -> Field:
    """Linear light 0..1 of sRGB values 0..255 (gamma 2.2)."""
    return np.asarray((np.asarray(srgb, np.float32) / 255.0) ** 2.2, np.float32)


def _noise(seed: int, size_px: int, along_px: float, across_px: float) -> Field:
    """Smooth noise with unit variance, [size_px, size_px]."""
    white = np.random.default_rng(seed).standard_normal((size_px, size_px))
    field = gaussian_filter(white, (across_px, along_px), mode="wrap")
    return np.asarray(field / field.std(), np.float32)


@lru_cache(maxsize=64)
def backdrop(material: str) -> NDArray[np.uint8]:
    """One tile of a material, [TILE_PX, TILE_PX, 3] sRGB."""
    colour, layers, pitch_px = MATERIALS[material]
    seed = sorted(MATERIALS).index(material) * 10
    light = np.ones((TILE_PX, TILE_PX), np.float32)
    for place, (along_px, across_px, strength) in enumerate(layers):
        light += strength * _noise(seed + place, TILE_PX, along_px, across_px)
    if pitch_px:
        y, x = np.indices(light.shape) + _noise(seed + 9, TILE_PX, 12, 12)
        warp, weft = np.abs(np.sin(np.pi * x / pitch_px)), np.abs(np.sin(np.pi * y / pitch_px))
        over = np.sign(np.sin(np.pi * x / pitch_px) * np.sin(np.pi * y / pitch_px))
        thread = np.maximum(warp * (0.75 + 0.25 * over), weft * (0.75 - 0.25 * over))
        light += 0.36 * gaussian_filter(thread, 0.8) - 0.28
    return np.asarray(np.clip(light[..., None] * np.array(colour), 0, 255), np.uint8)


def cut_backdrop(rng: np.random.Generator, size_px: int) -> Field:
    """A cut of some material in linear light, [3, size_px, size_px]."""
    tile = backdrop(sorted(MATERIALS)[rng.integers(len(MATERIALS))])
    tile = tile.transpose((2, 0, 1) if rng.random() < 0.5 else (2, 1, 0))
    top, left = rng.integers(0, TILE_PX - size_px + 1, 2)
    return _to_linear(tile[:, top : top + size_px, left : left + size_px])


def _draw(kind: PillKind) -> tuple[Field, Field]:
    """The outline and the imprint of a kind, each 0..1."""
    shape = SHAPES[kind.shape]
    middle, wide = GRID_PX / 2, HALF_PX * shape.width
    left, top, right, bottom = middle - HALF_PX, middle - wide, middle + HALF_PX, middle + wide
    outline, imprint = (Image.new("L", (GRID_PX, GRID_PX)) for _ in range(2))
    draw = ImageDraw.Draw(outline)
    if kind.shape == "hexagon":
        draw.regular_polygon((middle, middle, HALF_PX), 6, rotation=30, fill=255)
    elif kind.shape == "diamond":
        corners = ((left, middle), (middle, top), (right, middle), (middle, bottom))
        draw.polygon(corners, fill=255)
    elif kind.shape in ("oval", "softgel"):
        draw.ellipse((left, top, right, bottom), fill=255)
    else:
        radius = wide * 0.25 if kind.shape == "square" else wide
        draw.rounded_rectangle((left, top, right, bottom), radius, fill=255)

    draw, upright = ImageDraw.Draw(imprint), kind.shape == "round"
    room, tall = HALF_PX * shape.text_width, wide * shape.text_height
    places = [(0.44 * HALF_PX if kind.shape == "capsule" else 0.0, 0.0)]
    if len(kind.imprint) == 2 and upright:
        room, tall, places = wide, wide * 0.48, [(0.0, -0.43 * wide), (0.0, 0.43 * wide)]
    elif len(kind.imprint) == 2:
        room, places = HALF_PX * 0.5, [(-0.46 * HALF_PX, 0.0), (0.46 * HALF_PX, 0.0)]
    for text, (x, y) in zip(kind.imprint, places, strict=False):
        span = ImageFont.load_default(100).getlength(text)
        font = ImageFont.load_default(min(tall * 1.32, 100 * room / span))
        at = (middle + x, middle + y)
        draw.text(at, text, font=font, fill=255, anchor="mm", stroke_width=1)
    if kind.score:
        ends = (left, middle, right, middle) if upright else (middle, top, middle, bottom)
        draw.line(ends, fill=255, width=5)
    return np.asarray(outline, np.float32) / 255, np.asarray(imprint, np.float32) / 255


@lru_cache(maxsize=64)
def shape_body(kind: PillKind) -> Body:
    """The body of a kind (cached)."""
    drawn, marks = _draw(kind)
    finish, wide_px = FINISHES[kind.finish], HALF_PX * SHAPES[kind.shape].width
    cover = np.clip(4.0 * gaussian_filter(drawn, 3.0) - 1.5, 0.0, 1.0)
    height = np.zeros_like(cover)
    for edge, rise in ((finish.edge, finish.edge_rise), (0.5, finish.dome_rise)):
        depth = np.clip(2.0 * gaussian_filter(cover, edge * wide_px) - 1.0, 0.0, 1.0)
        height += rise * wide_px * np.sqrt(1.0 - (1.0 - depth) ** 2)
    if kind.finish != "gel":
        height = gaussian_filter(height, 1.5) - 5.5 * gaussian_filter(marks, 1.1)
    if kind.finish == "chalk":
        height += 0.14 * _noise(11, GRID_PX, 1.6, 1.6)
    slope_y, slope_x = (np.clip(slope, -3.0, 3.0) for slope in np.gradient(height))
    upright = 1.0 / np.sqrt(1.0 + slope_x**2 + slope_y**2)
    normal = np.stack([-slope_x * upright, -slope_y * upright, upright])

    cap, rest = (_to_linear(np.array(kind.colours[end]))[:, None, None] for end in (0, -1))
    colour = np.where(np.arange(GRID_PX) < GRID_PX / 2 + 0.04 * HALF_PX, cap, rest)
    colour = np.broadcast_to(colour, normal.shape)
    if kind.finish == "gel":
        colour = colour + (_INK - colour) * 0.9 * marks
    else:
        colour = colour * (1.0 - 0.48 * gaussian_filter(marks, 2.0))
    return Body(*(np.asarray(layer, np.float32) for layer in (colour, normal, cover)))
