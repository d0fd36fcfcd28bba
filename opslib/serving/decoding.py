"""Uploaded bytes to pixels: name, declared type and content must agree, size is checked first."""

import struct
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from opslib.core.errors import InputError
from opslib.inference.preprocess import Preprocessor, damages, to_pixels, transform
from opslib.serving.failures import RefusalError
from opslib.serving.uploads import Upload

FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".bmp": "BMP", ".webp": "WEBP"}
CONTENT_TYPES = {
    "JPEG": ("image/jpeg", "image/jpg", "image/pjpeg"),
    "PNG": ("image/png",),
    "BMP": ("image/bmp", "image/x-ms-bmp", "image/x-bmp"),
    "WEBP": ("image/webp",),
}
_PILLOW_NAMES = tuple(CONTENT_TYPES)
_SAME = {"MPO": "JPEG"}  # a phone's JPEG with a second picture in it


@dataclass(frozen=True)
class Opened:
    """Uploads, as many Pillow images of which no pixel is decoded yet, and their pixels in all."""

    uploads: Sequence[Upload]
    images: list[Any]
    pixels: int


class UploadDecoder:
    """Turns uploads of up to `max_pixels` each, and `max_total_pixels` a request, into the model's
    input with the configured preprocessing: ours, or foreign code that reads files by name."""

    def __init__(
        self,
        preprocessor: Preprocessor,
        *,
        allowed_exts: Sequence[str],
        max_pixels: int,
        max_total_pixels: int,
    ) -> None:
        self._preprocessor = preprocessor
        self._allowed = frozenset(ext.lower() for ext in allowed_exts) & FORMATS.keys()
        self._max_pixels = max_pixels
        self._max_total_pixels = max_total_pixels

    def check(self, uploads: Sequence[Upload]) -> None:
        """Refuse uploads by their declared name and type, before anything is decoded."""
        for upload in uploads:
            suffix, kind = upload.suffix, upload.content_type
            if suffix not in self._allowed:
                expected = ", ".join(sorted(self._allowed))
                problem = f"file extension {suffix[:16]!r} is not allowed; expected {expected}"
                raise RefusalError(415, problem, code="extension")
            fitting = CONTENT_TYPES[FORMATS[suffix]]
            if kind not in fitting:
                problem = f"content type {kind[:64]!r} does not fit a {suffix} file"
                expected = f"expected {fitting[0]}"
                raise RefusalError(415, f"{problem}; {expected}", code="content_type")

    def open(self, uploads: Sequence[Upload]) -> Opened:
        """Return the uploads with the heads of their images read; refuse content of another type,
        or with too many pixels."""
        left = self._max_total_pixels
        images = []
        for upload in uploads:
            image = self._open(upload)
            pixels = image.width * image.height
            left -= pixels
            if pixels > self._max_pixels or left < 0:
                raise self._too_many_pixels(image.width, image.height)
            images.append(image)
        return Opened(uploads, images, self._max_total_pixels - left)

    def decode(self, opened: Opened, img_size: int) -> NDArray[np.float32]:
        """Return float32 `[N, 3, img_size, img_size]` of opened uploads; refuse damaged ones."""
        if self._preprocessor.split is None:
            return self._run_on_files(opened.uploads, img_size)
        return transform([_read(image, img_size) for image in opened.images], img_size)

    def _open(self, upload: Upload) -> Any:
        from PIL import Image

        wanted = FORMATS[upload.suffix]
        try:
            image = Image.open(upload.data, formats=_PILLOW_NAMES)
        except Image.DecompressionBombError as error:
            raise self._too_many_pixels() from error
        except (OSError, ValueError, SyntaxError) as error:
            problem = f"the content is no {wanted} image"
            raise RefusalError(415, problem, code="content_mismatch") from error
        found = _SAME.get(str(image.format), image.format)
        if found != wanted:
            image.close()
            problem = f"the content is {found}, the name says {wanted}"
            raise RefusalError(415, problem, code="content_mismatch")
        return image

    def _too_many_pixels(self, width: int = 0, height: int = 0) -> RefusalError:
        shown = f"{width} x {height} pixels" if width else "too many pixels"
        most = f"{self._max_pixels:,} an image and {self._max_total_pixels:,} a request"
        return RefusalError(413, f"{shown}; at most {most}", code="too_many_pixels")

    def _run_on_files(self, uploads: Sequence[Upload], img_size: int) -> NDArray[np.float32]:
        """Give foreign preprocessing what it takes: files, on a memory disk where there is one."""
        memory = Path("/dev/shm")  # noqa: S108 (a private folder is made inside it)
        with tempfile.TemporaryDirectory(
            prefix="pillops-", dir=memory if memory.is_dir() else None
        ) as folder:
            paths = []
            for index, upload in enumerate(uploads):
                path = Path(folder) / f"{index}{upload.suffix}"
                path.write_bytes(upload.data.getbuffer())
                paths.append(str(path))
            try:
                return self._preprocessor.run(paths, img_size)
            except (OSError, ValueError, SyntaxError, struct.error, InputError) as error:
                raise _damaged(error) from error


def _read(image: Any, img_size: int) -> NDArray[np.uint8]:
    try:
        with closing(image):  # frees its pixels at once, as `with image` would not
            return to_pixels(image, img_size)
    except damages() as error:
        raise _damaged(error) from error


def _damaged(error: Exception) -> RefusalError:
    reason = " ".join(str(error).split())[:120]
    return RefusalError(422, f"the image is damaged: {reason}", code="damaged_image")
