"""The default preprocessing, and how the serving code's own is found by its import string.

`preprocess(paths, img_size)` decodes and transforms in one call, the signature that serving code
offers. Ours is also split into `decode` and `transform`, so that time can be attributed.
"""

import importlib
import struct
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from opslib.core.errors import ConfigError, InputError, OpsError
from opslib.core.formatting import shorten

DEFAULT_FUNCTION = "opslib.inference.preprocess:preprocess"
MAX_PIXELS = 50_000_000
IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
IMAGENET_STD = np.array([0.229, 0.224, 0.225], dtype=np.float32)
_SCALE = 1.0 / (255.0 * IMAGENET_STD)
_SHIFT = IMAGENET_MEAN / IMAGENET_STD

_DAMAGES = (OSError, ValueError, SyntaxError, EOFError, LookupError, TypeError, struct.error)

Images = list[NDArray[np.uint8]]


def decode(paths: Sequence[str | Path], img_size: int) -> Images:
    """Return each image as RGB `[H, W, 3]` uint8, no smaller than it takes for `img_size`.

    JPEGs are reduced while decoding (by 2, 4 or 8) where they stay at least `img_size` wide and
    high; EXIF rotation is applied. A file that is missing, truncated, no image, or larger than 50
    megapixels is an `InputError`.
    """
    from PIL import Image

    images = []
    for path in paths:
        try:
            with Image.open(path) as image:
                if image.width * image.height > MAX_PIXELS:
                    size = f"{image.width} x {image.height} pixels"
                    raise InputError(f"{path}: {size}; at most {MAX_PIXELS:,} are read")
                images.append(to_pixels(image, img_size))
        except damages() as error:
            raise InputError(f"{path}: cannot be read as an image: {error}") from error
    return images


def damages() -> tuple[type[Exception], ...]:
    """Return what Pillow raises over a damaged image, beside its own: of EXIF data that is cut off,
    whatever comes of reading behind its end."""
    from PIL import Image

    return (*_DAMAGES, Image.DecompressionBombError)


def to_pixels(image: Any, img_size: int) -> NDArray[np.uint8]:
    """Return an opened Pillow image as RGB `[H, W, 3]` uint8; see `decode`."""
    from PIL import ImageOps

    image.draft("RGB", (img_size, img_size))
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode in ("I", "F"):
        raise ValueError("grey of 32 bits, whose white is not known; expected 8 or 16 bits")
    if image.mode.startswith("I;16"):  # clipped by `convert`, which halves the bits of colours
        grey = (np.asarray(image) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def transform(images: Images, img_size: int) -> NDArray[np.float32]:
    """Return images as the model's input: float32 `[N, 3, img_size, img_size]`.

    Bilinear resize to a square, scaled to 0..1, then ImageNet mean and standard deviation.
    """
    from PIL import Image

    size = (img_size, img_size)
    batch = np.empty((len(images), 3, *size), dtype=np.float32)
    for pixels, planes in zip(images, batch, strict=True):
        if pixels.shape[:2] != size:
            pixels = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))
        # A plane at a time: arithmetic over a last axis of three takes three times as long.
        for channel, plane in enumerate(planes):
            np.multiply(pixels[..., channel], _SCALE[channel], out=plane)
            plane -= _SHIFT[channel]
    return batch


def preprocess(paths: Sequence[str], img_size: int) -> NDArray[np.float32]:
    """Return image files as the model's input, float32 `[N, 3, img_size, img_size]`."""
    return transform(decode(paths, img_size), img_size)


@dataclass(frozen=True)
class Preprocessor:
    """A preprocessing function with the name it was found by; `split` is None for foreign code."""

    name: str
    run: Callable[[Sequence[str], int], NDArray[np.float32]]
    split: tuple[Callable[..., Images], Callable[..., NDArray[np.float32]]] | None

    def run_checked(self, paths: Sequence[str], img_size: int) -> NDArray[np.float32]:
        """Return what `run` does, float32 `[N, 3, img_size, img_size]`; an `InputError` where an
        image cannot be read, a `ConfigError` where foreign code raised."""
        try:
            return self.run(paths, img_size)
        except OpsError:
            raise
        except Exception as error:
            raise ConfigError(
                f"preprocess.function: {self.name} raised {type(error).__name__}: "
                f"{shorten(str(error))} (given {len(paths)} images at {img_size} px, the first "
                f"{paths[0]})"
            ) from error


def load_preprocessor(function: str, code_root: Path | None) -> Preprocessor:
    """Return what is named by the import string `module:function`; see `import_object`."""
    if function == DEFAULT_FUNCTION:
        return Preprocessor(function, preprocess, (decode, transform))
    found = import_object(function, code_root, key="preprocess.function")

    def run(paths: Sequence[str], img_size: int) -> NDArray[np.float32]:
        return as_batch(found(list(paths), img_size), len(paths), function)

    return Preprocessor(function, run, None)


def as_batch(value: Any, count: int, function: str) -> NDArray[np.float32]:
    """Return what `function` returned for `count` images, a Torch tensor or array, as a contiguous
    float32 array in host memory, `[N,C,H,W]`; a `ConfigError` where it is something else."""
    returned = f"preprocess.function: {function} returned"
    try:
        array = value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value)
        batch = np.ascontiguousarray(array, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{returned} no array of numbers: {shorten(str(error))}") from error
    if array.ndim != 4 or len(array) != count:
        raise ConfigError(f"{returned} shape {list(array.shape)}; expected [{count}, C, H, W]")
    return batch


def import_object(reference: str, code_root: Path | None, *, key: str) -> Any:
    """Return what the import string `module:name` stands for, looking into `code_root` first; a
    `ConfigError` names the `key` that it was given with."""
    module_name, _, name = reference.partition(":")
    if not module_name or not name:
        raise ConfigError(f"{key}: got {reference!r}; expected module:function")
    if code_root is not None:
        if not code_root.is_dir():
            raise ConfigError(f"paths.code_root: {code_root}: no such folder")
        if str(code_root) not in sys.path:
            sys.path.insert(0, str(code_root))
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        where = f" (looked in {code_root} first)" if code_root else ""
        raise ConfigError(f"{key}: cannot import {reference!r}: {error}{where}") from error
    except Exception as error:  # foreign code runs while it is imported
        raised = f"raised {type(error).__name__}: {shorten(str(error))}"
        raise ConfigError(f"{key}: importing {module_name} {raised}") from error
    try:
        return getattr(module, name)
    except AttributeError as error:
        raise ConfigError(f"{key}: module {module_name} has no {name!r}") from error
