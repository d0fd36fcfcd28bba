"""The benchmark on small real models: every row is a figure or says why it is none."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from opslib.core.config import Config, load_config
from opslib.core.errors import InputError, ModelError, ParameterError, StorageError
from opslib.core.sections import BenchSection
from opslib.inference.engine import EngineRequest
from opslib.ops.bench.cells import Cell
from opslib.ops.bench.record import BenchRecord
from opslib.ops.bench.request import BenchRequest
from opslib.ops.bench.rows import make_row
from opslib.ops.bench.run import run_bench
from opslib.ops.bench.setup import BenchSetup, prepare_bench
from opslib.ops.bench.story import bench_frame
from opslib.timing.blocks import Block
from opslib.timing.station import TimedBlock
from tests.models import write_config, write_images, write_onnx
from tests.runs.makers import make_bench

FACTORY = """\
import torch
def linear(classes):
    return torch.nn.Sequential(
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, classes))
"""


def make_experiment(folder: Path) -> Config:
    """An experiment of four images and one small model, measured loosely and quickly."""
    write_images(folder / "images/val/a", 4)
    write_onnx(folder / "exp/export/m.onnx")
    extra = "bench: {target_half_width_pct: 1.0e+30, engine: onnx, batch: [1, 2]}\n"
    extra += "parity: {samples: 4}\nonnx: {providers: [CPU]}\n"
    return load_config(write_config(folder, extra), {})


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return make_experiment(tmp_path)


@dataclass(frozen=True)
class Measured:
    """One benchmark that many tests read: a broken image among four, CUDA wanted before the CPU
    on a host without a card."""

    config: Config
    record: BenchRecord
    steps: list[tuple[float, str]]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    config, steps = make_experiment(tmp_path_factory.mktemp("measured")), []
    (config.data_root / "val/a/bad.jpg").write_bytes(b"no")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        record = run_bench(
            config,
            BenchRequest(budget_s=12, providers="CUDA,CPU"),
            progress=lambda share, what: steps.append((share, what)),
        )
    return Measured(config, record, steps)


def write_twin(folder: Path, *, classes: int = 3, offset: float = 0.0) -> Path:
    """Write the Torch twin of `write_onnx` as a checkpoint."""
    import onnx
    import torch
    from onnx import numpy_helper

    (folder / "twin_nets.py").write_text(FACTORY)
    model = onnx.load(folder / "exp/export/m.onnx")
    weight, bias = (numpy_helper.to_array(one) for one in model.graph.initializer)
    state = {
        "2.weight": torch.from_numpy(np.tile(weight.T, (2, 1))[:classes].copy()),
        "2.bias": torch.from_numpy(np.tile(bias, 2)[:classes].copy())
        + offset * torch.eye(classes)[0],
    }
    path = folder / "exp/checkpoints/best.pt"
    path.parent.mkdir(exist_ok=True)
    payload = {"state_dict": state, "factory": "twin_nets:linear", "num_classes": classes}
    torch.save(payload, path)
    return path


def with_code_root(config: Config) -> Config:
    return config.model_copy(
        update={"paths": config.paths.model_copy(update={"code_root": config.root})}
    )


def test_each_batch_size_gets_a_row_within_each_boundary(measured: Measured) -> None:
    record = measured.record
    assert record.verdict == "pass"
    assert [(row.batch_size, row.boundary) for row in record.rows] == [
        (1, "inference"),
        (1, "end_to_end"),
        (2, "inference"),
        (2, "end_to_end"),
    ]
    for row in record.rows:
        assert row.status == "measured"
        assert row.latency_ms is not None
        assert row.latency_ms.n == sum(len(block) for block in row.raw_ms) >= 11
        medians = [np.median(block) for block in row.raw_ms]
        assert row.latency_ms.p50 == pytest.approx(np.median(medians), rel=1e-3)
        assert row.throughput_img_s == pytest.approx(1000 * row.batch_size / row.latency_ms.p50)
        assert row.peak_rss_bytes
    whole = record.rows[1].stages_ms
    assert whole is not None
    assert whole.decode is not None
    assert record.noise_floor is not None
    assert record.noise_floor.baseline == "onnx"
    assert measured.steps[0][0] == 0
    assert measured.steps[-1] == (1.0, "done")


def test_inference_says_how_long_its_first_answer_took_and_old_records_need_not() -> None:
    block = Block(times_ms=(1.0,) * 11, wall_s=0.1, run_delay_pct=0.0, disturbed=False)
    cell = Cell("onnx", EngineRequest("onnx", Path("m.onnx")), None, None)
    for boundary in cell.blocks:
        cell.blocks[boundary] = [TimedBlock(block, None, None, ms) for ms in (9.0, 5.0, 7.0)]
    record = make_bench(list(make_row(cell, BenchSection())))
    assert [row.first_run_ms for row in record.rows] == [7.0, None]
    assert list(bench_frame(record, "inference")["first ms"]) == [7.0]
    older = [row.model_dump(exclude={"first_run_ms"}) for row in record.rows]
    assert BenchRecord.model_validate(record.model_dump() | {"rows": older}).rows[0].p50_ms == 1.0


def test_a_record_survives_the_round_trip_with_its_lineage(
    measured: Measured, tmp_path: Path
) -> None:
    record = measured.record
    assert BenchRecord.read(record.write(tmp_path / "r.json")) == record
    assert record.model is not None
    assert len(record.model.sha256) == 64
    assert record.inputs.count == 4
    assert record.lineage.host_fingerprint


def test_both_engines_pass_parity_and_are_compared(config: Config, tmp_path: Path) -> None:
    write_twin(tmp_path)
    request = BenchRequest(engine="both", budget_s=6, batch=(1,))
    record = run_bench(with_code_root(config), request)
    assert record.parity is not None
    assert record.parity.passed
    assert {row.engine for row in record.rows} == {"onnx", "torch"}
    assert [one.batch_size for one in record.comparisons] == [1]
    assert record.comparisons[0].comparison.baseline == "torch"
    assert record.checkpoint is not None


def test_broken_parity_fails_before_anything_is_timed(config: Config, tmp_path: Path) -> None:
    write_twin(tmp_path, offset=9.0)
    request = BenchRequest(engine="both", budget_s=20, batch=(1,))
    record = run_bench(with_code_root(config), request)
    assert (record.verdict, record.exit_code) == ("fail", 3)
    assert {row.status for row in record.rows} == {"unavailable"}
    assert {row.reason for row in record.rows} == {"parity failed"}
    assert "do not answer alike" in record.finding


def test_a_checkpoint_of_another_class_count_is_refused(config: Config, tmp_path: Path) -> None:
    write_twin(tmp_path, classes=5)
    request = BenchRequest(engine="both", budget_s=20, batch=(1,))
    with pytest.raises(ModelError, match=r"best\.pt has 5 classes, .*m\.onnx has 3"):
        run_bench(with_code_root(config), request)


def test_a_fixed_batch_is_measured_and_the_others_say_why_not(config: Config) -> None:
    write_onnx(config.export_dir / "m.onnx", batch=2)
    record = run_bench(config, BenchRequest(budget_s=10))
    assert (record.verdict, record.exit_code) == ("pass", 0)
    by_batch = {row.batch_size: row for row in record.rows if row.boundary == "inference"}
    assert by_batch[2].status == "measured"
    assert by_batch[1].status == "unavailable"
    assert by_batch[1].reason == "the model's batch size is fixed at 2"


def test_cuda_alone_without_a_card_is_unavailable_and_never_a_cpu_figure(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    record = run_bench(config, BenchRequest(budget_s=4, providers="CUDA"))
    assert record.exit_code == 2
    for row in record.rows:
        assert (row.status, row.provider, row.latency_ms) == ("unavailable", "none", None)
        assert "CUDA cannot start" in (row.reason or "")


def test_cuda_with_cpu_runs_on_cpu_and_says_why(measured: Measured) -> None:
    for row in measured.record.rows:
        assert (row.provider, row.requested_providers) == ("CPU", "CUDA,CPU")
        assert "CUDA cannot start" in (row.reason or "")


def test_intervals_wider_than_the_target_are_inconclusive(config: Config) -> None:
    strict = config.model_copy(
        update={"bench": config.bench.model_copy(update={"target_half_width_pct": 1e-9})}
    )
    record = run_bench(strict, BenchRequest(budget_s=4, batch=(1,)))
    assert (record.verdict, record.exit_code) == ("inconclusive", 4)
    assert "is wanted" in (record.rows[0].reason or "")
    assert "Inconclusive" in record.finding


def test_a_budget_too_short_for_a_figure_is_inconclusive_not_wrong(config: Config) -> None:
    record = run_bench(config, BenchRequest(budget_s=0.01))
    assert record.exit_code == 4
    assert all(row.status == "inconclusive" for row in record.rows)
    assert "budget ended" in (record.rows[-1].reason or "")


def test_skipped_images_are_counted_and_end_with_their_own_code(measured: Measured) -> None:
    record = measured.record
    assert (record.verdict, record.exit_code) == ("pass", 9)
    assert "bad.jpg" in record.inputs.skipped[0]


def test_foreign_preprocessing_drops_in(config: Config) -> None:
    (config.root / "their_infer.py").write_text(
        "import numpy as np\n"
        "def preprocess(paths, img_size):\n"
        "    return np.zeros((len(paths), 3, img_size, img_size), dtype=np.float32)\n"
    )
    section = config.preprocess.model_copy(update={"function": "their_infer:preprocess"})
    foreign = with_code_root(config.model_copy(update={"preprocess": section}))
    record = run_bench(foreign, BenchRequest(budget_s=7, batch=(1,)))
    assert record.preprocess == "their_infer:preprocess"
    stages = record.rows[1].stages_ms
    assert stages is not None
    assert stages.decode is None
    assert stages.preprocess > 0


def test_a_model_of_any_size_asks_for_the_image_size(config: Config) -> None:
    write_onnx(config.export_dir / "m.onnx", size="S")
    with pytest.raises(ModelError, match=r"set preprocess\.img_size"):
        run_bench(config, BenchRequest(budget_s=4))


BAD: list[tuple[BenchRequest, type[Exception], str]] = [
    (BenchRequest(batch=(0,)), ParameterError, "--batch: got 0"),
    (BenchRequest(batch=(10**9,)), ParameterError, "--batch: got 1000000000; expected 1 to 4096"),
    (BenchRequest(threads=10**9), ParameterError, "--threads: got 1000000000"),
    (BenchRequest(inputs=""), InputError, "no image matches"),
    (BenchRequest(engine="tflite"), ParameterError, "unknown engine 'tflite'"),
    (BenchRequest(providers="ROCM"), ParameterError, "unknown provider 'ROCM'"),
    (BenchRequest(budget_s=0), ParameterError, "--budget: got 0"),
    (BenchRequest(threads=-1), ParameterError, "--threads: got -1"),
    (BenchRequest(inputs="/nowhere/*.jpg"), InputError, "no image matches"),
    (BenchRequest(model=Path("/nowhere/m.onnx")), ModelError, "/nowhere/m.onnx: no such file"),
    (BenchRequest(engine="both"), ModelError, "no Torch checkpoint"),
    (BenchRequest(engine="torch", model=Path("x.pt")), ModelError, "x.pt"),
]


@pytest.mark.parametrize(("request_", "error", "message"), BAD)
def test_bad_input_is_refused_before_any_time_is_spent(
    config: Config, request_: BenchRequest, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        run_bench(config, request_)
    assert not list(config.exp_dir.glob("reports/*"))


@pytest.mark.parametrize(
    "damage", [lambda data: b"", lambda data: data[:60], lambda data: b"text" * 9]
)
def test_a_damaged_model_is_refused_by_name(
    config: Config, damage: Callable[[bytes], bytes]
) -> None:
    path = config.export_dir / "m.onnx"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ModelError, match=r"m\.onnx"):
        run_bench(config, BenchRequest(budget_s=4))


def test_a_folder_that_cannot_be_written_is_refused(config: Config) -> None:
    (config.exp_dir / "reports").touch()
    with pytest.raises(StorageError, match=r"cannot write into .*exp/reports"):
        prepare_bench(config, BenchRequest())


def test_the_newest_export_is_taken_where_nothing_is_called_latest(config: Config) -> None:
    old = write_onnx(config.export_dir / "z-old.onnx")
    os.utime(old, (1, 1))
    assert prepare_bench(config, BenchRequest()).engines["onnx"].path.name == "m.onnx"
    (config.export_dir / "latest.onnx").symlink_to("z-old.onnx")
    assert prepare_bench(config, BenchRequest()).engines["onnx"].path.name == "latest.onnx"


def test_a_model_replaced_while_it_is_measured_is_noticed(config: Config) -> None:
    def replace(_share: float, what: str) -> None:
        if what.startswith("timing each alone"):
            write_onnx(config.export_dir / "m.onnx", seed=7)

    with pytest.raises(ModelError, match="changed while it was measured"):
        run_bench(config, BenchRequest(budget_s=4, batch=(1,)), progress=replace)


def test_answers_that_are_not_finite_are_no_figure(config: Config) -> None:
    import onnx
    from onnx import numpy_helper

    path = config.export_dir / "m.onnx"
    model = onnx.load(path)
    broken = np.full((3, 3), np.nan, dtype=np.float32)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(broken, "weight"))
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=r"m\.onnx answers with values that are not finite"):
        run_bench(config, BenchRequest(budget_s=4, batch=(1,)))


def spoil_batches_of_two(path: Path) -> None:
    """Let the model answer two images at once, and only them, with what is no number."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load(path)
    graph = model.graph
    graph.node[-1].output[0] = "sound"
    for name, value in (("first", 0), ("two", 2), ("none", 0)):
        kind = np.int64 if name == "first" else np.float32
        graph.initializer.append(numpy_helper.from_array(np.array([value], dtype=kind), name))
    graph.node.extend(
        [
            helper.make_node("Shape", ["input"], ["shape"]),
            helper.make_node("Gather", ["shape", "first"], ["count"]),
            helper.make_node("Cast", ["count"], ["images"], to=TensorProto.FLOAT),
            helper.make_node("Sub", ["images", "two"], ["beyond"]),
            helper.make_node("Div", ["none", "beyond"], ["spoilt"]),
            helper.make_node("Add", ["sound", "spoilt"], ["logits"]),
        ]
    )
    path.write_bytes(model.SerializeToString())


