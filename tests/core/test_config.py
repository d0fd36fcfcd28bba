from pathlib import Path

import pytest

from opslib.core.config import Config, find_config, load_config
from opslib.core.errors import ConfigError
from tests.models import write_config

ROOT = Path(__file__).resolve().parents[2]


def load(folder: Path, extra: str = "", **variables: str) -> Config:
    return load_config(write_config(folder, extra), variables)


def test_the_default_configuration_is_the_embedded_demo() -> None:
    config = load_config(ROOT / "config.yaml", {})
    assert config.exp_dir == ROOT / "demo/exp01"
    assert config.export_dir == ROOT / "demo/exp01/export"


def test_the_default_file_shows_every_key_with_its_default(tmp_path: Path) -> None:
    shipped = load_config(ROOT / "config.yaml", {})
    assert load(tmp_path).model_dump(exclude={"source", "paths"}) == shipped.model_dump(
        exclude={"source", "paths"}
    )
    text = (ROOT / "config.yaml").read_text()
    for section, field in Config.model_fields.items():
        for key in getattr(field.annotation, "model_fields", {}):
            assert f"  {key}:" in text, f"{section}.{key} is not in config.yaml"


def test_the_production_example_holds_the_documented_paths() -> None:
    config = load_config(ROOT / "config.production.yaml", {})
    assert str(config.exp_dir) == "/home/max16/ssd_pillsnap/exp/exp01"
    assert str(config.code_root) == "/home/max16/pillsnap"
    assert config.data_root / "val" == Path("/mnt/data/AIHub_576/val")
    assert config.preprocess.function == "src.infer:preprocess"


def test_the_environment_wins_over_dotenv_which_wins_over_the_file(tmp_path: Path) -> None:
    extra = "bench:\n  budget_s: 10\n  seed: 1\n"
    (tmp_path / ".env").write_text("PILLSNAP_BENCH__BUDGET_S=20\nPILLSNAP_BENCH__SEED=2\n")
    config = load(tmp_path, extra, PILLSNAP_BENCH__BUDGET_S="30")
    assert (config.bench.budget_s, config.bench.seed) == (30, 2)


def test_the_short_names_set_the_experiment_and_the_images(tmp_path: Path) -> None:
    config = load(tmp_path, PILLSNAP_EXP_DIR="/a", PILLSNAP_DATA_ROOT="b")
    assert (config.exp_dir, config.data_root) == (Path("/a"), tmp_path / "b")


