"""What to do about a refused model, by the stage that refused it and what it said."""

from __future__ import annotations

_BY_WORD = (
    (
        "evidence that is there",
        "restore the card from a release (or its owner and mode); to serve the model without any, "
        "move it away",
    ),
    ("IR version", "lower it (`model.ir_version` before it is saved), or update onnxruntime"),
    ("its opset is", "export it at a lower opset (opset_version), or update onnxruntime"),
    ("for this type of numbers", "export it as float32"),
    ("no operator", "export it with standard operators, at an opset that has them"),
    ("channels last", "export it with channels first; tf2onnx: `--inputs-as-nchw`"),
    ("expected floats", "export it without image conversion inside: scaled floats are sent to it"),
    ("the second time", "call model.eval() before the export"),
    ("its batch is fixed inside", "export it with a dynamic batch (a view(2, -1) burns it in)"),
    ("otherwise than among others", "it mixes images: export it with model.eval(), or one by one"),
    ("it answers probabilities", "export it without its softmax, as the model in service is"),
    ("it answers logits", "export it with the softmax inside, as the model in service is"),
    ("softmaxed them twice", "`pillops card MODEL --force` makes it anew"),
    (" rows", "export it with a dynamic batch: each image has one row of answers"),
    ("Permission denied", "the service may not read it: check owner and mode (ls -l)"),
    ("outside", "copy the model into export/, or add its folder to reload.model_dirs"),
    ("No such file", "check the path for a typo: ls -l the export folder"),
    ("no such file", "check the path for a typo: ls -l the export folder"),
    ("is missing beside it", "copy the model together with its weights file (.onnx.data)"),
    ("took longer", "the model is slow to load: raise reload.trial_timeout_s or use a smaller one"),
    ("needs more than", "raise reload.trial_memory_mb, or use a smaller model"),
    (
        "own copy of the model",
        "free room there (scripts/maintenance.sh) and reload again; going back to the model "
        "served before needs none",
    ),
    ("became shorter", "somebody writes its weights file: reload when it is complete"),
    ("golden image", "the card's golden images were moved or changed: restore them from a release"),
)
_BY_STAGE = {
    "path": "check the path for a typo; models are served from export/ and restored releases",
    "read": "the file is damaged or no ONNX model: export it again or restore it from a release",
    "files": "the file changed after its export: copy it again or restore it from a release",
    "load": "restore it from a release, or export it again with the pinned onnx and torch",
    "contract": "another number or order of classes, or another input: to serve it anyway, set "
    "MODEL_PATH in .env and restart",
    "outputs": "its weights are broken (NaN or constant answers): export it from a good checkpoint",
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
    for word, hint in _BY_WORD:
        if word in message:
            return hint
    return _BY_STAGE.get(stage, "see the service's api.err; the previous model serves on")
