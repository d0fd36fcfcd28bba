"""Photographs of pills: pose, light, shadow, lens, sensor and JPEG, all drawn at random; and the
demo's image set, `train/<class>/*.jpg` and `val/<class>/*.jpg`."""

import io
import math
import multiprocessing
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from opslib.core.errors import storage_errors
from opslib.core.host import usable_cpus
from opslib.demo.body import FINISHES, GRID_PX, HALF_PX, SHAPES, Field, cut_backdrop, shape_body
from opslib.demo.pills import DemoSize, PillKind

IMAGE_SIZE_PX = 160
Direction = tuple[float, float, float]
Random = np.random.Generator
_WRAP = 0.18
_ALONE_BELOW = 300
# Photos too blurred for the imprint, as any real set has: they keep accuracy below 100 %.
_MISFOCUSED_SHARE = 0.22


def render_dataset(
    data_root: Path, size: DemoSize, on_image: Callable[[int, int], None] | None = None
) -> int:
    """Write all images of the demo under `data_root` and return how many there are. Each image
    depends on the seed, its class, split and number alone, not on the order or the number of
    processes. `on_image` is called with (images done, images in all). Raises StorageError: the
    folder cannot be written or the disk is full."""
    counts = {"train": size.train_per_class, "val": size.val_per_class}
    jobs = [
        (data_root / split / kind.name, kind, size.seed, split, count)
        for kind in size.kinds
        for split, count in counts.items()
    ]
    total, done = sum(counts.values()) * len(size.kinds), 0
    # A fresh interpreter per process: this one may hold threads, which a fork would break.
    context = multiprocessing.get_context("spawn")
    with storage_errors(f"write images under {data_root}"), ExitStack() as stack:
        run: Callable[..., Iterator[int]] = map
        if total >= _ALONE_BELOW:
            run = stack.enter_context(ProcessPoolExecutor(usable_cpus(), mp_context=context)).map
        for count in run(_render_folder, *zip(*jobs, strict=True)):
            done += count
            if on_image is not None:
                on_image(done, total)
    return done


