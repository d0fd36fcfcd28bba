"""A quantization from end to end: make the variants, try, judge and time them, keep the files.

Everything is made in a folder of its own inside the experiment. Only once all is measured do the
variants take their names; the input model is never written to.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from opslib.core.config import Config
from opslib.core.errors import ModelError
from opslib.core.files import hidden_folder
from opslib.core.formatting import stamp
from opslib.core.lineage import record_lineage
from opslib.core.models import find_model_files
from opslib.core.verdicts import exit_code_of
from opslib.inference import contract as rules
from opslib.inference.causes import ModelCheckError, shorten_error
from opslib.inference.engine import EngineRequest
from opslib.inference.facts import ModelFacts, describe_inputs
from opslib.inference.golden import load_golden
from opslib.inference.trial import TrialResult, join_images, try_model
from opslib.ops.quantize import accuracy as acc
from opslib.ops.quantize.divergence import find_divergence
from opslib.ops.quantize.finding import explain, judge_gate, recommend, sum_up
from opslib.ops.quantize.keep import keep_variants
from opslib.ops.quantize.preparation import prepare_graph, prepare_model
from opslib.ops.quantize.record import QuantizeRecord, VariantRow
from opslib.ops.quantize.request import QuantizeRequest
from opslib.ops.quantize.setup import QuantizeSetup, prepare_quantize
from opslib.ops.quantize.source import copy_source
from opslib.ops.quantize.speed import measure_speed
from opslib.ops.quantize.variants import Variant, count_ops, list_variants, quantize_variant
from opslib.telling.operation import Progress
from opslib.timing.disturbance import watch_disturbance
from opslib.timing.lock import hold_timing_lock
from opslib.timing.rounds import Deadline

BASELINE = Variant("float32", "Float32", "the exported model as it is", static=False)
DIVERGENCE_IMAGES = 4
_SHARES = {"make": (0.0, 0.2), "answer": (0.2, 0.45), "time": (0.45, 1.0)}


@dataclass(frozen=True)
class _Made:
    """A variant that was made and tried, or why it was not."""

    variant: Variant
    path: Path | None
    trial: TrialResult | None = None
    notes: tuple[str, ...] = ()
    reason: str | None = None


@dataclass(frozen=True)
class _Sources:
    """What is quantized: the float32 graph, the same optimized, and what was done to it first."""

    graph: Path
    optimized: Path
    prepared: tuple[str, ...]


@dataclass(frozen=True)
class _Quantization:
    """One quantization under way."""

    setup: QuantizeSetup
    images: NDArray[np.float32]
    golden_count: int
    contract: rules.Contract
    progress: Progress

    def report(self, part: str, share: float, what: str) -> None:
        low, high = _SHARES[part]
        self.progress(low + (high - low) * min(1.0, share), what)


def run_quantize(
    config: Config, request: QuantizeRequest, *, progress: Progress = lambda _share, _what: None
) -> QuantizeRecord:
    """Return the record of a quantization; the variants are kept under `{exp_dir}/quantized`. The
    verdict is what the configured accuracy gate says of the required variant. Raises UsageError:
    the request cannot be carried out; nothing was written but empty folders; ModelError: the model
    cannot be loaded or prepared."""
    clock = Deadline(None)
    setup = prepare_quantize(config, request)
    section = config.quantize
    with (
        hold_timing_lock("a quantization"),
        hidden_folder(setup.kept) as making,
        watch_disturbance(gpu=False) as watch,
    ):
        run, trial = _begin(setup, progress)
        sources = _prepare(run, making, trial)
        variants = list_variants()
        made = [_make(run, one, at, len(variants), sources) for at, one in enumerate(variants)]
        models = {BASELINE.name: setup.model}
        models |= {one.variant.name: one.path for one in made if one.path is not None}
        rows = _judge_rows(run, made, models, sources.graph)
        speeds = measure_speed(
            {name: setup.at(path, 1) for name, path in models.items()},
            setup.workload(),
            section.batch,
            config.bench,
            budget_s=setup.budget_s,
            seed=section.seed,
            report=lambda share, what: run.report("time", share, what),
        )
        rows = [row.model_copy(update={"speed": speeds.get(row.name, ())}) for row in rows]
        gated = next(row for row in rows if row.gated)
        recommended = recommend(rows)
        verdict = gated.verdict or "inconclusive"
        kept = [(row, models[row.name]) for row in rows[1:] if row.name in models]
        golden = {
            one.variant.name: one.trial.probabilities()[: run.golden_count]
            for one in made
            if one.trial is not None
        }
        files = keep_variants(setup, kept, golden)
    progress(1.0, "done")
    source = find_model_files(setup.model)
    return QuantizeRecord(
        verdict=verdict,
        finding=sum_up(rows, gated, recommended),
        exit_code=exit_code_of(verdict, skipped=bool(setup.images.skipped)),
        lineage=record_lineage(),
        model=ModelFacts(
            name=source.path.name,
            sha256=source.digest(),
            size_bytes=source.size_bytes,
            num_classes=trial.num_classes,
            input_shape=trial.inputs[0].shape,
            input_dtype=trial.dtype,
        ),
        inputs=describe_inputs(setup.images, config.root),
        calibration=describe_inputs(setup.calibration, config.root) if setup.calibration else None,
        preprocess=config.preprocess.function,
        img_size=setup.img_size,
        accuracy_gate=section.accuracy_gate,
        max_drop_pp=setup.max_drop_pp,
        gated=gated.name,
        labelled=setup.labels.known,
        label_note=setup.labels.note,
        provider="CPU",
        batch_sizes=tuple(section.batch),
        seed=section.seed,
        budget_s=setup.budget_s,
        wall_s=round(clock.spent_s, 3),
        disturbance=watch.result(),
        recommended=recommended.name,
        recommendation=explain(recommended, rows[0]),
        rows=tuple(row.model_copy(update=files.get(row.name, {})) for row in rows),
        prepared=sources.prepared,
    )


def keep_quantize(record: QuantizeRecord, config: Config, path: Path | None = None) -> Path:
    """Write the record to `path`, by default `{exp_dir}/reports/quantize_<UTC>.json`."""
    return record.write(path or config.records_dir / f"quantize_{stamp()}.json")


def _begin(setup: QuantizeSetup, progress: Progress) -> tuple[_Quantization, TrialResult]:
    """Try the float32 model in a child, on the probes and on its golden images."""
    progress(0.0, "trying the float32 model")
    card, folder = setup.card, setup.model.resolve().parent
    rules.check_input(setup.model, setup.img_size)
    golden = None
    if card is not None and card.golden:
        golden = load_golden(card, folder, setup.preprocessor.run_checked, setup.img_size)
    probes = rules.probe_images(setup.img_size)
    images = join_images(golden, probes)
    trial = try_model(setup.model, images=images)
    rules.check_contract(setup.model, trial, rules.Contract.from_card(card) if card else None)
    rules.check_outputs(setup.model, trial.answered(), differing=rules.PROBES)
    contract = rules.Contract.from_trial(trial)
    count = 0 if golden is None else len(golden)
    return _Quantization(setup, images, count, contract, progress), trial


def _prepare(run: _Quantization, folder: Path, trial: TrialResult) -> _Sources:
    """Make the model ready for the quantizers. Raises ModelError: the model cannot be prepared."""
    run.report("make", 0.05, "preparing the model")
    work = folder / "source"
    work.mkdir()
    copy = copy_source(run.setup.model, work)
    graph = prepare_graph(copy, folder / "graph.onnx", run.images, trial.answered())
    return _Sources(graph.path, prepare_model(graph.path, folder / "prepared.onnx"), graph.done)


def _make(run: _Quantization, variant: Variant, at: int, count: int, sources: _Sources) -> _Made:
    target = sources.optimized.parent / f"{variant.name}.onnx"
    run.report("make", at / count, f"making variants: {variant.title}")
    try:
        notes = quantize_variant(
            variant,
            source=sources.graph,
            prepared=sources.optimized,
            target=target,
            calibration=run.setup.calibration_images(),
            report=lambda share, what: run.report("make", (at + share) / count, what),
        )
        trial = try_model(target, images=run.images)
        rules.check_contract(target, trial, run.contract)
        rules.check_outputs(target, trial.answered(), differing=rules.PROBES)
    except ModelError as error:
        reason = str(error).replace(f"{target}: ", "")
        if variant.static and run.setup.calibration is None:
            reason = run.setup.calibration_note or reason
        if isinstance(error, ModelCheckError):
            reason = f"it does not stand its trial ({error.stage}): {reason}"
        return _Made(variant, None, reason=reason)
    return _Made(variant, target, trial, notes)


def _judge_rows(
    run: _Quantization, made: list[_Made], models: dict[str, Path], graph: Path
) -> list[VariantRow]:
    setup, batch = run.setup, max(run.setup.config.quantize.batch)
    requests = {name: setup.at(path, batch, spinning=False) for name, path in models.items()}
    answers = acc.predict(
        requests,
        setup.names,
        setup.preprocessor,
        setup.img_size,
        lambda share, what: run.report("answer", 0.7 * share, what),
    )
    rows = [_describe(BASELINE, setup.model)]
    for at, one in enumerate(made):
        what = f"alone and in a batch: {one.variant.title}"
        run.report("answer", 0.7 + 0.3 * at / len(made), what)
        found = _judge(run, one, answers, requests, graph) if one.path else {}
        rows.append(_describe(one.variant, one.path, reason=one.reason, **found))
    return rows


def _judge(
    run: _Quantization,
    made: _Made,
    answers: dict[str, acc.Predictions],
    requests: dict[str, EngineRequest],
    graph: Path,
) -> dict[str, Any]:
    """What was found out about a variant, as its row says it."""
    setup, name = run.setup, made.variant.name
    before, after = answers[BASELINE.name], answers[name]
    accuracy = acc.judge_accuracy(before, after, setup.labels, setup.max_drop_pp)
    flips = acc.list_flips(
        setup.images.paths, before, after, setup.labels, setup.class_names, setup.images.folder
    )
    checked = setup.names[:: -(-len(setup.names) // run.setup.config.quantize.batch_check_images)]
    return {
        "accuracy": accuracy,
        "verdict": judge_gate(accuracy, run.setup.config.quantize.accuracy_gate),
        "flips": flips,
        "by_class": acc.count_flips(
            flips, acc.class_sizes(before, setup.labels, setup.class_names)
        ),
        "notes": made.notes,
        "batch_dependence": acc.check_batch_dependence(
            requests[name], checked, setup.preprocessor, setup.img_size
        ),
        **({} if accuracy.rule == "met" else _locate(setup, made, graph, before, after)),
    }


def _locate(
    setup: QuantizeSetup,
    made: _Made,
    graph: Path,
    before: acc.Predictions,
    after: acc.Predictions,
) -> dict[str, Any]:
    """Where a variant that loses accuracy parts from float32, told by the images that it lost."""
    lost = np.flatnonzero(before.classes != after.classes)[:DIVERGENCE_IMAGES]
    names = [setup.names[at] for at in lost.tolist()]
    images = setup.preprocessor.run_checked(names, setup.img_size)
    try:
        return {"divergence": find_divergence(graph, made.path or graph, images)}
    except Exception as error:  # ONNX Runtime's own classes share no base but Exception
        why = f"Which layer loses the accuracy could not be found out: {shorten_error(error)}."
        return {"notes": (*made.notes, why)}


def _describe(variant: Variant, path: Path | None, **found: Any) -> VariantRow:
    if path is not None:
        files = find_model_files(path)
        found |= {"sha256": files.digest(), "size_bytes": files.size_bytes, "ops": count_ops(path)}
    return VariantRow(
        name=variant.name,
        title=variant.title,
        how=variant.how,
        gated=variant.gated,
        status="measured" if path else "unavailable",
        **found,
    )
