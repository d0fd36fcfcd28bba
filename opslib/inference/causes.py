"""Why a model is refused: the stage that refused it, what ONNX Runtime said in one short line, and
what to do about it."""

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, Self

from opslib.core.errors import ModelError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Stage = Literal["files", "load", "contract", "outputs", "golden"]
Preprocess = Callable[[Sequence[str], int], "NDArray[np.float32]"]
LIMIT = 110

_NOISE = (
    re.compile(r"\[ONNXRuntimeError\] : \d+ : \w+ : "),
    re.compile(r"Load model from .*? failed:"),
    re.compile(r"/?\S+\.(?:cc|h|cpp|cu):\d+ [^()]*\([^()]*\)(?: const)?\s*"),
    re.compile(r"\S+ (?:[=!<>]=|[<>]) \S+ was false\.\s*"),
    re.compile(r"Fatal error: "),
)
# What users meet, and how it is said here; the groups of the pattern are filled in.
_CAUSES = (
    (
        r"Unsupported model IR version: (\d+), max supported IR version: (\d+)",
        "its IR version is {0}, this ONNX Runtime takes at most {1}",
    ),
    (
        r"Opset (\d+) is under development.* till opset (\d+)",
        "its opset is {0}, this ONNX Runtime takes at most {1}",
    ),
    (r"(\S+?):(\S+)\(-?\d+\) is not a registered function/op", "no operator {1} of {0} here"),
    (r"No Op registered for (\S+) with domain_version of (\d+)", "no operator {0} in opset {1}"),
    (
        r"cannot be reshaped to the requested shape\. Input shape:(\S+), requested shape:(\{-1\S*)",
        "a Reshape in it wants {1} and is given {0}: it takes images of another size, or several "
        "at once",
    ),
    (
        r"cannot be reshaped to the requested shape\. Input shape:(\S+), requested shape:(\S+)",
        "a Reshape in it has fixed sizes {1} and is given {0}: its batch is fixed inside",
    ),
    (
        r"Please load external data into raw data for tensor: (.+?)\.? ?$",
        "its tensor {0} decides shapes and lies in a weights file",
    ),
    (
        r"(MatMul|GEMM):? [Dd]imension mismatch",
        "a {0} in it does not fit these images: it takes images of another size",
    ),
    (
        r"Type parameter \(\w+\) of Optype \((\w+)\) bound to different types "
        r"\(tensor\((\w+)\) and tensor\((\w+)\)",
        "a {0} in it is given both {1} and {2}",
    ),
    (
        r"External initializer: .* given file_length: \d+ are out of bounds|unexpected end of file",
        "its weights file is shorter than its weights",
    ),
    (r"Could not find an implementation for (\w+)\(\d+\)", "no {0} for this type of numbers"),
    (
        r"model loaded from bytes .*External data path does not exist",
        "it looks for its weights file in another folder than its own, as for a constant If",
    ),
    (r"Protobuf parsing failed", "it is no ONNX model, or damaged"),
    (r"SystemError : 13", "its weights file may not be read: Permission denied"),
)
_BROKEN = "its weights are broken (NaN or constant answers): export it from a good checkpoint"
_BY_WORD = (
    (
        "evidence that is there",
        "restore the card from a release (or its owner and mode); to serve the model without any, "
        "move it away",
    ),
    ("IR version", "lower it (`model.ir_version` before it is saved), or update onnxruntime"),
    ("its opset is", "export it at a lower opset (opset_version), or update onnxruntime"),
    ("for this type of numbers", "export it as float32"),
    ("a constant If", "save it with its weights inside (onnx.save, no external data)"),
    ("is given both", "convert all of it to float16, or export it as float32"),
    ("shorter than its weights", "copy its weights file again: it was cut off"),
    ("decides shapes", "save it with small tensors inside (size_threshold=1024)"),
    ("no operator", "export it with standard operators, at an opset that has them"),
    ("channels last", "export it with channels first; tf2onnx: `--inputs-as-nchw`"),
    ("expected floats", "export it without image conversion inside: scaled floats are sent to it"),
    ("pixels a side", "export it for that size, or set preprocess.img_size to its own"),
    ("have 3 channels", "export it for colour images: [N, 3, H, W]"),
    ("a square one", "export it with as many rows as columns"),
    ("expected one image input", "export it with the image as its only input, scaled floats"),
    ("expected an input [N, C, H, W]", "export it with the image as its only input"),
    ("expected an output [N, classes]", "export it with its logits as the first output"),
    ("the second time", "call model.eval() before the export"),
    ("its batch is fixed inside", "export it with a dynamic batch (a view(2, -1) burns it in)"),
    ("otherwise than among others", "it mixes images: export it with model.eval(), or one by one"),
    ("it answers probabilities", "export it without its softmax, as the model in service is"),
    ("it answers logits", "export it with the softmax inside, as the model in service is"),
    ("softmaxed them twice", "`pillops card MODEL --force` makes it anew"),
    (" rows", "export it with a dynamic batch: each image has one row of answers"),
    ("Permission denied", "the service may not read it: check owner and mode (ls -l)"),
    ("weights point outside", "save it anew with its weights beside it, named without a folder"),
    ("ONNX Runtime's own format", "serve the .onnx that it was made from"),
    ("Git LFS pointer", "fetch the file itself: git lfs pull"),
    ("a zip file", "serve its export; a checkpoint is named .pt"),
    ("of another size", "export it for that size, or set preprocess.img_size to its own"),
    ("outside", "copy the model into export/, or add its folder to reload.model_dirs"),
    ("No such file", "check the path for a typo: ls -l the export folder"),
    ("no such file", "check the path for a typo: ls -l the export folder"),
    ("is missing beside it", "copy the model with its weights file beside it (links: cp -L)"),
    ("took longer", "the model is slow to load: raise reload.trial_timeout_s or use a smaller one"),
    ("needs more than", "raise reload.trial_memory_mb, or use a smaller model"),
    (
        "own copy of the model",
        "free room there (scripts/maintenance.sh) and reload again; going back to the model "
        "served before needs none",
    ),
    ("became shorter", "somebody writes its weights file: reload when it is complete"),
    (" a NaN or", _BROKEN),
    ("answers the same", _BROKEN),
    ("golden image", "the card's golden images were moved or changed: restore them from a release"),
)
_BY_STAGE = {
    "path": "check the path for a typo; models are served from export/ and restored releases",
    "read": "the file is damaged or no ONNX model: export it again or restore it from a release",
    "files": "the file changed after its export: copy it again or restore it from a release",
    "load": "export it again with the pinned onnx and torch, or restore it",
    "contract": "another number or order of classes, or another input, than what is served: to "
    "serve it anyway, set MODEL_PATH in .env and restart",
    "outputs": "export it for images of this size, with a dynamic batch",
    "golden": "it no longer answers its golden images as its card says: export it again",
    "open": "it loads in a trial but not here: look at memory (free -m, nvidia-smi) and api.err",
    "preprocess": "an image that is no image is refused otherwise: look at preprocess.function",
    "inference": "it ran when it was loaded: look at memory (free -m, nvidia-smi) and at what is "
    "special in the image; another model is one reload away",
    "warmup": "it fails on this host's providers: look at api.err, try onnx.providers: [CPU]",
    "trial": "see the service's api.err",
}


