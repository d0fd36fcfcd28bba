"""The space of a sweep: everything asked for has a row, and a session is measured once."""

from dataclasses import replace
from pathlib import Path

import pytest

from opslib.core.errors import UnavailableError
from opslib.core.sections import SweepSection
from opslib.inference.engine import EngineRequest
from opslib.ops.sweep.arms import Arm, Line, make_arms
from opslib.ops.sweep.record import SweepOptions
from opslib.ops.sweep.space import (
    SweepHost,
    effective_options,
    find_tensorrt_problem,
    list_options,
    required_grid,
    thread_counts,
    uses_tf32,
)

BUILT_IN = ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider")
BARE = SweepHost(BUILT_IN, "no NVIDIA driver", "no NVIDIA driver", 4)
CARD = replace(BARE, cuda_problem=None, tensorrt_problem="TensorRT is not installed")
SECTION = SweepSection()


def arms_on(
    host: SweepHost, *, graphs: bool = True, batch: tuple[int, ...] = (1,), fixed: int | None = None
) -> tuple[tuple[Line, ...], tuple[Arm, ...]]:
    def digest(options: SweepOptions) -> str | None:
        level = options.graph_optimization_level
        return ("plain" if level in ("DISABLE_ALL", "BASIC") else level) if graphs else None

    return make_arms(
        list_options(SECTION, host),
        batch,
        host,
        EngineRequest("onnx", Path("m.onnx")),
        digest_graph=digest,
        identity=("model", "host"),
        fixed_batch=fixed,
    )


def test_the_required_grid_is_providers_by_levels_by_workspace() -> None:
    grid = list(required_grid())
    assert len(grid) == len({repr(one.flat()) for one in grid}) == 24
    assert {one.providers for one in grid} == {("CUDA",), ("CUDA", "CPU"), ("CPU",)}
    assert {one.cuda["cudnn_conv_use_max_workspace"] for one in grid} == {0, 1}


def test_the_default_is_the_first_row_and_no_combination_stands_twice() -> None:
    for host in (BARE, CARD):
        options = list_options(SECTION, host)
        assert options[0].changes() == {}
        assert len({repr(one.flat()) for one in options}) == len(options)
        assert {repr(one.flat()) for one in required_grid()} <= {
            repr(one.flat()) for one in options
        }


def test_threads_are_derived_from_what_this_process_may_use() -> None:
    assert thread_counts(replace(BARE, usable_cpus=8)) == (0, 1, 4)
    assert thread_counts(replace(BARE, usable_cpus=2)) == (0, 1)
    assert thread_counts(replace(BARE, usable_cpus=1)) == (0,)
    given = SweepSection(threads=(3,))
    assert {one.intra_op_num_threads for one in list_options(given, BARE)} == {0, 3}


def test_the_cuda_axes_are_crossed_only_where_cuda_starts() -> None:
    varied = [one for one in list_options(SECTION, CARD) if len(one.cuda) > 1]
    assert len(varied) == 3 * 2 * 2 * 2 - 1
    assert any(one.providers[0] == "TENSORRT" for one in list_options(SECTION, CARD))
    assert all(len(one.cuda) == 1 for one in list_options(SECTION, BARE))


def test_without_a_card_cuda_alone_is_unavailable_and_cuda_cpu_is_the_cpu_and_says_so() -> None:
    lines, arms = arms_on(BARE)
    by_providers = {line.options.providers: line for line in lines}
    assert by_providers[("CUDA",)].arm_row is None
    assert "CUDA cannot start: no NVIDIA driver" in (by_providers[("CUDA",)].reason or "")
    assert lines[0].arm_row == 1
    assert "CUDA cannot start" in (lines[0].note or "")
    assert all(arm.options.providers == ("CUDA", "CPU") for arm in arms)


def test_what_has_no_effect_makes_rows_equivalent() -> None:
    lines, arms = arms_on(BARE)
    # 3 graphs that differ x (0 for all 4, 2, 1 without spinning twice)
    assert len(arms) == 3 * (2 + 2 + 1)
    own = {arm.row for arm in arms}
    for line in lines:
        if line.arm_row is not None and line.number not in own:
            assert line.arm_row in own


def test_spinning_means_nothing_to_one_thread_and_workspace_nothing_to_a_cpu() -> None:
    one = SweepOptions(providers=("CPU",), intra_op_num_threads=1)
    assert effective_options(one, BARE) == effective_options(
        one.model_copy(update={"allow_spinning": False}), BARE
    )
    small = one.model_copy(update={"cuda": {"cudnn_conv_use_max_workspace": 0}})
    assert effective_options(small, BARE) == effective_options(one, BARE)
    on_card = SweepOptions(cuda={"cudnn_conv_use_max_workspace": 0})
    assert effective_options(on_card, CARD) != effective_options(SweepOptions(), CARD)


def test_an_option_at_its_own_default_is_no_other_session_on_cuda() -> None:
    spelled = SweepOptions(cuda={"cudnn_conv_use_max_workspace": 1, "prefer_nhwc": 0})
    assert effective_options(spelled, CARD) == effective_options(SweepOptions(), CARD)


def test_without_a_graph_digest_levels_stay_apart() -> None:
    assert len(arms_on(BARE, graphs=False)[1]) == 4 * (2 + 2 + 1)


def test_a_fixed_batch_is_measured_and_the_other_sizes_say_why_not() -> None:
    lines, arms = arms_on(BARE, batch=(1, 8), fixed=8)
    assert {arm.batch_size for arm in arms} == {8}
    reasons = {line.reason for line in lines if line.batch_size == 1}
    assert reasons == {"the model's batch size is fixed at 8"}


def test_a_trial_belongs_to_its_batch_size_and_its_session() -> None:
    arms = arms_on(BARE, batch=(1, 8))[1]
    assert len({arm.key for arm in arms}) == len(arms)
    assert {arm.key for arm in arms} == {arm.key for arm in arms_on(BARE, batch=(1, 8))[1]}


def test_tensorrt_is_tried_only_where_its_library_loads() -> None:
    assert find_tensorrt_problem(BUILT_IN, "no NVIDIA driver") == "no NVIDIA driver"
    assert "build has no" in (find_tensorrt_problem(BUILT_IN[1:], None) or "")
    asked = SweepOptions(providers=("TENSORRT", "CUDA", "CPU"))
    with pytest.raises(UnavailableError, match="TENSORRT cannot start: TensorRT is not installed"):
        effective_options(asked, CARD)


def test_cuda_rounds_to_tf32_unless_it_is_told_not_to() -> None:
    assert uses_tf32(SweepOptions(), "CUDA")
    assert not uses_tf32(SweepOptions(), "CPU")
    assert not uses_tf32(SweepOptions(cuda={"use_tf32": 0}), "CUDA")
