"""Reading a Torch checkpoint: weights, and beside them only what can do no harm.

A checkpoint is a pickle, and a pickle may call anything. Torch lets through what is on a list; ours
adds plain values that training code keeps beside its weights, and the classes that
`torch.safe_globals` names.
"""

import argparse
import collections
import datetime
import importlib
import os
import pathlib
import re
import types
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from opslib.core.errors import ConfigError, ModelError
from opslib.core.formatting import plural, shorten
from opslib.inference.preprocess import import_object

KEY = "torch.safe_globals"
_REFUSED = re.compile(r"GLOBAL (\S+) (?:was not an allowed|whose module)")
_OF_TORCH = "torch.nn.modules."
_RUNS_CODE = ("builtins", "os", "posix", "nt", "sys", "subprocess", "importlib", "shutil")
_SHOWN = 4


def read_checkpoint(path: Path, safe_globals: Iterable[str], code_root: Path | None) -> Any:
    """Return what `torch.save` wrote into `path`, on the CPU; no code of the file runs. It may hold
    the classes of `safe_globals`, import strings that are looked up in `code_root` first.

    Raises:
        ModelError: it is damaged, or holds what is not known to be harmless; the message names
            that, and the key to set.
        ConfigError: a class of `safe_globals` cannot be imported.
    """
    import torch
    from torch.serialization import safe_globals as allow

    with allow([*_list_harmless(), *_import_own(safe_globals, code_root)]):
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # pickle, zip, runtime and OS errors for damaged files
            refused = _find_refused(path, str(error))
            said = shorten(str(error).rpartition("WeightsUnpickler error: ")[2])
            reason = _explain(refused) if refused else said
            raise ModelError(f"{path}: Torch cannot load it: {reason}") from error


def _list_harmless() -> list[Any]:
    """Plain values by the names that a pickle gives them, of this and of other versions."""
    found: dict[str, Any] = {
        "argparse.Namespace": argparse.Namespace,
        "collections.OrderedDict": collections.OrderedDict,
        # Torch fills plain lists and dicts alone; as such they are all that is needed here.
        "collections.defaultdict": _as_dict,
        "collections.deque": _as_list,
        "types.SimpleNamespace": types.SimpleNamespace,
        "numpy.dtype": np.dtype,
        "numpy.ndarray": np.ndarray,
    }
    plain = (bool, bytes, dict, float, frozenset, int, list, range, slice, str, tuple)
    found |= {f"builtins.{one.__name__}": one for one in plain}
    found["builtins.Ellipsis"] = Ellipsis
    times = (datetime.date, datetime.datetime, datetime.time, datetime.timedelta, datetime.timezone)
    found |= {f"datetime.{one.__name__}": one for one in times}
    multiarray: Any = importlib.import_module("numpy._core.multiarray")
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        found[f"{module}.scalar"] = multiarray.scalar
        found[f"{module}._reconstruct"] = multiarray._reconstruct
    kinds = {type(np.dtype(code)) for code in [*np.typecodes["All"], "T"]}
    found |= {f"numpy.dtypes.{one.__name__}": one for one in kinds}
    foreign = "PosixPath" if os.name == "nt" else "WindowsPath"  # cannot be made here
    for name in ("Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"):
        here = getattr(pathlib, f"Pure{name}" if name == foreign else name)
        found[f"pathlib.{name}"] = found[f"pathlib._local.{name}"] = here
    return [(thing, name) for name, thing in found.items()]


def _as_dict(_factory: object = None) -> dict[Any, Any]:
    return {}


def _as_list(items: Iterable[Any] = (), _maxlen: object = None) -> list[Any]:
    return list(items)


def _import_own(references: Iterable[str], code_root: Path | None) -> list[Any]:
    """The classes named, by each name that a training script may have given them."""
    found: list[Any] = []
    for reference in references:
        thing = import_object(reference, code_root, key=KEY)
        if not callable(thing):
            raise ConfigError(f"{KEY}: {reference} is no class; expected module:Class")
        module, _, name = reference.partition(":")
        names = {f"{module}.{name}", f"{thing.__module__}.{name}", f"__main__.{name}"}
        found += [(thing, one) for one in sorted(names)]
    return found


def _find_refused(path: Path, message: str) -> list[str]:
    """The globals of a checkpoint that are not allowed; Torch's message names the first alone."""
    from torch.serialization import get_unsafe_globals_in_checkpoint

    named = _REFUSED.search(message)
    if named is None:
        return []
    try:
        return sorted(get_unsafe_globals_in_checkpoint(path)) or [named[1]]
    except Exception:  # it reads files of today's layout alone
        return [named[1]]


def _explain(refused: list[str]) -> str:
    shown = ", ".join(refused[:_SHOWN])
    if len(refused) > _SHOWN:
        shown += f" and {plural(len(refused) - _SHOWN, 'other')}"
    if any(one.startswith(_OF_TORCH) for one in refused):
        return (
            f"it is a whole module, pickled with its classes ({shown}); save its state_dict() and "
            f"set torch.factory, or list every one of them in {KEY}"
        )
    if any("." not in one or one.partition(".")[0] in _RUNS_CODE for one in refused):
        return f"it holds {shown}, which may run code and no weights need: do not trust this file"
    wanted = ", ".join(
        f'"{"MODULE" if module == "__main__" else module}:{name}"'
        for module, _, name in (one.rpartition(".") for one in refused[:_SHOWN])
    )
    return (
        f"it holds {shown}, not known to be harmless; where you trust it, set {KEY}: [{wanted}], "
        "found below paths.code_root"
    )
