"""Which paths a reload may name: inside the allowed folders after every link is followed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from opslib.core.errors import ModelError
from opslib.core.models import ModelFiles, follow_model

_LONGEST = 1024


def confine_path(text: str, folders: Sequence[Path], base: Path) -> Path:
    """Return the model file that `text` names; see `follow_model`.

    Args:
        text: an absolute path, or one relative to `base`.
        folders: the allowed folders, resolved.

    Raises:
        ModelError: a URL, a traversal, outside the folders, missing, or no regular `.onnx` file.
    """
    shown = text[:200]
    if not text.strip() or "\0" in text or len(text) > _LONGEST or not text.isprintable():
        raise ModelError("the path is empty, too long or has control characters")
    if "://" in text:
        raise ModelError(f"{shown}: a URL; expected a file in {_list(folders)}")
    given = Path(text)
    if ".." in given.parts:
        raise ModelError(f"{shown}: climbs with '..'; give the path plainly")
    if given.suffix != ".onnx":
        raise ModelError(f"{shown}: expected a file ending in .onnx")
    path = base / given
    try:
        real = path.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        if not is_inside(path.parent.resolve(), folders):
            raise ModelError(f"{shown}: outside {_list(folders)}") from error
        reason = getattr(error, "strerror", None) or "its links lead in a circle"
        raise ModelError(f"{shown}: {reason}") from error
    if not is_inside(real, folders):
        raise ModelError(f"{shown}: outside {_list(folders)}")
    if not real.is_file():
        what = "is a folder" if real.is_dir() else "is no regular file"
        raise ModelError(f"{shown}: {what}; expected an ONNX model")
    return follow_model(path)


def confine_sidecars(files: ModelFiles, folders: Sequence[Path]) -> None:
    """Refuse a model whose weights files are links out of the allowed folders."""
    for sidecar in files.sidecars:
        if not is_inside(sidecar.resolve(), folders):
            raise ModelError(f"{sidecar}: its weights lie outside {_list(folders)}")


def is_inside(path: Path, folders: Sequence[Path]) -> bool:
    """Return whether a resolved path lies in one of the resolved folders."""
    return any(path.is_relative_to(folder) for folder in folders)


def _list(folders: Sequence[Path]) -> str:
    return ", ".join(str(folder) for folder in folders)
