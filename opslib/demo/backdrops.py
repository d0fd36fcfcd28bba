"""What the pills lie on: paper, wood, cloth, skin, trays and foil, as textures."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from opslib.demo.relief import Field, blur

Texture = NDArray[np.uint8]
TILE_PX = 400


def _noise(rng: np.random.Generator, sigma_px: float) -> Field:
    """Smooth noise with unit variance, [TILE_PX, TILE_PX]."""
    field = blur(rng.standard_normal((TILE_PX, TILE_PX)).astype(np.float32), sigma_px)
    return np.asarray(field / field.std(), np.float32)


def _streaks(rng: np.random.Generator, along_px: float, across_px: float) -> Field:
    """Unit-variance noise drawn out along the horizontal axis."""
    down = np.fft.fftfreq(TILE_PX)[:, None] * across_px
    right = np.fft.rfftfreq(TILE_PX)[None, :] * along_px
    gain = np.exp(-2.0 * np.pi**2 * (down**2 + right**2))
    white = rng.standard_normal((TILE_PX, TILE_PX))
    field = np.fft.irfft2(np.fft.rfft2(white) * gain, s=(TILE_PX, TILE_PX))
    return np.asarray(field / field.std(), np.float32)


def _bytes(colours: NDArray[np.generic]) -> Texture:
    """Colours 0..255 as bytes, what lies outside cut off."""
    return np.asarray(np.clip(colours, 0, 255), np.uint8)


def _tint(light: Field, colour: tuple[int, int, int]) -> Texture:
    """A texture of one colour whose brightness follows `light` (1 is the colour itself)."""
    return _bytes(light[..., None] * np.array(colour, np.float32))


def _grid() -> tuple[Field, Field]:
    axis = np.arange(TILE_PX, dtype=np.float32)
    y, x = np.meshgrid(axis, axis, indexing="ij")
    return x, y


def _paper(rng: np.random.Generator) -> Texture:
    light = 0.97 + 0.014 * _noise(rng, 0.8) + 0.012 * _noise(rng, 9.0)
    return _tint(light, (238, 236, 230))


def _desk(rng: np.random.Generator) -> Texture:
    light = 0.9 + 0.02 * _noise(rng, 0.7) + 0.03 * _noise(rng, 24.0)
    return _tint(light, (150, 154, 160))


def _wood(rng: np.random.Generator) -> Texture:
    _, y = _grid()
    drift = _streaks(rng, 120.0, 14.0)
    rings = np.sin(y * 0.13 + 3.2 * drift) * 0.5 + np.sin(y * 0.41 + 5.0 * drift) * 0.22
    pores = np.minimum(_streaks(rng, 16.0, 0.8), 0.0)
    light = 0.9 + 0.085 * rings + 0.05 * pores + 0.04 * _streaks(rng, 60.0, 1.4)
    return _tint(light, (176, 128, 82))


def _walnut(rng: np.random.Generator) -> Texture:
    return _bytes(_wood(rng) * np.array((0.62, 0.58, 0.60), np.float32))


def _weave(rng: np.random.Generator, colour: tuple[int, int, int], pitch_px: float) -> Texture:
    x, y = _grid()
    x = x + 1.0 * _noise(rng, 12.0)
    y = y + 1.0 * _noise(rng, 12.0)
    turn = 2 * np.pi / pitch_px
    warp = np.abs(np.sin(turn * x / 2)) * (
        0.75 + 0.25 * np.sign(np.sin(turn * x / 2) * np.sin(turn * y / 2))
    )
    weft = np.abs(np.sin(turn * y / 2)) * (
        0.75 - 0.25 * np.sign(np.sin(turn * x / 2) * np.sin(turn * y / 2))
    )
    thread = np.maximum(warp, weft)
    light = 0.62 + 0.36 * blur(thread.astype(np.float32), 0.8) + 0.05 * _noise(rng, 1.0)
    return _tint(light + 0.03 * _noise(rng, 30.0), colour)


def _linen(rng: np.random.Generator) -> Texture:
    return _weave(rng, (206, 198, 180), 6.0)


def _denim(rng: np.random.Generator) -> Texture:
    return _weave(rng, (78, 96, 132), 5.0)


def _skin(rng: np.random.Generator) -> Texture:
    """A palm: mottled, with fine crossed ridges and a few soft creases."""
    x, y = _grid()
    bend = 5.0 * _noise(rng, 40.0)
    ridges = np.sin((x * 0.42 + y * 0.9 + bend) * 1.15) * (0.5 + 0.5 * _noise(rng, 10.0))
    light = 0.95 + 0.014 * ridges + 0.02 * _noise(rng, 2.0) + 0.045 * _noise(rng, 45.0)
    for _ in range(3):
        slope, place = rng.uniform(-0.4, 0.4), rng.uniform(0.0, TILE_PX)
        away = y - place - slope * x - 2.0 * bend + 0.8 * _noise(rng, 3.0)
        depth = np.clip(0.5 + 0.5 * _noise(rng, 40.0), 0.1, 1.0)
        light = light - depth * (
            0.07 * np.exp(-((away / 2.4) ** 2)) + 0.06 * np.exp(-((away / 11.0) ** 2))
        )
    texture = light[..., None] * np.array((216, 172, 148), np.float32)
    flush = _noise(rng, 26.0)
    texture[..., 0] += 2.5 * flush
    texture[..., 1] -= 3.0 * flush
    return _bytes(texture)


def _foil(rng: np.random.Generator) -> Texture:
    """The aluminium side of a blister: a fine knurl that glints unevenly."""
    x, y = _grid()
    x = x + 0.8 * _noise(rng, 14.0)
    knurl = np.cos((x + y) * 0.62) + np.cos((x - y) * 0.62)
    sheen = _noise(rng, 34.0)
    light = 0.80 + 0.075 * knurl * (0.7 + 0.5 * sheen) + 0.07 * sheen + 0.015 * _noise(rng, 0.8)
    return _tint(light, (196, 199, 205))


def _tray(rng: np.random.Generator) -> Texture:
    """A pharmacist's counting tray: blue moulded plastic."""
    light = 0.92 + 0.022 * _noise(rng, 1.2) + 0.03 * _noise(rng, 30.0)
    return _tint(light, (70, 128, 172))


def _steel(rng: np.random.Generator) -> Texture:
    light = 0.84 + 0.035 * _streaks(rng, 70.0, 0.7) + 0.06 * _noise(rng, 50.0)
    return _tint(light, (188, 190, 192))


def _marble(rng: np.random.Generator) -> Texture:
    drift = 1.2 * _noise(rng, 26.0) + 0.5 * _noise(rng, 9.0)
    veins = np.exp(-((np.sin(2.2 * drift) / 0.10) ** 2)) * np.clip(_noise(rng, 30.0), 0.0, 1.2)
    light = 0.97 - 0.17 * blur(veins.astype(np.float32), 1.0) + 0.02 * _noise(rng, 18.0)
    return _tint(light, (232, 232, 234))


MAKERS: dict[str, Callable[[np.random.Generator], Texture]] = {
    "paper": _paper,
    "desk": _desk,
    "wood": _wood,
    "walnut": _walnut,
    "linen": _linen,
    "denim": _denim,
    "skin": _skin,
    "foil": _foil,
    "tray": _tray,
    "steel": _steel,
    "marble": _marble,
}


@lru_cache(maxsize=64)
def backdrop(material: str) -> Texture:
    """One tile of a material, [TILE_PX, TILE_PX, 3] sRGB; it repeats without a seam's jump."""
    index = sorted(MAKERS).index(material)
    return MAKERS[material](np.random.default_rng([2024, index]))
