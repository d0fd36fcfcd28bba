"""Keeping the variants of a quantization, each with a card that says what was measured of it."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from opslib.core.cards import ExportCompare, ModelCard, list_files
from opslib.core.errors import storage_errors
from opslib.core.files import fsync_folder, hidden_folder, open_atomic
from opslib.core.formatting import utc_now
from opslib.core.lineage import git_sha
from opslib.core.models import find_model_files
from opslib.core.ownership import make_folder
from opslib.core.records import Part
from opslib.core.verdicts import Verdict
from opslib.inference.golden import answer_golden
from opslib.inference.postprocess import find_postprocess
from opslib.ops.quantize.record import Proof, Rule, Speed, VariantRow
from opslib.ops.quantize.setup import QuantizeSetup
from opslib.ops.quantize.source import copy_source


class QuantizationEvidence(Part):
    """What was measured of a variant, kept in its card under `quantization`. `verdict` is the
    accuracy gate's. `speed` and `speedup` are against float32 on the CPU, by batch size. `forced`
    says that it was promoted although the evidence spoke against it."""

    variant: str
    how: str
    source: str
    source_sha256: str
    gate: Literal["rule", "proven"]
    verdict: Verdict
    rule: Rule
    proof: Proof
    n: int
    drop_pp: float | None
    drop_max_pp: float
    disagreement_pct: float
    max_drop_pp: float
    speed: dict[str, Speed]
    speedup: dict[str, float]
    forced: bool = False
    forced_because: str | None = None


def keep_variants(
    setup: QuantizeSetup,
    kept: Sequence[tuple[VariantRow, Path]],
    golden: Mapping[str, NDArray[np.float32]],
) -> dict[str, dict[str, Any]]:
    """Move the variants to `{exp_dir}/quantized/<model>/` with their cards, and the required one to
    where it was asked for too; return each one's `file` relative to the experiment. `golden`:
    logits `[N, C]` that each variant gives to the golden images of the model's card."""
    updates: dict[str, dict[str, Any]] = {}
    make_folder(setup.kept)
    for row, path in kept:
        target = setup.kept / f"{row.name}.onnx"
        copy_model(path, target)
        make_card(setup, row, target, golden).write(target.with_suffix(".json"))
        updates[row.name] = {"file": target.relative_to(setup.config.exp_dir).as_posix()}
        if row.gated and setup.out is not None:
            copy_model(path, setup.out)
    return updates


def copy_model(source: Path, target: Path) -> Path:
    """Copy a model with its sidecars under a new name, in one step; return `target`. A sidecar is
    renamed to `<target>.data`, and the model refers to it by that name. Raises StorageError: the
    folder cannot be written."""
    files = find_model_files(source)
    if not files.sidecars:
        with open_atomic(target) as file, source.open("rb") as data:
            shutil.copyfileobj(data, file, 1 << 20)
        return target
    import onnx

    sidecar = f"{target.name}.data"
    with storage_errors(f"write {target}"), hidden_folder(target) as folder:
        aside, read = folder / target.name, folder / "read"
        read.mkdir()
        model = onnx.load(copy_source(source, read))  # onnx takes no weights that are linked
        onnx.save_model(
            model, aside, save_as_external_data=True, location=sidecar, size_threshold=0
        )
        shutil.copymode(aside, folder / sidecar)  # onnx makes it for its writer alone
        (folder / sidecar).replace(target.parent / sidecar)
        aside.replace(target)
        fsync_folder(target.parent)
    return target


def make_card(
    setup: QuantizeSetup,
    row: VariantRow,
    path: Path,
    golden: Mapping[str, NDArray[np.float32]],
) -> ModelCard:
    """Return the card of a kept variant: its files, its own golden answers, its evidence."""
    accuracy, config, failed = row.accuracy, setup.config, row.verdict == "fail"
    if accuracy is None:
        raise ValueError(f"{row.name} was not measured")
    shape = ("batch", 3, setup.img_size, setup.img_size)
    card = setup.card or ModelCard(onnx_path="", input_shape=shape)
    source = find_model_files(setup.model)
    measured = accuracy.model_dump(include=set(QuantizationEvidence.model_fields))
    evidence = QuantizationEvidence(
        **measured,
        variant=row.name,
        how=row.how,
        source=source.path.name,
        source_sha256=source.digest(),
        gate=config.quantize.accuracy_gate,
        verdict=row.verdict or "inconclusive",
        speed={str(one.batch_size): one.speed for one in row.speed},
        speedup={str(size): round(one, 4) for size, one in row.speedups.items()},
    )
    compare = ExportCompare(
        mode="softmax",
        sample_count=accuracy.n,
        mse_mean=accuracy.mse_mean,
        mse_p99=accuracy.mse_p99,
        top1_match_rate=1.0 - accuracy.flipped / accuracy.n,
        top1_mismatch_count=accuracy.flipped,
        failed=failed,
        failure_reason="over the allowed accuracy drop" if failed else None,
        notes="INT8 against the float32 model, ONNX Runtime on the CPU, validation images",
    )
    answers = golden.get(row.name) if card.golden else None
    counts = card.num_classes, *(int(one.shape[-1]) for one in golden.values())
    extra: dict[str, Any] = {"quantization": evidence.model_dump()}
    return ModelCard(
        backbone=card.backbone or "unknown",
        num_classes=next(filter(None, counts)) if answers is None else len(answers[0]),
        ckpt_path=card.ckpt_path,
        onnx_path=str(path),
        exported_at_utc=utc_now().isoformat(timespec="seconds"),
        git_sha=git_sha(config.code_root or config.root),
        input_shape=card.input_shape,
        opset=_opset(path),
        dynamic_axes=card.dynamic_axes,
        params_million=card.params_million,
        providers=("CPUExecutionProvider",),
        postprocess=card.postprocess or find_postprocess(path),
        compare=compare,
        train_data_sha256=card.train_data_sha256,
        files=list_files(find_model_files(path)),
        class_names=setup.class_names,
        golden=answer_golden(card.golden, answers) if answers is not None else (),
        **extra,
    )


def _opset(path: Path) -> int | None:
    import onnx

    model = onnx.load(path, load_external_data=False)
    return next((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), None)
