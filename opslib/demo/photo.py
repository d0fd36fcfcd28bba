"""One photograph of a pill: shading, shadow, lens, sensor and JPEG."""

from __future__ import annotations

import io
import math
import zlib
from functools import lru_cache

import numpy as np
from PIL import Image, ImageFilter

from opslib.demo.pills import PillKind
from opslib.demo.relief import GRID_PX, Field, Relief, shape_relief, to_linear
from opslib.demo.scene import Light, Pose, draw_ground, draw_light, draw_pose

IMAGE_SIZE_PX = 160
# Strength and sharpness of the reflection of the lamp.
_GLOSS = {"chalk": (0.05, 12.0), "film": (0.28, 52.0), "gel": (0.75, 110.0)}
_WRAP = 0.18
# Photos too blurred for the imprint, as any real set has: they keep accuracy below 100 %.
_MISFOCUSED_SHARE = 0.22
_STEPS = 4096
_LINEAR = to_linear(np.arange(256))
_ENCODED = (255.0 * (np.arange(_STEPS) / (_STEPS - 1)) ** (1 / 2.2)).astype(np.float32)


def photograph(
    kind: PillKind, *, seed: int, split: str, index: int, size_px: int = IMAGE_SIZE_PX
) -> bytes:
    """A JPEG of one pill, `size_px` square; the same arguments give the same bytes."""
    key = [seed, zlib.crc32(kind.name.encode()), zlib.crc32(split.encode()), index]
    rng = np.random.default_rng(key)
    return _encode(_expose(kind, rng, size_px), rng)


def _expose(kind: PillKind, rng: np.random.Generator, size_px: int) -> Field:
    """The light [3, size_px, size_px] that reaches the sensor."""
    material, texture = draw_ground(rng, size_px)
    shift = (rng.normal(1.0, 0.04, 3) * rng.uniform(0.82, 1.05)).astype(np.float32)
    light = draw_light(rng, size_px)
    pose = draw_pose(kind, rng, size_px)
    rows, columns = _frame(pose, size_px)
    body = _sample(shape_relief(kind), pose, rows, columns)
    cover = np.zeros((size_px, size_px), np.float32)
    cover[rows, columns] = np.clip(body.inside * pose.px_per_grid + 0.5, 0.0, 1.0)
    foot = _sweep(cover, pose.wall_shift)
    scene = _LINEAR[texture.transpose(2, 0, 1)] * shift[:, None, None]
    scene *= _falloff(light, size_px) * _shadow(foot, light, pose)
    if pose.wall_px:
        scene += (_wall(body, foot, light) - scene) * foot
    part = scene[:, rows, columns]
    part += (_shade(kind, body, light) - part) * cover[rows, columns]
    if material == "foil":
        part += _bubble(body.inside * pose.px_per_grid, light, float(rng.uniform(5.0, 9.0)))
    scene *= (light.tint * light.exposure)[:, None, None]
    return np.asarray(scene, np.float32)


def _frame(pose: Pose, size_px: int) -> tuple[slice, slice]:
    """The rows and columns of the picture that the pill can touch."""
    reach = pose.half_px * 1.19
    x, y = pose.centre
    return (
        slice(max(0, math.floor(y - reach)), min(size_px, math.ceil(y + reach))),
        slice(max(0, math.floor(x - reach)), min(size_px, math.ceil(x + reach))),
    )


def _sample(cells: Field, pose: Pose, rows: slice, columns: slice) -> Relief:
    """The body as the camera sees it in its frame: bilinear, slopes turned along."""
    back = pose.to_grid()
    x = np.arange(columns.start, columns.stop)[None, :] + 0.5 - pose.centre[0]
    y = np.arange(rows.start, rows.stop)[:, None] + 0.5 - pose.centre[1]
    middle, last = (GRID_PX - 1) / 2, GRID_PX - 1.001
    u = np.clip(back[0, 0] * x + back[0, 1] * y + middle, 0.0, last).astype(np.float32)
    v = np.clip(back[1, 0] * x + back[1, 1] * y + middle, 0.0, last).astype(np.float32)
    left, top = u.astype(np.int32), v.astype(np.int32)
    fx = (u - left.astype(np.float32))[..., None]
    fy = (v - top.astype(np.float32))[..., None]
    flat = cells.reshape(GRID_PX * GRID_PX, -1)
    at = top * GRID_PX + left
    upper = _blend(flat.take(at, axis=0), flat.take(at + 1, axis=0), fx)
    lower = _blend(flat.take(at + GRID_PX, axis=0), flat.take(at + GRID_PX + 1, axis=0), fx)
    seen = np.ascontiguousarray(_blend(upper, lower, fy).transpose(2, 0, 1))
    c, s = math.cos(pose.turn), math.sin(pose.turn)
    slope_x, slope_y = c * seen[1] - s * seen[2], s * seen[1] + c * seen[2]
    return Relief(seen[0], slope_x, slope_y, seen[3], seen[4], seen[5], seen[6])


def _blend(first: Field, second: Field, share: Field) -> Field:
    """`first` moved towards `second` by `share`; `second` is used up."""
    second -= first
    second *= share
    second += first
    return second