def _render_folder(folder: Path, kind: PillKind, seed: int, split: str, count: int) -> int:
    """Write one class of one split and return how many images that is."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        data = photograph(kind, seed=seed, split=split, index=index)
        (folder / f"{split}-{index:04d}.jpg").write_bytes(data)
    return count


def photograph(
    kind: PillKind, *, seed: int, split: str, index: int, size_px: int = IMAGE_SIZE_PX
) -> bytes:
    """A JPEG of one pill, `size_px` square; the same arguments give the same bytes."""
    key = [seed, zlib.crc32(kind.name.encode()), zlib.crc32(split.encode()), index]
    rng = np.random.default_rng(key)
    return _develop(_expose(kind, rng, size_px), rng)


def _expose(kind: PillKind, rng: Random, size_px: int) -> Field:
    """The light [3, size_px, size_px] that reaches the sensor."""
    around, high = rng.uniform(0.0, 2 * math.pi), rng.uniform(0.60, 1.05)
    toward = (math.cos(high) * math.cos(around), math.cos(high) * math.sin(around), math.sin(high))
    ambient = rng.uniform(0.28, 0.55)
    shape, finish = SHAPES[kind.shape], FINISHES[kind.finish]
    half_px = shape.fill / 2 * size_px * rng.uniform(0.91, 1.07)
    turn, squash = rng.normal(0.0, 0.24), 1.0 - rng.uniform(0.0, 0.11)
    spare = max(0.02, 0.47 - half_px / size_px) * 0.7
    centre = size_px * (0.5 + rng.uniform(-spare, spare, 2))
    c, s, scale = math.cos(turn), math.sin(turn), half_px / HALF_PX
    back = np.array([[c, s / squash], [-s, c / squash]]) / scale
    offset = GRID_PX / 2 - back @ centre
    affine = (*back[0], offset[0], *back[1], offset[1])

    lit = _shade(kind, toward, ambient, turn)
    how = ((size_px, size_px), Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR)
    layers = (*lit, shape_body(kind).cover)
    *colours, cover = (np.asarray(Image.fromarray(one).transform(*how)) for one in layers)
    wall_px = half_px * shape.width * finish.wall
    foot = cover
    for step in range(1, round(wall_px * math.sqrt(1.0 - squash**2)) + 1):
        foot = np.maximum(foot, np.roll(cover, step, axis=0))

    high_px = half_px * shape.width * 0.15 + wall_px * 0.3
    scene = _ground(rng, toward, size_px) * _shadow(foot, toward, ambient, high_px, rng)
    if wall_px:
        side = np.clip((np.arange(size_px) - centre[0]) / half_px, -1.0, 1.0)
        facing = side * toward[0] + np.sqrt(1.0 - side**2) * toward[1]
        tone = lit[:, 90:110, 90:110].max(axis=(1, 2))[:, None, None]
        scene += (tone * (0.62 * ambient + 0.85 * np.maximum(facing, 0.0)) - scene) * foot
    scene += (np.stack(colours) - scene) * cover
    warmth = rng.normal(0.0, 0.06)
    tint = np.array([1.0 + warmth, 1.0, 1.0 - 1.3 * warmth]) + rng.normal(0.0, 0.012, 3)
    return np.asarray(scene * (tint * rng.uniform(0.76, 1.08))[:, None, None], np.float32)


def _shade(kind: PillKind, toward: Direction, ambient: float, turn: float) -> Field:
    """The light that a body turned by `turn` sends to the camera (wrapped Lambert, Blinn-Phong)."""
    colour, (nx, ny, nz), _ = shape_body(kind)
    finish = FINISHES[kind.finish]
    x, y, lz = toward
    c, s = math.cos(turn), math.sin(turn)
    lx, ly = c * x + s * y, c * y - s * x
    level = nx * lx + ny * ly
    facing = np.maximum(level + nz * lz + _WRAP, 0.0) / (1.0 + _WRAP)
    power = ambient * (0.45 + 0.55 * nz) + (1.14 - 0.6 * ambient) * facing
    if kind.shape == "softgel":
        power = power * np.clip(1.2 - level * 1.1 - nz * 0.5, 0.2, 2.0)
    mirror = np.maximum((level + nz * (lz + 1.0)) / math.sqrt(2.0 + 2.0 * lz), 0.0)
    glint = finish.gloss * (mirror**finish.sharpness + 0.35 * (1.0 - nz) ** 3)
    return np.asarray(colour * power + glint, np.float32)


def _ground(rng: Random, toward: Direction, size_px: int) -> Field:
    """A cut of some material under the lamp, in linear light, [3, size_px, size_px]."""
    y, x = np.mgrid[-1.0 : 1.0 : size_px * 1j, -1.0 : 1.0 : size_px * 1j]
    falloff = 1.0 + rng.uniform(0.03, 0.3) * (x * toward[0] + y * toward[1])
    tint = rng.normal(1.0, 0.04, (3, 1, 1)) * rng.uniform(0.82, 1.05)
    vignette = 1.0 - 0.09 * (x * x + y * y)
    return np.asarray(cut_backdrop(rng, size_px) * tint * falloff * vignette, np.float32)


def _shadow(foot: Field, toward: Direction, ambient: float, high_px: float, rng: Random) -> Field:
    """How much light the ground keeps around a body `high_px` high, [H, W]."""
    solid = Image.fromarray((foot * 255.0).astype(np.uint8))
    x, y = (part / toward[2] * high_px for part in toward[:2])
    cast = solid.transform(solid.size, Image.Transform.AFFINE, (1, 0, x, 0, 1, y))
    scale = foot.shape[0] / IMAGE_SIZE_PX
    dark, close = (
        np.asarray(one.filter(ImageFilter.GaussianBlur(blur_px * scale)), np.float32) / 255.0
        for one, blur_px in ((cast, rng.uniform(1.0, 4.5)), (solid, 3.0))
    )
    return (1.0 - (0.78 - 0.6 * ambient) * dark) * (1.0 - 0.34 * close)


def _develop(scene: Field, rng: Random) -> bytes:
    """The JPEG a phone would have written: tone curve, focus, noise, compression."""
    bright = np.clip(scene * (0.88 + 0.12 * np.exp(-scene)), 0.0, 1.0) ** (1 / 2.2)
    image = Image.fromarray((255.0 * bright.transpose(1, 2, 0)).astype(np.uint8))
    focus = min(rng.gamma(2.0, 0.28), 1.6)
    if rng.random() < _MISFOCUSED_SHARE:
        focus = rng.uniform(1.8, 4.2)
    image = image.filter(ImageFilter.GaussianBlur(focus * scene.shape[1] / IMAGE_SIZE_PX))
    grain = rng.standard_normal((*scene.shape[1:], 3), np.float32) * rng.uniform(1.0, 6.0)
    buffer = io.BytesIO()
    final = Image.fromarray(np.clip(np.asarray(image) + grain, 0, 255).astype(np.uint8))
    final.save(buffer, "JPEG", quality=int(rng.integers(72, 94)))
    return buffer.getvalue()
