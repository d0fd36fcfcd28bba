"""Quantizing a small real model: variants, gate, files kept, promotion, and what is refused."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from opslib.core.cards import ModelCard, read_card
from opslib.core.config import Config, load_config
from opslib.core.errors import (
    GateFailedError,
    InconclusiveError,
    InputError,
    ModelError,
    ParameterError,
)
from opslib.core.models import find_model_files
from opslib.ops.quantize import run as quantize_run
from opslib.ops.quantize.finding import describe_speedup, recommend
from opslib.ops.quantize.keep import copy_model
from opslib.ops.quantize.promote import find_variant, plan_promotion
from opslib.ops.quantize.record import QuantizeRecord, VariantRow
from opslib.ops.quantize.request import QuantizeRequest
from opslib.ops.quantize.run import run_quantize
from opslib.ops.quantize.setup import parse_samples
from opslib.ops.quantize.source import check_source
from opslib.ops.quantize.variants import (
    Variant,
    count_ops,
    list_variants,
    static_types,
)
from tests.models import write_onnx

COLOURS = {"blue": (0, 0, 220), "green": (0, 220, 0), "red": (220, 0, 0)}
SETTINGS = "quantize: {budget_s: 4, samples: 12}\nonnx: {providers: [CPU]}\n"


def write_colours(folder: Path, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for index in range(count):
            pixels = np.clip(rng.normal(colour, 25, (20, 20, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index}.jpg")


def write_colour_model(path: Path, *, sidecar: bool = False, bias: float = 0.0) -> Path:
    """Write a convolutional classifier that names the strongest colour, and return its path."""
    rng = np.random.default_rng(0)
    mixing = np.eye(3)[:, :, None, None] + rng.normal(0, 0.01, (3, 3, 3, 3))
    weights = [
        numpy_helper.from_array(mixing.astype(np.float32), "kernel"),
        numpy_helper.from_array(np.eye(3, dtype=np.float32)[::-1].copy(), "head"),
        numpy_helper.from_array(np.array([bias, 0, 0], dtype=np.float32), "bias"),
    ]
    nodes = [
        helper.make_node("Conv", ["input", "kernel"], ["mixed"], pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["mixed"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "head", "bias"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, 16, 16])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3])],
        weights,
    )
    opset = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    location = f"{path.name}.data"
    onnx.save_model(model, path, save_as_external_data=sidecar, location=location, size_threshold=0)
    return path


def write_card(model: Path) -> ModelCard:
    card = ModelCard(
        backbone="colours",
        num_classes=3,
        onnx_path=f"export/{model.name}",
        exported_at_utc="2026-01-01T00:00:00+00:00",
        input_shape=("N", 3, 16, 16),
        class_names=tuple(COLOURS),
    )
    card.write(model.with_suffix(".json"))
    return card


def make_config(folder: Path, extra: str = SETTINGS) -> Config:
    write_colours(folder / "images/val", 6, seed=1)
    write_colours(folder / "images/train", 4, seed=2)
    write_card(write_colour_model(folder / "exp/export/m.onnx", sidecar=True))
    (folder / "config.yaml").write_text(f"paths:\n  exp_dir: exp\n  data_root: images\n{extra}")
    return load_config(folder / "config.yaml", {})


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, QuantizeRecord]:
    """One whole quantization that several tests look at."""
    config = make_config(tmp_path_factory.mktemp("quantize"))
    request = QuantizeRequest(samples="all", out=config.exp_dir / "m.int8.onnx")
    return config, run_quantize(config, request)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return make_config(tmp_path)


def test_every_variant_is_made_answered_and_timed(done: tuple[Config, QuantizeRecord]) -> None:
    _, record = done
    names = ["float32", "dynamic", "dynamic-gemm", "static-minmax", "static-entropy"]
    assert [row.name for row in record.rows] == names
    assert record.gated == "dynamic"
    for row in record.rows:
        assert row.status == "measured", row.reason
        assert row.size_bytes
        assert [one.batch_size for one in row.speed] == [1, 8]
        assert all(one.row is not None for one in row.speed)
    for row in record.variants:
        assert row.accuracy is not None
        assert (row.accuracy.n, row.accuracy.rule) == (18, "met")
        assert all(one.comparison is not None for one in row.speed)
    assert record.row("dynamic").ops["ConvInteger"] == 1
    assert "ConvInteger" not in record.row("dynamic-gemm").ops
    assert record.row("static-minmax").ops["QuantizeLinear"] > 0


def test_the_record_says_how_it_came_about(
    done: tuple[Config, QuantizeRecord], tmp_path: Path
) -> None:
    config, record = done
    assert QuantizeRecord.read(record.write(tmp_path / "r.json")) == record
    assert (record.verdict, record.exit_code, record.labelled) == ("pass", 0, True)
    assert (record.provider, record.inputs.count) == ("CPU", 18)
    assert record.calibration is not None
    assert record.calibration.count == 12
    assert record.model.sha256 == find_model_files(config.exp_dir / "export/m.onnx").digest()
    assert record.baseline.size_bytes == record.model.size_bytes
    assert any("per_channel" in note for note in record.row("dynamic").notes)
    assert "The required variant (Dynamic QInt8)" in record.finding


def test_a_required_variant_that_cannot_be_made_is_a_row_with_its_reason_and_costs_no_other(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = quantize_run.quantize_variant

    def make(variant: Variant, **named: Any) -> tuple[str, ...]:
        if variant.gated:
            raise ModelError("its Attention cannot be quantized")
        return real(variant, **named)

    monkeypatch.setattr(quantize_run, "quantize_variant", make)
    record = run_quantize(config, QuantizeRequest(samples="all"))
    assert record.gated_row.status == "unavailable"
    assert record.gated_row.reason == "its Attention cannot be quantized"
    assert (record.verdict, record.exit_code) == ("inconclusive", 4)
    assert "(Dynamic QInt8) could not be made: its Attention cannot be" in record.finding
    assert record.row("static-minmax").status == "measured"
    assert (config.exp_dir / str(record.row("static-minmax").file)).is_file()


def test_int8_is_recommended_only_where_it_is_faster(done: tuple[Config, QuantizeRecord]) -> None:
    _, record = done

    def with_speed(row: VariantRow, speed: str) -> VariantRow:
        parts = tuple(one.model_copy(update={"speed": speed}) for one in row.speed)
        return row.model_copy(update={"speed": parts})

    base, *others = record.rows
    slow = [with_speed(row, "slower") for row in others]
    assert recommend([base, *slow]) is base
    unclear = [with_speed(row, "unclear") for row in others]
    assert recommend([base, *unclear]) is base
    fast = with_speed(others[2], "faster")
    assert recommend([base, *slow[:2], fast, slow[3]]) is fast
    failed = fast.model_copy(update={"verdict": "fail"})
    assert recommend([base, *slow[:2], failed, slow[3]]) is base
    text = quantize_run.sum_up([base, *slow], slow[0], base)
    assert text.startswith("Keep the float32 model")
    assert "do not deploy it" in text


def test_the_required_variant_goes_where_it_was_asked_for(
    done: tuple[Config, QuantizeRecord],
) -> None:
    config, record = done
    out = config.exp_dir / "m.int8.onnx"
    assert find_model_files(out).digest() == record.gated_row.sha256
    kept = sorted(path.name for path in (config.exp_dir / "quantized/m").iterdir())
    assert kept == sorted(
        f"{row.name}.{end}" for row in record.variants for end in ("json", "onnx")
    )
    assert not list((config.exp_dir / "quantized").glob(".*"))


def test_the_input_is_untouched(done: tuple[Config, QuantizeRecord]) -> None:
    config, record = done
    files = find_model_files(config.exp_dir / "export/m.onnx")
    assert files.digest() == record.model.sha256
    names = sorted(path.name for path in files.path.parent.iterdir())
    assert names == ["m.json", "m.onnx", "m.onnx.data"]


def test_a_kept_variant_has_a_complete_card(done: tuple[Config, QuantizeRecord]) -> None:
    config, record = done
    card = read_card(config.exp_dir / "quantized/m/static-minmax.onnx")
    assert card is not None
    assert card.class_names == tuple(COLOURS)
    assert card.files[0].sha256 == record.row("static-minmax").sha256
    assert card.compare is not None
    assert card.compare.sample_count == 18
    evidence = (card.model_extra or {})["quantization"]
    assert evidence["verdict"] == "pass"
    assert evidence["source_sha256"] == record.model.sha256


def set_evidence(path: Path, **changes: object) -> None:
    card = json.loads(path.with_suffix(".json").read_text())
    card["quantization"].update(changes)
    path.with_suffix(".json").write_text(json.dumps(card))


def test_promotion_writes_the_model_with_its_card_or_only_shows_it(
    done: tuple[Config, QuantizeRecord],
) -> None:
    config, record = done
    kept = config.exp_dir / "quantized/m/static-minmax.onnx"
    set_evidence(kept, speed={"1": "faster", "8": "faster"}, verdict="pass")
    before = set(config.export_dir.iterdir())
    plan = plan_promotion(config, "static-minmax")
    assert "model-" in plan.lines()[1]
    assert set(config.export_dir.iterdir()) == before
    assert not plan.execute().skipped
    (model,) = {
        path for path in set(config.export_dir.iterdir()) - before if path.suffix == ".onnx"
    }
    card = read_card(model)
    assert card is not None
    assert card.onnx_path == f"export/{model.name}"
    assert card.files[0].path == model.name
    assert card.files[0].sha256 == record.row("static-minmax").sha256
    assert (card.model_extra or {})["quantization"]["forced"] is False
    model.unlink()
    model.with_suffix(".json").unlink()


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"verdict": "fail"}, GateFailedError),
        ({"verdict": "inconclusive", "speed": {"1": "faster"}}, InconclusiveError),
        ({"verdict": "pass", "speed": {"1": "faster", "8": "slower"}}, GateFailedError),
        ({"verdict": "pass", "speed": {"1": "unclear"}}, InconclusiveError),
    ],
)
def test_promotion_against_the_evidence_needs_force_and_says_so_in_the_card(
    done: tuple[Config, QuantizeRecord], changes: dict[str, object], error: type[Exception]
) -> None:
    config, _ = done
    kept = config.exp_dir / "quantized/m/static-entropy.onnx"
    set_evidence(kept, **changes)
    with pytest.raises(error, match="--force"):
        plan_promotion(config, str(kept))
    plan = plan_promotion(config, str(kept), force=True)
    assert "FORCED" in plan.lines()[1]
    before = set(config.export_dir.iterdir())
    plan.execute()
    new = set(config.export_dir.iterdir()) - before
    card = next(read_card(path) for path in new if path.suffix == ".onnx")
    assert card is not None
    assert (card.model_extra or {})["quantization"]["forced"] is True
    for path in new:
        path.unlink()


def test_the_written_output_is_promoted_by_its_bytes(done: tuple[Config, QuantizeRecord]) -> None:
    config, _ = done
    kept = config.exp_dir / "quantized/m/dynamic.onnx"
    set_evidence(kept, speed={"1": "faster"}, verdict="pass")
    assert len(plan_promotion(config, str(config.exp_dir / "m.int8.onnx")).actions) == 1


def test_a_model_without_evidence_is_not_promoted(done: tuple[Config, QuantizeRecord]) -> None:
    config, _ = done
    with pytest.raises(ModelError, match="nothing was measured of it"):
        plan_promotion(config, str(config.export_dir / "m.onnx"))
    with pytest.raises(ModelError, match="kept variants: dynamic, dynamic-gemm"):
        plan_promotion(config, "static")


@pytest.mark.parametrize("name", ["", " ", ".", "~nosuchuser", "x" * 5000])
def test_a_name_that_can_be_no_variant_is_refused(tmp_path: Path, name: str) -> None:
    config = make_config(tmp_path, "")
    with pytest.raises(ModelError) as caught:
        find_variant(config, name)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


def test_broken_evidence_is_told_in_one_line(done: tuple[Config, QuantizeRecord]) -> None:
    config, _ = done
    kept = config.exp_dir / "quantized/m/static-entropy.onnx"
    card = kept.with_suffix(".json")
    before = card.read_bytes()
    set_evidence(kept, speed=7, verdict=[])
    try:
        with pytest.raises(ModelError, match="cannot be read: 'quantization") as caught:
            plan_promotion(config, str(kept))
    finally:
        card.write_bytes(before)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("text", ["9" * 5000, "0", "-1", "1e3", ""])
def test_an_impossible_number_of_samples_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ParameterError, match="--n-samples: got") as caught:
        parse_samples(text)
    assert len(str(caught.value)) < 200


def test_128_images_or_fewer_leave_the_proof_open(tmp_path: Path) -> None:
    extra = "quantize: {budget_s: 1, samples: 12, accuracy_gate: proven, batch: [1]}\n"
    config = make_config(tmp_path, extra)
    record = run_quantize(config, QuantizeRequest())
    assert (record.verdict, record.exit_code) == ("inconclusive", 4)
    accuracy = record.gated_row.accuracy
    assert accuracy is not None
    assert (accuracy.n, accuracy.rule, accuracy.images_to_settle) == (12, "met", 598)


def test_a_variant_that_loses_too_much_fails_the_gate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(tmp_path, "quantize: {budget_s: 1, batch: [1]}\n")

    def spoil(*_: object, target: Path, **__: object) -> tuple[str, ...]:
        write_colour_model(target, bias=50.0)
        return ()

    monkeypatch.setattr(quantize_run, "quantize_variant", spoil)
    record = run_quantize(config, QuantizeRequest())
    assert (record.verdict, record.exit_code) == ("fail", 3)
    assert record.recommended == "float32"
    accuracy = record.gated_row.accuracy
    assert accuracy is not None
    assert accuracy.proof == "disproven"
    with pytest.raises(GateFailedError, match="failed its accuracy gate"):
        plan_promotion(config, "dynamic")


def test_unlabelled_images_and_a_damaged_one_still_give_an_answer(tmp_path: Path) -> None:
    config = make_config(tmp_path, "quantize: {budget_s: 1, batch: [1]}\n")
    (tmp_path / "images/val/blue").rename(tmp_path / "images/val/unknown")
    (tmp_path / "images/val/unknown/broken.jpg").write_bytes(b"no image")
    record = run_quantize(config, QuantizeRequest(samples="all"))
    assert (record.labelled, record.exit_code) == (False, 9)
    accuracy = record.gated_row.accuracy
    assert accuracy is not None
    assert (accuracy.drop_pp, accuracy.rule) == (None, "met")
    assert "unlabelled" in record.finding


def test_calibration_images_are_never_validated_on(config: Config) -> None:
    folder = config.data_root
    twin = folder / "train/red/twin.jpg"
    twin.write_bytes((folder / "val/red/0.jpg").read_bytes())
    setup = quantize_run.prepare_quantize(config, QuantizeRequest(samples="all"))
    assert setup.calibration is not None
    assert twin not in setup.calibration.paths
    assert len(setup.calibration.paths) == 12


def test_without_calibration_images_the_static_variants_say_so(config: Config) -> None:
    (config.data_root / "train").rename(config.data_root / "elsewhere")
    setup = quantize_run.prepare_quantize(config, QuantizeRequest())
    assert setup.calibration is None
    assert "name some with --calibration" in (setup.calibration_note or "")


def quantized(path: Path) -> Path:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    source = write_colour_model(path.with_name("source.onnx"))
    quantize_dynamic(str(source), str(path), weight_type=QuantType.QInt8)
    return path


def without_sidecar(path: Path) -> Path:
    write_colour_model(path, sidecar=True)
    path.with_name(f"{path.name}.data").unlink()
    return path


def without_work(path: Path) -> Path:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["input"], ["out"])],
        "nothing",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, 16, 16])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["N", 3, 16, 16])],
    )
    onnx.save(helper.make_model(graph), path)
    return path


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (quantized, r"already quantized \(1 ConvInteger"),
        (lambda path: write_onnx(path, dtype=TensorProto.FLOAT16), "a float16 model"),
        (without_sidecar, r"m\.onnx\.data is missing beside it"),
        (without_work, "no operator that can be quantized"),
        (lambda path: path, "no such file"),
    ],
)
def test_what_cannot_be_quantized_is_refused_in_one_line(
    tmp_path: Path, write: Callable[[Path], Path], message: str
) -> None:
    model = write(tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=message) as caught:
        check_source(model)
    assert int(caught.value.exit_code) == 2
    assert "\n" not in str(caught.value)


def test_an_operator_unknown_to_the_runtime_is_refused(config: Config) -> None:
    path = config.exp_dir / "export/m.onnx"
    model = onnx.load(path)
    model.graph.node[1].domain = "no.such.domain"
    model.opset_import.append(helper.make_opsetid("no.such.domain", 1))
    onnx.save(model, path)
    with pytest.raises(ModelError, match="ONNX Runtime refuses it") as caught:
        run_quantize(config, QuantizeRequest())
    assert "\n" not in str(caught.value)


def test_x86_gets_unsigned_activations_and_others_signed_ones() -> None:
    assert static_types("x86_64") == "U8S8"
    assert static_types("aarch64") == "S8S8"
    assert "S8S8" in list_variants("arm64")[2].how
    assert [one.name for one in list_variants() if one.gated] == ["dynamic"]


def test_operators_are_counted(tmp_path: Path) -> None:
    assert count_ops(write_colour_model(tmp_path / "m.onnx"))["Conv"] == 1


def test_speed_is_said_as_people_say_it() -> None:
    assert describe_speedup(2.04) == "2.0 times as fast"
    assert describe_speedup(0.2) == "5.0 times slower"
    assert describe_speedup(0.97) == "0.97 times as fast"


def test_a_variant_with_a_damaged_card_is_not_taken_for_one_without(
    done: tuple[Config, QuantizeRecord],
) -> None:
    config, _ = done
    kept = config.exp_dir / "quantized/m/dynamic.onnx"
    text = kept.with_suffix(".json").read_bytes()
    kept.with_suffix(".json").write_bytes(b"")
    try:
        with pytest.raises(InputError, match=r"dynamic.json: evidence that is there"):
            plan_promotion(config, "dynamic")
    finally:
        kept.with_suffix(".json").write_bytes(text)


@pytest.mark.parametrize("linked", [os.link, os.symlink])
def test_a_copy_with_weights_can_be_read_by_who_reads_the_model(
    tmp_path: Path, linked: Callable[[Path, Path], None]
) -> None:
    source = write_onnx(tmp_path / "m.onnx", sidecar=True)
    sidecar = find_model_files(source).sidecars[0]
    other = tmp_path / "elsewhere"
    sidecar.rename(other)
    linked(other, sidecar)
    (tmp_path / "export").mkdir()
    target = copy_model(source, tmp_path / "export" / "copy.onnx")
    copied = find_model_files(target)
    assert len(copied.sidecars) == 1
    assert {one.stat().st_mode & 0o777 for one in copied.all} == {target.stat().st_mode & 0o777}
    assert target.stat().st_mode & 0o044
    onnx.checker.check_model(str(target))
