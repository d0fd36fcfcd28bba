"""A trial load: a model is loaded, and run once, in a child that may die without harm.

ONNX Runtime can abort the whole process on a bad model, and a load by path can hold other threads
up. So a model is first tried in a child: nice 19, one thread, limits on time and address space,
no core dump. The child imports ONNX Runtime and nothing of ours.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from opslib.core.errors import ModelError, UsageError, storage_errors
from opslib.core.formatting import format_bytes, format_signal
from opslib.core.models import find_model_files
from opslib.core.sections import ReloadSection
from opslib.inference.causes import ModelCheckError, Stage, shorten_error
from opslib.inference.postprocess import (
    Postprocess,
    count_classes,
    find_postprocess,
    judge_answers,
    to_probabilities,
)

CHILD = Path(__file__).with_name("trial_child.py")
DEFAULT_LIMITS = ReloadSection(trial_timeout_s=60.0)
# Address space, of which a model without `trial_memory_mb` gets so much for itself and so much for
# each of its bytes. Linux bounds no resident memory; this bounds it from above, and no card is
# mapped.
BASE_MEMORY_BYTES = 2 << 30
MEMORY_PER_MODEL_BYTE = 8
_GRACE_S = 2.0


@dataclass(frozen=True)
class TensorFacts:
    """One input or output: its name, element type and shape with None where an axis is free."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class TrialResult:
    """What a model turned out to be, and what it answered: float32 `[N, columns]`.

    `postprocess` is what turns these answers into probabilities; None where it is not known.
    `every_output` is, for each image, the outputs of numbers by name, where they were asked for.
    """

    inputs: tuple[TensorFacts, ...]
    outputs: tuple[TensorFacts, ...]
    answers: NDArray[np.float32] | None
    every_output: tuple[dict[str, NDArray[np.generic]], ...] = ()
    postprocess: Postprocess | None = None

    @property
    def num_classes(self) -> int | None:
        """How many classes the first output tells apart, where it is fixed."""
        if self.answers is not None:
            return count_classes(int(self.answers.shape[-1]))
        shape = self.outputs[0].shape if self.outputs else ()
        return count_classes(shape[-1]) if shape else None

    @property
    def dtype(self) -> str:
        """Element type of the first input."""
        return self.inputs[0].dtype if self.inputs else "none"

    def answered(self) -> NDArray[np.float32]:
        """Return the answers."""
        if self.answers is None:
            raise UsageError("the trial was given no images to answer")
        return self.answers

    def probabilities(self) -> NDArray[np.float32]:
        """Return the answers as probabilities, float32 `[N, classes]`."""
        return to_probabilities(self.answered(), self.postprocess)


def try_model(
    path: Path,
    *,
    images: NDArray[np.float32] | None = None,
    every_output: bool = False,
    limits: ReloadSection = DEFAULT_LIMITS,
) -> TrialResult:
    """Load an ONNX model in a child process, answer `images` `[N, C, H, W]` with it if given.

    `every_output` answers each image alone and keeps every output instead of the first; `limits`
    are the time and the address space beyond what Python and ONNX Runtime map themselves. A
    `ModelCheckError` of stage `load`: missing, damaged, refused by ONNX Runtime, over a limit, or
    it brought the child down; of stage `outputs`: it cannot answer the images.
    """
    try:
        files = find_model_files(path)
    except ModelError as error:
        raise ModelCheckError("load", str(error)) from error
    given = (limits.trial_memory_mb or 0) << 20
    allowed = given or BASE_MEMORY_BYTES + MEMORY_PER_MODEL_BYTE * files.size_bytes
    timeout_s = limits.trial_timeout_s
    with storage_errors("make a folder for the trial load"):
        place = tempfile.TemporaryDirectory(prefix="pillops-trial-")
    with place as name:
        folder = Path(name)
        if images is not None:
            np.save(folder / "images.npy", np.ascontiguousarray(images, dtype=np.float32))
        request = {
            "model": os.fspath(files.path),
            "memory_bytes": allowed,
            "timeout_s": timeout_s,
            "every_output": every_output,
        }
        (folder / "request.json").write_text(json.dumps(request))
        code = _run_child(path, folder, timeout_s)
        return _read_result(path, folder, code, allowed, timeout_s)


def join_images(
    first: NDArray[np.float32] | None, second: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return both batches as one, the first in front."""
    return second if first is None else np.concatenate([first, second])


def _run_child(path: Path, folder: Path, timeout_s: float) -> int:
    """Run the child to its end and return its exit status, negative for a signal."""
    single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    try:
        done = subprocess.run(
            [sys.executable, "-P", os.fspath(CHILD), os.fspath(folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=timeout_s + _GRACE_S,
            env=os.environ | single,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return -int(signal.SIGALRM)
    except OSError as error:
        raise ModelCheckError("load", f"{path}: cannot be tried: {error.strerror}") from error
    return done.returncode


def _read_result(
    path: Path, folder: Path, code: int, allowed: int, timeout_s: float
) -> TrialResult:
    stage: Stage = "outputs" if (folder / "loaded").exists() else "load"
    doing = "loading it" if stage == "load" else "running it"
    answer = folder / "answer.json"
    found: dict[str, Any] = json.loads(answer.read_text()) if answer.exists() else {}
    problem: str | None = found.get("refused")
    if code == -int(signal.SIGALRM):
        problem = f"{doing} took longer than {timeout_s:g} s"
    elif code < 0:
        problem = f"{doing} ended the trial process by {format_signal(-code)}"
    elif code or not found:
        problem = f"{doing} ended the trial process with code {code}"
    elif found.get("out_of_memory"):
        problem = f"{doing} needs more than the {format_bytes(allowed)} allowed"
    elif "error" in found:
        problem = f"ONNX Runtime refuses it: {shorten_error(found['error'])}"
    if problem is not None:
        raise ModelCheckError(stage, f"{path}: {problem}")
    kept = folder / "answers.npy"
    answers = np.load(kept) if kept.exists() else None
    judged = judge_answers(answers) if answers is not None and answers.ndim == 2 else None
    inputs, outputs = (
        tuple(TensorFacts(one["name"], one["dtype"], tuple(one["shape"])) for one in found[side])
        for side in ("inputs", "outputs")
    )
    return TrialResult(
        inputs=inputs,
        outputs=outputs,
        answers=answers,
        every_output=_read_outputs(folder / "outputs.npz", [one.name for one in outputs]),
        postprocess=find_postprocess(path) or judged,
    )


def _read_outputs(path: Path, names: list[str]) -> tuple[dict[str, NDArray[np.generic]], ...]:
    if not path.exists():
        return ()
    images: dict[int, dict[str, NDArray[np.generic]]] = {}
    with np.load(path) as kept:
        for key in kept.files:
            number, place = (int(part) for part in key.split("-"))
            images.setdefault(number, {})[names[place]] = kept[key]
    return tuple(images[number] for number in sorted(images))
