"""Which combinations are asked for, and which of them are the same service."""

from pathlib import Path

import yaml

from opslib.core.sections import OnnxSection, ServiceSection, SweepSection
from opslib.ops.served_sweep.grid import list_served_options, make_served_arms
from opslib.ops.served_sweep.record import ServedOptions

ROOT = Path(__file__).resolve().parents[3]


def make(cpus: int, unbatched: str | None = None, **changes: object) -> tuple[list[str], list[str]]:
    """The labels of the arms, and for each row the number of its arm's."""
    section = SweepSection().model_copy(update=changes)
    options = list_served_options(section, cpus)
    lines, arms = make_served_arms(options, cpus, identity=("m",), unbatched=unbatched)
    assert len({arm.key for arm in arms}) == len(arms)
    return [arm.label for arm in arms], [f"{line.number}:{line.arm_row}" for line in lines]


def test_on_two_processors_there_are_twelve_services_and_the_default_is_the_first() -> None:
    labels, rows = make(2)
    assert len(rows) == 16
    assert len(labels) == 12
    assert labels[0] == "default"
    assert set(labels) >= {"no batching", "1 worker", "all threads each, no spinning"}
    assert "1 worker, all threads each, no batching, no spinning" in labels


def test_a_single_thread_spins_beside_nobody() -> None:
    labels, rows = make(8, threads=(1,), workers=(0,), max_batch=(8,))
    assert labels == ["default"]
    assert rows == ["1:1", "2:1"]


def test_on_one_processor_all_is_one() -> None:
    labels, _ = make(1)
    assert labels == ["default", "no batching"]


def test_a_model_that_is_run_by_itself_knows_no_batching() -> None:
    labels, _ = make(2, unbatched="the model's batch is fixed")
    assert len(labels) == 6
    assert not any("batching" in label for label in labels)


def test_a_count_that_comes_to_the_same_is_the_simpler_one() -> None:
    labels, rows = make(4, workers=(0, 4), threads=(1,), max_batch=(8,), spinning=(True,))
    assert labels == ["default"]
    assert rows == ["1:1", "2:1"]


def test_the_defaults_are_those_of_the_configuration() -> None:
    service, onnx = ServiceSection(), OnnxSection()
    assert ServedOptions() == ServedOptions(
        workers=service.workers,
        intra_op_num_threads=service.intra_op_num_threads,
        max_batch=service.max_batch,
        allow_spinning=onnx.allow_spinning,
    )
    shipped = yaml.safe_load((ROOT / "config.yaml").read_text())
    for key, value in ServedOptions().settings().items():
        section, _, name = key.partition(".")
        assert shipped[section][name] == value
    assert ServedOptions().changes() == {}