class ModelCheckError(ModelError):
    """A model failed a check; `stage` says which."""

    def __init__(self, stage: Stage, message: str) -> None:
        super().__init__(message)
        self.stage: Stage = stage

    def __reduce__(self) -> tuple[type[Self], tuple[Stage, str]]:
        return (type(self), (self.stage, str(self)))


def shorten_error(said: BaseException | str) -> str:
    """Return the cause in at most `LIMIT` characters; of a longer text the beginning and the end,
    where ONNX Runtime has the reason."""
    text = " ".join(str(said).split())
    for pattern, words in _CAUSES:
        found = re.search(pattern, text)
        if found is not None:
            text = words.format(*found.groups())
            break
    for noise in _NOISE:
        text = noise.sub("", text)
    text = text.strip().rstrip(".") or type(said).__name__
    if len(text) <= LIMIT:
        return text
    return f"{text[: LIMIT // 4]} … {text[3 - LIMIT * 3 // 4 :]}"


def find_hint(stage: str, message: str) -> str:
    """Return one line that says what to look at or do."""
    last = _BY_STAGE.get(stage, "see the service's api.err; the previous model serves on")
    return find_hint_by_word(message) or last


def find_hint_by_word(message: str) -> str | None:
    """Return the same where only what was said is known; None where that says nothing."""
    return next((hint for word, hint in _BY_WORD if word in message), None)
