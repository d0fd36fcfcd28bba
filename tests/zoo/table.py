"""What becomes of every model of the zoo at every door; docs/MODELS.md is written from it.

A model that passes its inspection and trial works at every door, one that is refused is refused
with the same words at all but the doctor, which reads the file and loads nothing: it knows what
cannot be read (`UNREADABLE`) and what takes other images (`OTHER_IMAGES`). What differs stands in
`ELSEWHERE`.
"""

from __future__ import annotations

from tests.inference.zoo import ZOO, ZooModel
from tests.zoo.answers import ANSWERS
from tests.zoo.files import FILES

DOORS = ("doctor", "bench", "sweep", "quantize", "serve", "reload", "release")
WORKS = "works"
MODELS = (*ZOO, *ANSWERS, *FILES)
CHOSEN = ("sidecar-with-a-space", "half", "odd-names", "channels-last", "ir-14", "lfs-pointer")

_UNSTEADY = {"bench": WORKS, "sweep": "does not answer alike"}
_NOTHING_TO_DO = {"quantize": "has no operator that can be quantized"}
_QUANTIZED = {"quantize": "already quantized"}
_OPTIMIZED = {"quantize": "already optimized"}
_HALF = {"quantize": "a float16 model"}
ELSEWHERE: dict[str, dict[str, str]] = {
    "half": _HALF,
    "half-inside": _HALF,
    "int8-static": _QUANTIZED,
    "int8-dynamic": _QUANTIZED,
    "branch": _NOTHING_TO_DO,
    "branch-with-weights-beside": _NOTHING_TO_DO,
    "optimized": _OPTIMIZED,
    "unknown-operator": _NOTHING_TO_DO,
    "own-domain": _NOTHING_TO_DO,
    "feature-map": _NOTHING_TO_DO,
    "one-column": {"reload": "it has 2 classes, expected 3"},
    "one-column-sigmoid": {"reload": "it has 2 classes, expected 3"},
    "top-k": dict.fromkeys(("bench", "sweep"), WORKS),
    "two-images-a-row": {"bench": "several at once", "sweep": "several at once"},
    "one-number": dict.fromkeys(("bench", "sweep"), "expected [N, classes]"),
    "no-numbers": dict.fromkeys(("bench", "sweep"), "not finite"),
    "random": _UNSTEADY,
    "batch-norm-in-training": _UNSTEADY,
    "constant": dict.fromkeys(("bench", "sweep"), WORKS),
    "over-the-batch": dict.fromkeys(("bench", "sweep"), WORKS),
    "links-of-a-cache": {"doctor": "no ONNX model"},
    "ort": {"doctor": "no ONNX model", "reload": "expected a file ending in .onnx"},
    "sparse": {"quantize": "could not be made"},
    "optimized-extended": _OPTIMIZED,
    "optimized-all": _OPTIMIZED,
}
UNREADABLE = (
    "cut-off",
    "links-of-a-cache",
    "weights-missing",
    "weights-above",
    "weights-absolute",
    "ort-called-onnx",
    "lfs-pointer",
    "checkpoint-called-onnx",
    "empty",
)
OTHER_IMAGES = ("another-size", "oblong", "grey", "channels-last", "bytes-in")
TITLES = {
    "plain": "float32, dynamic batch, one row of logits an image",
    "opset-8": "opset 8, weights among its inputs",
    "opset-9": "opset 9, weights among its inputs",
    "opset-11": "opset 11",
    "opset-13": "opset 13",
    "opset-17": "opset 17",
    "opset-21": "opset 21",
    "opset-24": "opset 24",
    "opset-26": "opset 26, IR 13",
    "opset-28": "opset 28",
    "ir-13": "IR 13",
    "ir-14": "IR 14",
    "half": "float16",
    "half-inside": "float16 inside, float32 in and out",
    "double": "float64",
    "int8-static": "INT8 already, QDQ",
    "int8-dynamic": "INT8 already, dynamic",
    "optimized": "optimized, with operators of com.microsoft",
    "optimized-extended": "as ONNX Runtime rewrites it, level EXTENDED",
    "optimized-all": "as ONNX Runtime rewrites it, level ALL",
    "ort": "ONNX Runtime's own format, `.ort`",
    "ort-called-onnx": "the same with the name of ONNX",
    "function": "a function of its own",
    "branch": "an If around a layer",
    "branch-with-weights-beside": "the same with its weights in a file beside it",
    "shared-weight": "one weight in two layers",
    "beta": "a Gemm with beta 0.5",
    "sparse": "sparse weights",
    "odd-names": "names with blanks, colons, other alphabets",
    "unknown-operator": "an operator that there is not",
    "own-domain": "an operator of the maker's own",
    "sidecar": "weights in a file beside it",
    "sidecar-with-a-space": "the same, a blank in its name",
    "weights-in-a-folder": "the same, in a folder below",
    "one-file-a-weight": "a file for each weight",
    "links-of-a-cache": "links into a cache of files named by digest",
    "weights-missing": "copied without its weights file",
    "weights-cut-off": "its weights file was cut off",
    "weights-above": "weights in the folder above",
    "weights-absolute": "weights at an absolute path",
    "fixed-batch": "batch fixed at one",
    "any-size": "any height and width",
    "no-names-of-axes": "free axes without names",
    "classes-not-said": "number of classes not said",
    "another-size": "another size than the images have",
    "size-burnt-in": "the same, burnt in behind free axes",
    "oblong": "images that are not square",
    "grey": "grey images",
    "channels-last": "channels last",
    "bytes-in": "takes bytes",
    "bgr-bytes-scaled": "scales its input itself",
    "two-inputs": "two inputs",
    "burnt-batch": "batch burnt in by a Reshape",
    "two-images-a-row": "a Reshape that mixes images in a row",
    "over-the-batch": "takes the mean over the batch away",
    "random": "dropout left on",
    "batch-norm-in-training": "batch norm left in training",
    "constant": "the same answer to all images",
    "no-numbers": "NaN in its weights",
    "softmax": "answers probabilities, by softmax",
    "log-softmax": "answers their logarithms",
    "sigmoid": "answers a sigmoid for each class",
    "one-column": "one column of logits",
    "one-column-sigmoid": "one column, by sigmoid",
    "features-beside": "features as a second output",
    "top-k": "answers the two highest, sorted",
    "labels": "answers a class number alone",
    "label-words": "answers a class name, then a map (sklearn)",
    "map-first": "answers a map of probabilities first",
    "feature-map": "answers a feature map",
    "not-flattened": "answers [N, classes, 1, 1]",
    "one-number": "answers one number for all images",
    "cut-off": "a download cut off",
    "lfs-pointer": "a pointer of Git LFS",
    "checkpoint-called-onnx": "a Torch checkpoint with the name of ONNX",
    "empty": "an empty file",
}


def expect(one: ZooModel, door: str) -> str:
    """Return what a door says of a model: `works`, or words of the refusal."""
    usual = WORKS if one.stage is None else one.says
    if door == "doctor" and one.name not in UNREADABLE + OTHER_IMAGES:
        usual = WORKS
    return ELSEWHERE.get(one.name, {}).get(door, usual)