def _shade(kind: PillKind, body: Relief, light: Light) -> Field:
    """The light the body sends to the camera (wrapped Lambert, Blinn-Phong), [3, H, W]."""
    upright = 1.0 / np.sqrt(1.0 + body.slope_x**2 + body.slope_y**2)
    nx, ny = -body.slope_x * upright, -body.slope_y * upright
    lx, ly, lz = light.direction
    facing = np.maximum(nx * lx + ny * ly + upright * lz + _WRAP, 0.0) / (1.0 + _WRAP)
    open_sky = (0.45 + 0.55 * upright) * (1.0 - 0.30 * body.hollow)
    power = light.ambient * open_sky + (1.14 - 0.6 * light.ambient) * facing
    half = math.sqrt(lx * lx + ly * ly + (lz + 1.0) ** 2)
    mirror = np.maximum((nx * lx + ny * ly + upright * (lz + 1.0)) / half, 0.0)
    strength, sharpness = _GLOSS[kind.finish]
    glint = strength * (mirror**sharpness + 0.35 * (1.0 - upright) ** 3)
    if kind.shape == "softgel":
        power = power * np.clip(1.2 - (nx * lx + ny * ly) * 1.1 - upright * 0.5, 0.2, 2.0)
    return np.stack([layer * power + glint for layer in (body.red, body.green, body.blue)])


def _moved(image: Image.Image, shift: tuple[float, float]) -> Image.Image:
    """The image shifted by a fraction of pixels."""
    return image.transform(
        image.size,
        Image.Transform.AFFINE,
        (1, 0, -shift[0], 0, 1, -shift[1]),
        Image.Resampling.BILINEAR,
    )


def _sweep(cover: Field, shift: tuple[float, float]) -> Field:
    """The cover drawn along a shift: the outline of a body with a side wall."""
    length = math.hypot(*shift)
    if length < 0.3:
        return cover
    image, swept = Image.fromarray(cover), cover
    steps = max(2, math.ceil(length / 2.0))
    for step in range(1, steps + 1):
        part = (shift[0] * step / steps, shift[1] * step / steps)
        swept = np.maximum(swept, np.asarray(_moved(image, part)))
    return swept


def _wall(body: Relief, foot: Field, light: Light) -> Field:
    """The light of the side wall, [3, H, W]: the body's colour by how it faces the lamp."""
    soft = np.asarray(
        Image.fromarray((foot * 255.0).astype(np.uint8)).filter(ImageFilter.GaussianBlur(3.0)),
        np.float32,
    )
    down, right = np.gradient(soft)
    steep = np.hypot(down, right) + 1e-3
    facing = np.maximum(-(right * light.direction[0] + down * light.direction[1]) / steep, 0.0)
    power = 0.62 * light.ambient + 0.85 * facing
    middle = body.red.shape[0] // 2, body.red.shape[1] // 2
    near = tuple(slice(place - 9, place + 9) for place in middle)
    colour = [float(layer[near].max()) for layer in (body.red, body.green, body.blue)]
    return np.stack([tone * power for tone in colour]).astype(np.float32)


def _shadow(foot: Field, light: Light, pose: Pose) -> Field:
    """How much light the ground keeps around the pill, [H, W]."""
    solid = Image.fromarray((foot * 255.0).astype(np.uint8))
    reach = (pose.wide_px * 0.15 + pose.wall_px * 0.3) / light.direction[2]
    cast = _moved(solid, (-light.direction[0] * reach, -light.direction[1] * reach))
    cast = cast.filter(ImageFilter.GaussianBlur(light.shadow_blur_px))
    contact = solid.filter(ImageFilter.GaussianBlur(3.0 * foot.shape[0] / IMAGE_SIZE_PX))
    depth = (0.78 - 0.6 * light.ambient) / 255.0
    kept = 1.0 - depth * np.asarray(cast, np.float32)
    return np.asarray(kept * (1.0 - 0.34 / 255.0 * np.asarray(contact, np.float32)), np.float32)


def _falloff(light: Light, size_px: int) -> Field:
    """How the light falls off across the picture, with a little vignetting, [H, W]."""
    axis = np.linspace(-1.0, 1.0, size_px, dtype=np.float32)
    y, x = axis[:, None], axis[None, :]
    ramp = 1.0 + light.slant * (x * math.cos(light.azimuth) + y * math.sin(light.azimuth))
    return np.asarray(ramp * (1.0 - 0.09 * (x * x + y * y)), np.float32)


def _bubble(inside_px: Field, light: Light, gap_px: float) -> Field:
    """The reflections of the clear blister over the pill, [H, W]."""
    down, right = np.gradient(inside_px)
    toward = np.clip(-(right * light.direction[0] + down * light.direction[1]), 0.0, 1.0)
    rim = np.exp(-(((-inside_px - gap_px) / 1.7) ** 2))
    return np.asarray(rim * (0.06 + 0.50 * toward**2), np.float32)


@lru_cache(maxsize=1)
def _grain() -> Field:
    """A sheet of sensor noise with unit variance, [512, 512, 3], cut at random."""
    return np.random.default_rng(5).standard_normal((512, 512, 3)).astype(np.float32)


def _encode(scene: Field, rng: np.random.Generator) -> bytes:
    """The JPEG a phone would have written: tone curve, focus, noise, compression."""
    size_px = scene.shape[1]
    bright = scene * (0.88 + 0.12 * np.exp(-scene))
    steps = (np.clip(bright, 0.0, 1.0) * (_STEPS - 1)).astype(np.uint16)
    image = Image.fromarray(_ENCODED[steps].transpose(1, 2, 0).astype(np.uint8))
    focus = min(float(rng.gamma(2.0, 0.28)), 1.6)
    if rng.random() < _MISFOCUSED_SHARE:
        focus = float(rng.uniform(1.8, 4.2))
    image = image.filter(ImageFilter.GaussianBlur(focus * size_px / IMAGE_SIZE_PX))
    top, left = (int(v) for v in rng.integers(0, 512 - size_px + 1, 2))
    noise = _grain()[top : top + size_px, left : left + size_px]
    noisy = np.asarray(image, np.float32) + noise * float(rng.uniform(1.0, 6.0))
    buffer = io.BytesIO()
    final = Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))
    final.save(buffer, "JPEG", quality=int(rng.integers(72, 94)))
    return buffer.getvalue()