def test_lists_are_given_with_commas_and_nested_options_by_name(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        PILLSNAP_BENCH__BATCH="1, 8",
        PILLSNAP_ONNX__CUDA__CUDNN_CONV_ALGO_SEARCH="EXHAUSTIVE",
    )
    assert config.bench.batch == (1, 8)
    assert config.onnx.cuda["cudnn_conv_algo_search"] == "EXHAUSTIVE"


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("bench: {budgte_s: 3}", "bench.budgte_s: unknown key; did you mean 'budget_s'"),
        ("bench: {budget_s: soon}", "bench.budget_s: got 'soon'"),
        ("bench: {budget_s: -1}", "bench.budget_s: got -1: input should be greater than 0"),
        ("bench: {batch: [1, 0]}", "bench.batch.1: got 0: input should be greater than 0"),
        ("bench: {batch: []}", "bench.batch: got \\[\\]"),
        ("bench: {batch: [1, yes]}", "bench.batch: got .*: expected a number, which true and"),
        ("bench: {batch: true}", "bench.batch: got True: expected a number, which true and false"),
        ("onnx: {cuda: true}", "onnx.cuda: got True: input should be a valid dictionary"),
        ("service: {max_batch: yes}", "service.max_batch: got True: expected a number"),
        ("models: {detector: {keep: on}}", "models.detector.keep: got True: expected a number"),
        ("serving: {port: 1}", "serving: unknown key"),
        ("onnx: {graph_optimization_level: MOST}", "onnx.graph_optimization_level: got 'MOST'"),
        ("source: x", "source: unknown key"),
        ("bench: 3", "bench: got 3"),
        ("bench: [", "not YAML at line"),
        ("bench: {seed: 2020-13-45}", "an impossible value: month must be in 1..12"),
        ("bench: " + "[" * 5000, "nested too deeply"),
        ("bench: {seed: " + "9" * 5000 + "}", "an impossible value: Exceeds the limit"),
        ("bench: {seed: 0x" + "f" * 5000 + "}", "got a number of thousands of digits"),
        ("bench: {budget_s: .inf}", "bench.budget_s: got inf: input should be a finite number"),
        ('export: {out_dir: "\\ud800"}', r"line 4: got '\\ud800': not UTF-8"),
        ('export: {out_dir: "a\\0b"}', "export.out_dir: .*without a NUL"),
        ("export: {out_dir: ~nosuchuser/x}", "export.out_dir: .*no user 'nosuchuser'"),
        ("reload: {model_dirs: [~nosuchuser/x]}", "reload.model_dirs: .*no user 'nosuchuser'"),
        ('"a\\nb": 1', "unknown key"),
        ("onnx: {providers: [CPU, 'evil: [x']}", "onnx.providers.1: got 'EVIL: \\[X'"),
        ("bench: {}\nonnx: {}\nbench: {}", "bench: stands twice, at line 6"),
        ("bench: {seed: 1, 'seed': 2}", "seed: stands twice, at line 4"),
        ("bench: &a [*a, *a]", "bench: got"),
    ],
)
def test_a_wrong_key_is_named_with_what_was_given(tmp_path: Path, extra: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load(tmp_path, extra)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("PILLSNAP_BENCH__BUDGET_S", "soon", "PILLSNAP_BENCH__BUDGET_S .*got 'soon'"),
        ("PILLSNAP_BENCH__BUDGTE_S", "1", "PILLSNAP_BENCH__BUDGTE_S .*did you mean 'budget_s'"),
        ("PILLSNAP_BENHC__BUDGET_S", "1", "PILLSNAP_BENHC__BUDGET_S.*did you mean 'bench'"),
        ("PILLSNAP_BENCH__BATCH__X", "1", r"PILLSNAP_BENCH__BATCH__X .*got \{'x': 1\}"),
        ("PILLSNAP_CLIENT__TIMEOUT_S", "1e300", "less than or equal to 86400"),
        ("PILLSNAP_BENCH", "1", "'bench' is a section; expected .*PILLSNAP_BENCH__<KEY>: engine"),
        ("PILLSNAP_BENCH__BUDGET_S", "inf", "got 'inf': input should be a finite number"),
        ("PILLSNAP_BENCH__SEED", "9" * 5000, "PILLSNAP_BENCH__SEED .*got '999"),
        ("PILLSNAP_BENCH__SEED", "9" * 30, "expected a whole number of at most 64 bits"),
        ("PILLSNAP_ONNX__CUDA__A", "[", "PILLSNAP_ONNX__CUDA__A: not YAML at line 1"),
        ("PILLSNAP_ONNX__CUDA__A", "!!python/object:os.x", "PILLSNAP_ONNX__CUDA__A: not YAML"),
        ("PILLSNAP_ONNX__CUDA__A", "[" * 5000, "PILLSNAP_ONNX__CUDA__A: nested too deeply"),
        ("PILLSNAP_BENCH__ENGINE__A__B", "1", "not a section|got"),
        ("PILLSNAP_ONNX__CUDA__A", "\udcff", r"PILLSNAP_ONNX__CUDA__A: got '\\udcff': not UTF-8"),
        ("PILLSNAP_EXP_DIR", "a\udcff", r"PILLSNAP_EXP_DIR: got 'a\\udcff': not UTF-8"),
        ("PILLSNAP_EXP_DIR", "~nosuchuser/x", "PILLSNAP_EXP_DIR .*no user 'nosuchuser'"),
        ("PILLSNAP_ONNX__PROVIDERS", "", "PILLSNAP_ONNX__PROVIDERS .*got None"),
    ],
)
def test_a_wrong_variable_is_named(tmp_path: Path, name: str, value: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load(tmp_path, **{name: value})
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


def test_a_missing_section_is_named(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("paths: {exp_dir: x}\n")
    with pytest.raises(ConfigError, match=r"paths\.data_root: missing"):
        load_config(path, {})


@pytest.mark.parametrize("text", ["", "- 1", "word"])
def test_a_file_without_sections_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="expected sections"):
        load_config(path, {})


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(b"\xff\xfe\x00paths")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(path, {})


def test_a_configuration_cannot_be_changed(tmp_path: Path) -> None:
    config = load(tmp_path)
    with pytest.raises(ValueError, match="frozen"):
        config.bench.seed = 3  # type: ignore[misc]


def test_a_named_file_must_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="named by --config"):
        find_config(tmp_path / "none.yaml")
    monkeypatch.setenv("PILLSNAP_CONFIG", str(tmp_path / "none.yaml"))
    with pytest.raises(ConfigError, match="named by PILLSNAP_CONFIG"):
        find_config()


def test_the_nearest_file_above_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PILLSNAP_CONFIG", raising=False)
    written = write_config(tmp_path)
    (tmp_path / "a/b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a/b")
    assert find_config() == written


def test_a_section_given_by_a_variable_below_a_value_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="onnx in the configuration file is not a section"):
        load(tmp_path, "onnx: 3\n", PILLSNAP_ONNX__CUDA__A="1")


def test_a_configuration_of_an_unknown_user_is_refused() -> None:
    with pytest.raises(ConfigError, match="--config: got '~nosuchuser/x': there is no user"):
        find_config("~nosuchuser/x")


def test_a_dotenv_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"A=\xff\n")
    with pytest.raises(ConfigError, match=r"\.env: cannot be read"):
        load(tmp_path)


def test_lists_of_switches_and_folders_may_be_variables(tmp_path: Path) -> None:
    path = write_config(tmp_path)
    told = {"PILLSNAP_SWEEP__SPINNING": "true,false", "PILLSNAP_RELOAD__MODEL_DIRS": "/a, /b"}
    config = load_config(path, told)
    assert config.sweep.spinning == (True, False)
    assert config.reload.model_dirs == (Path("/a"), Path("/b"))
