"""Promotion: a kept INT8 variant becomes an exported model, with a complete card, or is refused."""

from functools import partial
from pathlib import Path

from pydantic import ValidationError

from opslib.core.cards import FileEntry, ModelCard, read_card
from opslib.core.config import Config
from opslib.core.errors import GateFailedError, InconclusiveError, ModelError, OpsError
from opslib.core.files import sha256_file
from opslib.core.formatting import format_bytes, stamp, utc_now
from opslib.core.lineage import git_sha
from opslib.core.models import ModelFiles, find_model_files
from opslib.core.plans import Action, Plan
from opslib.inference.checks import ModelCheck, check_model
from opslib.inference.find_model import find_onnx
from opslib.inference.preprocess import load_preprocessor
from opslib.ops.quantize.keep import QuantizationEvidence, copy_model
from opslib.ops.quantize.setup import KEPT_FOLDER


def plan_promotion(config: Config, model: str, *, force: bool = False) -> Plan:
    """Return the plan that puts a quantized model into `export/` with its card.

    The file is taken through every stage of the model check first: its digest, a trial load, the
    contract, its outputs and its golden answers.

    `model`: a file, or the name of a variant of the model in service, such as `static-minmax`.
    `force`: promote although the evidence is against it; the card says so. Raises ModelError: it is
    no quantized model with evidence, or it fails a check; GateFailedError: it failed its accuracy
    gate or is slower, and `force` is off; InconclusiveError: the evidence does not decide, and
    `force` is off.
    """
    path = find_variant(config, model)
    card, evidence = find_evidence(config, path)
    check_variant(config, path, card)
    objection = find_objection(evidence)
    if objection is not None and not force:
        raise objection
    moment, sha, forced = utc_now(), git_sha(config.code_root or config.root), None
    target = config.export_dir / f"model-{stamp(moment)}-{sha}.onnx"
    why = f"{evidence.how}, from {evidence.source}"
    if objection is not None:
        forced = str(objection)
        why += f"; FORCED: {forced}"
    told = evidence.model_copy(update={"forced": forced is not None, "forced_because": forced})
    promoted = card.model_copy(
        update={
            "onnx_path": f"{config.export_dir.name}/{target.name}",
            "exported_at_utc": moment.isoformat(timespec="seconds"),
            "git_sha": sha,
            "quantization": told.model_dump(),
        }
    )
    run = partial(_promote, path, target, promoted)
    size = format_bytes(find_model_files(path).size_bytes)
    what = f"{target} ({size}) and {target.stem}.json"
    return Plan("promotion", (Action("write", what, why, run),))


def find_variant(config: Config, model: str) -> Path:
    """Return the file meant: a path, or a kept variant's name. Raises ModelError: there is no such
    file; the message says which variants there are."""
    if not model.strip():
        raise ModelError(f"got {model!r}; expected a quantized file or the name of a variant")
    try:
        given = Path(model).expanduser()
        if given.is_dir():
            raise ModelError(f"{model}: is a folder; expected a quantized file or a variant's name")
        there_already = given.exists()
    except (RuntimeError, OSError) as error:
        shown = model if len(model) <= 80 else f"{model[:80]}..."
        reason = getattr(error, "strerror", None) or error
        raise ModelError(f"{shown!r}: cannot be looked up: {reason}") from error
    if given.suffix == ".onnx" or there_already:
        return given.absolute() if there_already else config.resolve(given)
    folder = config.exp_dir / KEPT_FOLDER / find_onnx(config).resolve().stem
    path = folder / f"{model}.onnx"
    if path.is_file():
        return path
    there = ", ".join(sorted(one.stem for one in folder.glob("*.onnx")))
    hint = f"kept variants: {there}" if there else "make them with `pillops quantize`"
    raise ModelError(f"{model}: no such file or variant; {hint}")


def find_evidence(config: Config, path: Path) -> tuple[ModelCard, QuantizationEvidence]:
    """Return the card and evidence of a quantized model: beside it, or that of a kept variant with
    the same bytes. Raises ModelError: there is none; InputError: a card is there but cannot be
    read."""
    files = find_model_files(path)
    digest, folder = sha256_file(files.path), config.exp_dir / KEPT_FOLDER
    same = (one for one in sorted(folder.glob("*/*.onnx")) if sha256_file(one) == digest)
    for card in filter(None, map(read_card, (path, *same))):
        found = (card.model_extra or {}).get("quantization")
        if found is None:
            continue
        try:
            return _rename_files(card, files), QuantizationEvidence.model_validate(found)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, ("quantization", *first["loc"])))
            raise ModelError(
                f"{path}: its card's evidence cannot be read: {key!r}: {first['msg']}"
            ) from error
    raise ModelError(
        f"{path}: nothing was measured of it as an INT8 variant; run `pillops quantize` first"
    )


def check_variant(config: Config, path: Path, card: ModelCard) -> ModelCheck:
    """Take the variant through every stage of the model check; see `check_model`."""
    preprocessor = load_preprocessor(config.preprocess.function, config.code_root)
    return check_model(
        path,
        card,
        preprocess=preprocessor.run_checked,
        img_size=config.preprocess.img_size,
        card_folder=config.export_dir,
    )


def find_objection(evidence: QuantizationEvidence) -> OpsError | None:
    """Return why a variant should not be promoted, or None."""
    name, speeds = evidence.variant, evidence.speed.values()
    hint = "--force promotes it all the same and says so in its card"
    if evidence.verdict == "fail":
        return GateFailedError(f"{name} failed its accuracy gate; {hint}")
    if "slower" in speeds:
        return GateFailedError(f"{name} is slower than the float32 model; {hint}")
    if evidence.verdict == "inconclusive":
        return InconclusiveError(f"{name}: its accuracy gate did not decide; {hint}")
    if "faster" not in speeds:
        return InconclusiveError(f"{name} is not measurably faster than float32; {hint}")
    return None


def _promote(source: Path, target: Path, card: ModelCard) -> None:
    """Write the card first and the model last: a model in export/ is never without its card."""
    files = find_model_files(source)
    if files.sidecars:
        files = find_model_files(copy_model(source, target))
    named = files if files.sidecars else ModelFiles(target)
    _rename_files(card, named, like=files).write(target.with_suffix(".json"))
    if not files.sidecars:
        copy_model(source, target)


def _rename_files(card: ModelCard, files: ModelFiles, like: ModelFiles | None = None) -> ModelCard:
    """The card with its file entries named as `files` and measured on `like` (or on them)."""
    measured = like or files
    entries = tuple(
        FileEntry(path=name.name, size=one.stat().st_size, sha256=sha256_file(one))
        for name, one in zip(files.all, measured.all, strict=True)
    )
    return card.model_copy(update={"files": entries})
