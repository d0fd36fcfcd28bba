"""What to do about a refused model, by the stage that refused it and what it said."""

from __future__ import annotations

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


def find_hint(stage: str, message: str) -> str:
    """Return one line that says what to look at or do."""
    last = _BY_STAGE.get(stage, "see the service's api.err; the previous model serves on")
    return find_hint_by_word(message) or last


def find_hint_by_word(message: str) -> str | None:
    """Return the same where only what was said is known; None where that says nothing."""
    return next((hint for word, hint in _BY_WORD if word in message), None)
