"""The child of a trial load; run as a script, it imports ONNX Runtime and nothing of ours.

Its argument is a folder with `request.json` and perhaps `images.npy`. It leaves `loaded` once the
model is loaded, `answers.npy` (or `outputs.npz`, where every output was asked for) and
`answer.json`. Whatever ends it, the parent reads on from there.
"""

import contextlib
import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

BATCH = 8
DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64"}
OUT_OF_MEMORY = ("bad_alloc", "allocate memory", "failed to allocate", "cannot allocate")


class RefusedError(Exception):
    """A model that runs and yet cannot be served; said in words of our own."""


def main(folder: Path) -> None:
    """Try the model that the folder's request names."""
    os.nice(19)
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    request = json.loads((folder / "request.json").read_text())
    signal.setitimer(signal.ITIMER_REAL, request["timeout_s"])
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    import onnxruntime

    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit = mapped + request["memory_bytes"]
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    try:
        answer = try_model(onnxruntime, folder, request)
    except MemoryError:
        answer = {"out_of_memory": True}
    except RefusedError as error:
        answer = {"refused": str(error)}
    except Exception as error:  # ONNX Runtime's own classes share no base but Exception
        lowered = str(error).lower()
        answer = {
            "error": str(error),
            "out_of_memory": any(one in lowered for one in OUT_OF_MEMORY),
        }
    part = folder / "answer.part"
    part.write_text(json.dumps(answer))
    part.rename(folder / "answer.json")


def try_model(ort: Any, folder: Path, request: dict[str, Any]) -> dict[str, Any]:
    """Load the model, answer the images if there are any, return what was seen."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(request["model"], options, providers=["CPUExecutionProvider"])
    (folder / "loaded").touch()
    images = folder / "images.npy"
    if images.exists() and request.get("every_output"):
        answer_all(session, images, folder / "outputs.npz")
    elif images.exists() and takes_images(session):
        answer_images(session, images, folder / "answers.npy")
    return {
        "inputs": [describe(one) for one in session.get_inputs()],
        "outputs": [describe(one) for one in session.get_outputs()],
    }


def takes_images(session: Any) -> bool:
    """Whether it can be asked as a classifier: one input and a first output of floats; of another
    model the parent says what it has."""
    tensors = (*session.get_inputs(), *session.get_outputs()[:1])
    return len(tensors) == 2 and all(one.type in DTYPES for one in tensors)


def answer_images(session: Any, source: Path, target: Path) -> None:
    """Write the first output of every image as float32, in batches that the model takes."""
    import numpy as np

    images = np.load(source)
    given = session.get_inputs()[0]
    fixed = given.shape[0] if given.shape and isinstance(given.shape[0], int) else None
    size, count = fixed or BATCH, len(images)
    dtype = DTYPES.get(given.type, "float32")
    padded = np.concatenate([images, images[np.arange(-count % size) % count]]) if fixed else images
    output = session.get_outputs()[0].name

    def run(batch: Any) -> Any:
        answers = session.run([output], {given.name: batch.astype(dtype)})[0]
        rows = len(answers) if answers.ndim else 0
        if rows != len(batch):
            raise RefusedError(f"it answers {len(batch)} image(s) with {rows} rows")
        return answers

    parts = [run(padded[start : start + size]) for start in range(0, len(padded), size)]
    np.save(target, np.concatenate(parts)[:count].astype("float32"))
    check_steady(run, padded[: fixed or 2], parts[0], alone=not fixed)


def check_steady(run: Any, images: Any, answers: Any, *, alone: bool) -> None:
    """Refuse a model that gives the same images other answers the second time, or to one or two of
    them other answers than among others: an 8-bit model's rows differ by some hundredths of the
    answers' range with their neighbours, by which it is scaled."""
    import numpy as np

    first, second = run(images), run(images)
    if not (np.isfinite(answers).all() and np.isfinite(first).all()):
        return  # said by the parent
    scale = float(np.ptp(answers)) or 1.0
    if not np.allclose(first, second, rtol=0, atol=1e-3 * scale):
        raise RefusedError("it answers the same images differently the second time")
    for part in (first, run(images[:1])) if alone else ():
        if not np.allclose(part, answers[: len(part)], rtol=0, atol=0.1 * scale):
            raise RefusedError("it answers an image by itself otherwise than among others")


def answer_all(session: Any, source: Path, target: Path) -> None:
    """Write every output of numbers of each image, asked alone, as it is: image 0's first output
    as `0-0`. An image is repeated where the model takes a fixed number at a time."""
    import numpy as np

    given = session.get_inputs()[0]
    fixed = given.shape[0] if given.shape and isinstance(given.shape[0], int) else 1
    dtype = DTYPES.get(given.type, "float32")
    answers = {}
    for number, image in enumerate(np.load(source)):
        batch = np.repeat(image[None].astype(dtype), fixed, axis=0)
        for place, values in enumerate(session.run(None, {given.name: batch})):
            if getattr(values, "dtype", np.dtype(object)).kind in "fiub":
                answers[f"{number}-{place}"] = values
    np.savez(target, **answers)


def describe(value: Any) -> dict[str, Any]:
    """Name, type and shape of an input or output; None where an axis is free."""
    shape = [axis if isinstance(axis, int) else None for axis in value.shape]
    return {"name": value.name, "dtype": DTYPES.get(value.type, value.type), "shape": shape}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
