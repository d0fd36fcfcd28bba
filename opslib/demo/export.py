"""Exporting a generation to ONNX, with its card: digests, comparison and golden answers."""

from __future__ import annotations

import contextlib
import io
import logging
import shutil
import warnings
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from opslib.core.cards import ExportCompare, GoldenAnswer, ModelCard, list_files
from opslib.core.config import Config
from opslib.core.errors import GateFailedError
from opslib.core.files import sha256_file
from opslib.core.formatting import stamp
from opslib.core.models import find_model_files
from opslib.demo.training import Generation
from opslib.inference.engine import EngineRequest
from opslib.inference.opening import open_engine
from opslib.inference.parity import check_parity
from opslib.inference.postprocess import softmax
from opslib.inference.preprocess import preprocess

FACTORY = "opslib.demo.network:build_network"
OPSET = 20
_CHUNK = 64


def save_checkpoint(
    path: Path, generation: Generation, names: Sequence[str], img_size: int, git_sha: str
) -> Path:
    """Write a checkpoint that `torch.load(weights_only=True)` reads, and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    evaluation = generation.evaluation
    torch.save(
        {
            "state_dict": generation.weights,
            "factory": FACTORY,
            "num_classes": len(names),
            "img_size": img_size,
            "class_names": list(names),
            "git_sha": git_sha,
            "epoch": generation.epoch,
            "metrics": {"val_top1": evaluation.top1, "val_loss": evaluation.loss},
        },
        path,
    )
    return path


def export_onnx(net: nn.Module, path: Path, img_size: int, *, sidecar: bool) -> None:
    """Write the network as ONNX: `input` [batch, 3, H, W] to `logits` [batch, classes].

    With `sidecar` the weights go into `<name>.data` beside the model.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    net = net.eval()
    example = torch.zeros(2, 3, img_size, img_size)
    with _quiet():
        torch.onnx.export(
            net,
            (example,),
            str(path),
            dynamo=True,
            opset_version=OPSET,
            input_names=["input"],
            output_names=["logits"],
            dynamic_shapes={"x": {0: torch.export.Dim("batch")}},
            external_data=sidecar,
            verbose=False,
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's chatter off the screen; its errors still rise."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def answer_onnx(model: Path, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits [N, classes] of an ONNX model on the CPU."""
    with open_engine(EngineRequest("onnx", model)) as engine:
        parts = [engine.run(inputs[i : i + _CHUNK]) for i in range(0, len(inputs), _CHUNK)]
    return np.concatenate(parts)


def answer_torch(net: nn.Module, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits [N, classes] of the network on the CPU."""
    with torch.inference_mode():
        parts = torch.split(torch.from_numpy(inputs), _CHUNK)
        return np.asarray(torch.cat([net(part) for part in parts]).numpy(), np.float32)


def compare_answers(
    reference: NDArray[np.float32], exported: NDArray[np.float32], config: Config
) -> ExportCompare:
    """How far the exported logits [N, classes] lie from the network's, against the limits."""
    parity = check_parity(softmax(reference), softmax(exported), config.parity)
    mismatches = round(parity.samples * parity.top1_mismatch_pct / 100)
    return ExportCompare(
        mode="softmax",
        sample_count=parity.samples,
        mse_mean=parity.mse_mean,
        mse_p99=parity.mse_p99,
        top1_match_rate=1.0 - mismatches / parity.samples,
        top1_mismatch_count=mismatches,
        failed=not parity.passed,
        failure_reason=None if parity.passed else parity.reason,
        notes="Torch and ONNX Runtime on the CPU, validation images",
    )


def export_generation(
    net: nn.Module,
    export_dir: Path,
    *,
    moment: datetime,
    git_sha: str,
    checkpoint: str,
    images: Sequence[str],
    golden: Sequence[tuple[str, Path]],
    names: Sequence[str],
    img_size: int,
    sidecar: bool,
    config: Config,
) -> ModelCard:
    """Export one network with its card into `export_dir` and return the card.

    `images` are compared; `golden` are (name in the card, file) of the images whose answers the
    card keeps.

    Raises:
        GateFailedError: the exported model answers otherwise than the network.
    """
    path = export_dir / f"model-{stamp(moment)}-{git_sha}.onnx"
    export_onnx(net, path, img_size, sidecar=sidecar)
    inputs = preprocess(images, img_size)
    compare = compare_answers(answer_torch(net, inputs), answer_onnx(path, inputs), config)
    if compare.failed:
        raise GateFailedError(f"{path.name}: differs from its network: {compare.failure_reason}")
    card = ModelCard(
        backbone="pillnet",
        num_classes=len(names),
        ckpt_path=checkpoint,
        onnx_path=f"{export_dir.name}/{path.name}",
        exported_at_utc=moment.isoformat(timespec="seconds"),
        git_sha=git_sha,
        input_shape=("batch", 3, img_size, img_size),
        opset=OPSET,
        dynamic_axes={"input": {"0": "batch"}, "logits": {"0": "batch"}},
        params_million=round(sum(p.numel() for p in net.parameters()) / 1e6, 4),
        providers=("CPUExecutionProvider",),
        postprocess="softmax",
        compare=compare,
        files=list_files(find_model_files(path)),
        class_names=tuple(names),
        golden=_answer_golden(path, golden, img_size),
    )
    card.write(path.with_suffix(".json"))
    return card


def _answer_golden(
    model: Path, golden: Sequence[tuple[str, Path]], img_size: int
) -> tuple[GoldenAnswer, ...]:
    inputs = preprocess([str(path) for _, path in golden], img_size)
    answers = softmax(answer_onnx(model, inputs))
    return tuple(
        GoldenAnswer(
            image=name,
            sha256=sha256_file(path),
            class_id=int(row.argmax()),
            probabilities=tuple(round(float(value), 7) for value in row),
        )
        for (name, path), row in zip(golden, answers, strict=True)
    )


def copy_golden(images: Sequence[str], export_dir: Path, count: int) -> list[tuple[str, Path]]:
    """Copy `count` images, spread evenly, to `golden/`; return (name, file) of each."""
    folder = export_dir / "golden"
    folder.mkdir(parents=True, exist_ok=True)
    chosen = [Path(images[i * len(images) // count]) for i in range(min(count, len(images)))]
    copies = []
    for path in chosen:
        target = folder / f"{path.parent.name}.jpg"
        shutil.copyfile(path, target)
        copies.append((f"golden/{target.name}", target))
    return copies
