"""How one photo is set up: the light, the pill's pose and what it lies on, drawn at random."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from opslib.demo.backdrops import MAKERS, TILE_PX, Texture, backdrop
from opslib.demo.pills import PillKind
from opslib.demo.relief import HALF_LENGTH_PX, PROPORTIONS

_MATERIALS = tuple(sorted(MAKERS))
# Thickness of the straight side wall over the half width, for what is not round all over.
_WALL = {"chalk": 0.34, "film": 0.20, "gel": 0.0}


@dataclass(frozen=True)
class Light:
    """One lamp and the room's fill: direction, ambient share, shadow blur in px, tint, gain."""

    azimuth: float
    direction: tuple[float, float, float]
    ambient: float
    shadow_blur_px: float
    tint: NDArray[np.float32]
    exposure: float
    slant: float


@dataclass(frozen=True)
class Pose:
    """Where the pill lies in the picture, in picture pixels and radians."""

    centre: tuple[float, float]
    half_px: float
    wide_px: float
    turn: float
    squash: float
    tilt_axis: float
    wall_px: float

    @property
    def px_per_grid(self) -> float:
        """Picture pixels for one pixel of the relief's grid."""
        return self.half_px / HALF_LENGTH_PX

    @property
    def wall_shift(self) -> tuple[float, float]:
        """Where the foot of the side wall appears, relative to its top, in pixels."""
        lean = self.wall_px * math.sqrt(1.0 - self.squash**2)
        return -math.sin(self.tilt_axis) * lean, math.cos(self.tilt_axis) * lean

    def to_grid(self) -> NDArray[np.float64]:
        """The matrix [2, 2] from picture offsets to grid offsets."""
        c, s = math.cos(self.tilt_axis), math.sin(self.tilt_axis)
        axes = np.array([[c, s], [-s, c]])
        squash = axes.T @ np.diag([1.0, self.squash]) @ axes
        c, s = math.cos(self.turn), math.sin(self.turn)
        forward = squash @ np.array([[c, -s], [s, c]]) * self.px_per_grid
        return np.asarray(np.linalg.inv(forward), np.float64)


def draw_light(rng: np.random.Generator, size_px: int) -> Light:
    """A lamp from any side, between 35 and 60 degrees high, warm or cool."""
    azimuth = float(rng.uniform(0.0, 2 * math.pi))
    height = float(rng.uniform(0.60, 1.05))
    warmth = float(rng.normal(0.0, 0.06))
    tint = np.array([1.0 + warmth, 1.0, 1.0 - 1.3 * warmth]) + rng.normal(0.0, 0.012, 3)
    return Light(
        azimuth=azimuth,
        direction=(
            math.cos(height) * math.cos(azimuth),
            math.cos(height) * math.sin(azimuth),
            math.sin(height),
        ),
        ambient=float(rng.uniform(0.28, 0.55)),
        shadow_blur_px=float(rng.uniform(1.0, 4.5)) * size_px / 160,
        tint=tint.astype(np.float32),
        exposure=float(rng.uniform(0.76, 1.08)),
        slant=float(rng.uniform(0.02, 0.20)),
    )


def draw_pose(kind: PillKind, rng: np.random.Generator, size_px: int) -> Pose:
    """A place, turn and distance that keep the whole pill in the picture."""
    wide, fill = PROPORTIONS[kind.shape]
    half_px = fill / 2 * size_px * float(rng.uniform(0.91, 1.07))
    room = max(0.02, 0.47 - half_px / size_px) * 0.7
    return Pose(
        centre=(
            size_px * (0.5 + float(rng.uniform(-room, room))),
            size_px * (0.5 + float(rng.uniform(-room, room))),
        ),
        half_px=half_px,
        wide_px=half_px * wide,
        turn=float(rng.normal(0.0, 0.24)),
        squash=1.0 - float(rng.uniform(0.0, 0.11)),
        tilt_axis=float(rng.uniform(0.0, 2 * math.pi)),
        wall_px=half_px * wide * _WALL[kind.finish],
    )


def draw_ground(rng: np.random.Generator, size_px: int) -> tuple[str, Texture]:
    """A material and a cut of it, [size_px, size_px, 3] sRGB."""
    material = _MATERIALS[int(rng.integers(len(_MATERIALS)))]
    tile = backdrop(material)
    if rng.random() < 0.5:
        tile = tile.transpose(1, 0, 2)
    top, left = (int(v) for v in rng.integers(0, TILE_PX - size_px + 1, 2))
    return material, tile[top : top + size_px, left : left + size_px]