def test_a_batch_size_answered_with_what_is_no_number_fails_the_benchmark(config: Config) -> None:
    spoil_batches_of_two(config.export_dir / "m.onnx")
    record = run_bench(config, BenchRequest(budget_s=2))
    assert [row.status == "unavailable" for row in record.rows] == [False, False, True, True]
    assert (record.verdict, record.exit_code) == ("fail", 3)
    assert "Failed: m.onnx answers with values that are not finite." in record.finding


class DeadlyRequest(EngineRequest):
    """Ends the process that receives it, as the kernel would where memory runs out."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.abort, ()


def test_a_batch_size_that_ends_the_process_leaves_the_benchmark_inconclusive(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_batch = BenchSetup.at_batch

    def make(setup: BenchSetup, engine: str, batch_size: int) -> EngineRequest:
        made = at_batch(setup, engine, batch_size)
        return DeadlyRequest(**vars(made)) if batch_size == 2 else made

    monkeypatch.setattr(BenchSetup, "at_batch", make)
    record = run_bench(config, BenchRequest(budget_s=4))
    assert [row.status for row in record.rows[:2]] == ["measured", "measured"]
    assert {row.status for row in record.rows[2:]} == {"unavailable"}
    assert (record.verdict, record.exit_code) == ("inconclusive", 4)
    assert "Inconclusive: not all could be measured: onnx: the worker process" in record.finding


def test_a_model_of_one_channel_is_refused_by_name(config: Config) -> None:
    import onnx

    path = config.export_dir / "m.onnx"
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 1
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 8
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=r"m\.onnx"):
        run_bench(config, BenchRequest(budget_s=4, batch=(1,)))


def test_a_record_names_its_images_from_the_configurations_folder(measured: Measured) -> None:
    assert measured.record.inputs.glob == "images/val/**/*"
    assert str(measured.config.root) not in measured.record.to_json()
