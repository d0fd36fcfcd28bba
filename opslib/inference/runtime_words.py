"""What ONNX Runtime says, in one short line: the cause it names at the end of a long text, without
the places in its own source."""

from __future__ import annotations

import re

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
