"""Applying a sweep: shown first, then written; engines read what was written."""

from pathlib import Path

import pytest

from opslib.core.config import Config, load_config
from opslib.core.errors import ConfigError, GateFailedError, InconclusiveError, InputError
from opslib.core.host import HostFacts
from opslib.core.plans import carry_out
from opslib.inference.engine import session_settings
from opslib.ops.sweep.apply import find_overrides, plan_apply
from opslib.ops.sweep.record import SweepOptions
from tests.models import write_config
from tests.ops.sweep.makers import make_sweep

ONNX = "onnx:\n  providers: [CUDA, CPU]   # in order\n  allow_spinning: true   # kept\n"


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return load_config(write_config(tmp_path, ONNX), {})


def test_the_recommended_settings_reach_the_engines(config: Config) -> None:
    options = SweepOptions(
        providers=("CPU",),
        graph_optimization_level="EXTENDED",
        intra_op_num_threads=2,
        allow_spinning=False,
    )
    plan_apply(make_sweep(options), config).execute()
    loaded = load_config(config.source, {})
    settings = session_settings(loaded)
    assert loaded.onnx.providers == ("CPU",)
    assert settings.graph_optimization_level == "EXTENDED"
    assert (settings.intra_op_num_threads, settings.allow_spinning) == (2, False)
    assert "# kept" in config.source.read_text()


def test_cuda_options_reach_the_engines_and_others_stay(tmp_path: Path) -> None:
    extra = "onnx:\n  cuda:\n    gpu_mem_limit: 123   # mine\n"
    config = load_config(write_config(tmp_path, extra), {})
    options = SweepOptions(cuda={"cudnn_conv_use_max_workspace": 1, "prefer_nhwc": 1})
    plan_apply(make_sweep(options), config).execute()
    settings = session_settings(load_config(config.source, {}))
    assert settings.cuda == {"gpu_mem_limit": 123, "prefer_nhwc": 1}
    assert "# mine" in config.source.read_text()


def test_a_dry_run_changes_nothing(config: Config) -> None:
    before = config.source.read_bytes()
    shown: list[str] = []
    carry_out(plan_apply(make_sweep(), config), dry_run=True, show=shown.append)
    assert "set onnx.allow_spinning: true -> false" in shown[1]
    assert config.source.read_bytes() == before


def test_the_default_as_good_means_nothing_to_do(config: Config) -> None:
    plan = plan_apply(make_sweep(SweepOptions(), gain=1.0), config)
    assert plan.actions == ()


def test_the_default_as_good_undoes_an_older_recommendation(tmp_path: Path) -> None:
    config = load_config(write_config(tmp_path, "onnx: {allow_spinning: false}\n"), {})
    plan_apply(make_sweep(SweepOptions(), gain=1.0), config).execute()
    assert load_config(config.source, {}).onnx.allow_spinning is True


def test_what_was_not_decided_or_failed_is_not_applied(config: Config) -> None:
    with pytest.raises(InconclusiveError, match="did not decide"):
        plan_apply(make_sweep(verdict="inconclusive"), config)
    with pytest.raises(GateFailedError, match="recommends nothing"):
        plan_apply(make_sweep(verdict="fail", recommended=None), config)


def test_another_hosts_record_needs_force(config: Config) -> None:
    record = make_sweep()
    elsewhere = record.lineage.model_copy(
        update={
            "host_fingerprint": "0" * 12,
            "host": record.lineage.host.model_copy(update={"cpu": "Other"}),
        }
    )
    assert isinstance(elsewhere.host, HostFacts)
    foreign = record.model_copy(update={"lineage": elsewhere})
    with pytest.raises(InconclusiveError, match="another host"):
        plan_apply(foreign, config)
    assert plan_apply(foreign, config, force=True).actions


def test_an_environment_variable_that_wins_over_the_file_is_named(config: Config) -> None:
    plan_apply(make_sweep(), config).execute()
    loaded = load_config(config.source, {"PILLSNAP_ONNX__ALLOW_SPINNING": "true"})
    assert find_overrides(make_sweep(), loaded) == ["onnx.allow_spinning"]
    assert find_overrides(make_sweep(), load_config(config.source, {})) == []


@pytest.mark.parametrize(
    ("options", "key"),
    [
        (SweepOptions(providers=("evil: [x", "CPU\n  b: 1")), r"onnx\.providers\.0"),
        (SweepOptions(providers=()), r"onnx\.providers"),
        (SweepOptions(intra_op_num_threads=-1), r"onnx\.intra_op_num_threads"),
        (SweepOptions(graph_optimization_level="MOST"), r"onnx\.graph_optimization_level"),
    ],
)
def test_an_impossible_recommendation_is_refused_before_the_plan(
    config: Config, options: SweepOptions, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PILLSNAP_ONNX__PROVIDERS", "CPU")
    before = config.source.read_bytes()
    with pytest.raises(ConfigError, match=key) as caught:
        plan_apply(make_sweep(options), config)
    assert str(caught.value).isprintable()
    assert config.source.read_bytes() == before


def test_an_unknown_cuda_option_is_named(config: Config) -> None:
    with pytest.raises(InputError, match=r"unknown CUDA option 'a\.b'; known: cudnn_conv"):
        plan_apply(make_sweep(SweepOptions(cuda={"a.b": 1})), config)
