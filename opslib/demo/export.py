"""Exporting a generation to ONNX, with its card: digests, comparison and golden answers."""

import contextlib
import io
import logging
import shutil
import warnings
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from torch import nn

from opslib.core.cards import REPORT_NAME, ExportCompare, GoldenAnswer, ModelCard, list_files
from opslib.core.config import Config
from opslib.core.errors import GateFailedError
from opslib.core.files import link_atomic, sha256_file, sha256_tree
from opslib.core.formatting import stamp, utc_now
from opslib.core.lineage import git_sha
from opslib.core.models import find_model_files
from opslib.demo.network import build_network
from opslib.demo.pills import DemoSize
from opslib.demo.training import Generation, list_images
from opslib.inference.engine import EngineRequest
from opslib.inference.golden import answer_golden
from opslib.inference.opening import open_engine
from opslib.inference.parity import check_parity
from opslib.inference.postprocess import softmax
from opslib.inference.preprocess import preprocess

FACTORY = "opslib.demo.network:build_network"
OPSET = 20
Logits = NDArray[np.float32]


def export_generations(
    generations: tuple[Generation, Generation],
    config: Config,
    data_root: Path,
    names: Sequence[str],
    size: DemoSize,
    exp_dir: Path,
    export_dir: Path,
) -> tuple[ModelCard, ModelCard]:
    """Write the checkpoints, models and cards of the newer and the older generation; return the
    cards. The older one's weights go into a sidecar. Raises GateFailedError: an exported model
    answers otherwise than its network."""
    held = [path for path, _ in list_images(data_root, "val", names)]
    inputs = preprocess(_spread(held, size.compare_images), size.img_size)
    golden = []
    (export_dir / "golden").mkdir(parents=True)
    for one in _spread(held, size.golden):
        golden.append(export_dir / "golden" / f"{Path(one).parent.name}.jpg")
        shutil.copyfile(one, golden[-1])
    learned = sha256_tree([Path(path) for path, _ in list_images(data_root, "train", names)])
    git, began = git_sha(config.root), utc_now()
    newer, older = generations
    cards = []
    for place, (label, generation) in enumerate((("previous", older), ("best", newer))):
        checkpoint = f"checkpoints/{label}.pt"
        kept = {  # nothing that `torch.load(weights_only=True)` would refuse
            "state_dict": generation.weights,
            "factory": FACTORY,
            "num_classes": len(names),
            "img_size": size.img_size,
            "class_names": list(names),
            "git_sha": git,
            "epoch": generation.epoch,
            "metrics": {"val_top1": generation.top1, "val_loss": generation.loss},
        }
        torch.save(kept, exp_dir / checkpoint)
        net = build_network(len(names)).eval()
        net.load_state_dict(generation.weights)
        # One stamp a second: the two must not share a name.
        moment = max(utc_now(), began + timedelta(seconds=place))
        path = export_dir / f"model-{stamp(moment)}-{git}.onnx"
        export_onnx(net, path, size.img_size, sidecar=generation is older)
        with torch.inference_mode():
            reference = net(torch.from_numpy(inputs)).numpy()
        compare = compare_answers(reference, answer_onnx(path, inputs), config)
        if compare.failed:
            why = compare.failure_reason
            raise GateFailedError(f"{path.name}: differs from its network: {why}")
        card = ModelCard(
            backbone="pillnet",
            num_classes=len(names),
            ckpt_path=checkpoint,
            onnx_path=f"{export_dir.name}/{path.name}",
            exported_at_utc=moment.isoformat(timespec="seconds"),
            git_sha=git,
            input_shape=("batch", 3, size.img_size, size.img_size),
            opset=OPSET,
            dynamic_axes={"input": {"0": "batch"}, "logits": {"0": "batch"}},
            params_million=round(sum(p.numel() for p in net.parameters()) / 1e6, 4),
            providers=("CPUExecutionProvider",),
            postprocess="softmax",
            compare=compare,
            train_data_sha256=learned,
            files=list_files(find_model_files(path)),
            class_names=tuple(names),
            golden=_answer_golden(path, golden, size.img_size),
        )
        card.write(path.with_suffix(".json"))
        cards.append(card)
    card.write(export_dir / REPORT_NAME)
    link_atomic(export_dir / "latest.onnx", path.name)
    return cards[1], cards[0]


def _spread(paths: Sequence[str], count: int) -> list[str]:
    """At most `count` of the paths, spread evenly."""
    count = min(count, len(paths))
    return [paths[place * len(paths) // count] for place in range(count)]


def export_onnx(net: nn.Module, path: Path, img_size: int, *, sidecar: bool) -> None:
    """Write the network as ONNX: `input` [batch, 3, H, W] to `logits` [batch, classes], without
    the exporter's metadata, such as stack traces with paths. With `sidecar` the weights go into
    `<name>.data` beside the model."""
    example = torch.zeros(2, 3, img_size, img_size)
    with _quiet():
        program = torch.onnx.export(
            net,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=["input"],
            output_names=["logits"],
            dynamic_shapes={"x": {0: torch.export.Dim("batch")}},
            verbose=False,
        )
        written = cast(torch.onnx.ONNXProgram, program)  # None for the old exporter alone
        ClearMetadataAndDocStringPass()(written.model)
        written.save(str(path), external_data=sidecar)


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


def answer_onnx(model: Path, inputs: NDArray[np.float32]) -> Logits:
    """Logits [N, classes] of an ONNX model on the CPU."""
    with open_engine(EngineRequest("onnx", model)) as engine:
        return engine.run(inputs)


def compare_answers(reference: Logits, exported: Logits, config: Config) -> ExportCompare:
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


def _answer_golden(model: Path, golden: Sequence[Path], img_size: int) -> tuple[GoldenAnswer, ...]:
    named = [{"image": f"golden/{path.name}", "sha256": sha256_file(path)} for path in golden]
    empty = tuple(GoldenAnswer(**one, class_id=0, probabilities=()) for one in named)
    inputs = preprocess([str(path) for path in golden], img_size)
    return answer_golden(empty, softmax(answer_onnx(model, inputs)))
