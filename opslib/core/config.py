"""The configuration: environment over `.env` over `config.yaml`, validated once, then frozen.

Every section is small and every key has one place. A single key is overridden by
`PILLSNAP_<SECTION>__<KEY>`; `PILLSNAP_EXP_DIR` and `PILLSNAP_DATA_ROOT` are short for
`paths.exp_dir` and `paths.data_root`; `PILLSNAP_CONFIG` names another file. Relative paths are
read from the folder of the configuration file.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from dotenv import dotenv_values
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from opslib.core.errors import ConfigError

PREFIX = "PILLSNAP_"
CONFIG_VARIABLE = "PILLSNAP_CONFIG"
SHORT_NAMES = {"PILLSNAP_EXP_DIR": "paths.exp_dir", "PILLSNAP_DATA_ROOT": "paths.data_root"}
DEFAULT_CONFIG_NAME = "config.yaml"


def _split_commas(value: Any) -> Any:
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return [value] if isinstance(value, int) else value


PositiveInt = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0)]
BatchSizes = Annotated[tuple[PositiveInt, ...], BeforeValidator(_split_commas), Field(min_length=1)]
Names = Annotated[tuple[str, ...], BeforeValidator(_split_commas), Field(min_length=1)]


class Section(BaseModel):
    """A frozen group of keys; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class PathsSection(Section):
    """Where the experiment, its images and the serving code live."""

    exp_dir: Path
    data_root: Path
    code_root: Path | None = None
    report_dir: Path = Path("reports")


class ExportSection(Section):
    """Where exported models live; `{exp_dir}/export` unless given."""

    out_dir: Path | None = None


class PreprocessSection(Section):
    """Which code turns image files into the model's input."""

    function: str = "opslib.inference.preprocess:preprocess"
    img_size: Annotated[int, Field(ge=8, le=4096)] | None = None


class TorchSection(Section):
    """How a bare state dict becomes a network; a checkpoint that names its factory needs none."""

    factory: str | None = None


class OnnxSection(Section):
    """ONNX Runtime session settings, in its own spelling."""

    providers: Names = ("CUDA", "CPU")
    graph_optimization_level: Literal["DISABLE_ALL", "BASIC", "EXTENDED", "ALL"] = "ALL"
    execution_mode: Literal["SEQUENTIAL", "PARALLEL"] = "SEQUENTIAL"
    intra_op_num_threads: Annotated[int, Field(ge=0)] = 0
    inter_op_num_threads: Annotated[int, Field(ge=0)] = 0
    allow_spinning: bool = True
    cuda: dict[str, str | int] = {"cudnn_conv_use_max_workspace": 1}


class ParitySection(Section):
    """How far two engines' softmax outputs may lie apart."""

    mse_mean_max: Share = 1e-4
    mse_p99_max: Share = 5e-4
    top1_mismatch_max_pct: Share = 1.0
    fp16_mse_mean_max: Share = 5e-4
    fp16_top1_mismatch_max_pct: Share = 2.0
    samples: PositiveInt = 128


class BenchSection(Section):
    """What a benchmark measures and when its figures are good enough."""

    engine: Literal["onnx", "torch", "both"] = "both"
    batch: BatchSizes = (1, 2, 4, 8, 16, 32)
    budget_s: Annotated[float, Field(gt=0)] = 60.0
    target_half_width_pct: Annotated[float, Field(gt=0)] = 5.0
    min_effect_pct: Annotated[float, Field(gt=0)] = 2.0
    max_images: PositiveInt = 256
    seed: int = 0


class ServiceSection(Section):
    """Where the reference service listens and how much it takes on at once."""

    host: str = "0.0.0.0"  # noqa: S104 (the tunnel's end may lie outside this host)
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    keep_alive_s: PositiveInt = 5
    shutdown_grace_s: PositiveInt = 30
    body_timeout_s: Annotated[float, Field(gt=0)] = 30.0
    max_connections: PositiveInt = 512
    workers: Annotated[int, Field(ge=0)] = 0
    intra_op_num_threads: Annotated[int, Field(ge=0)] = 1
    queue: Annotated[int, Field(ge=0)] = 64


class UploadsSection(Section):
    """How large a request may be, beside MAX_UPLOAD_MB and ALLOWED_EXTS of `.env`."""

    batch_max_images: PositiveInt = 16
    batch_max_mb: PositiveInt = 100
    max_pixels: PositiveInt = 50_000_000
    batch_max_pixels: PositiveInt = 200_000_000


class ReloadSection(Section):
    """Which models may be switched in, and what a candidate may cost before it is."""

    model_dirs: tuple[Path, ...] = ()
    restore_dir: Path | None = None
    trial_timeout_s: Annotated[float, Field(gt=0)] = 120.0
    trial_memory_mb: PositiveInt | None = None
    resident_models: PositiveInt = 2
    resident_min_free_mb: Annotated[int, Field(ge=0)] = 1024


class ClientSection(Section):
    """How the tools talk to a service: ours, or another that honours the contract."""

    url: str = "http://127.0.0.1:8000"
    timeout_s: Annotated[float, Field(gt=0)] = 180.0
    request_field: str = "model_path"
    path_field: str = "model_path"
    digest_field: str = "model_sha256"


class SweepSection(Section):
    """Which ONNX Runtime options a sweep tries beside the required grid, and how long."""

    objective: Literal["throughput", "p50"] = "throughput"
    batch: BatchSizes = (1, 8)
    budget_s: Annotated[float, Field(gt=0)] = 60.0
    margin_pct: Annotated[float, Field(gt=0)] = 2.0
    finalists: Annotated[int, Field(ge=2)] = 4
    parity_images: PositiveInt = 8
    threads: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    spinning: tuple[bool, ...] = (True, False)
    cudnn_conv_algo_search: Names = ("EXHAUSTIVE", "HEURISTIC", "DEFAULT")
    prefer_nhwc: tuple[Literal[0, 1], ...] = (0, 1)
    use_tf32: tuple[Literal[0, 1], ...] = (1, 0)
    enable_cuda_graph: tuple[Literal[0, 1], ...] = (0, 1)
    tensorrt: bool = True


class QuantizeSection(Section):
    """How INT8 variants are made, and what they must keep to."""

    max_drop_pp: Annotated[float, Field(gt=0, lt=100)] = 0.5
    accuracy_gate: Literal["rule", "proven"] = "rule"
    samples: PositiveInt = 128
    batch: BatchSizes = (1, 8)
    budget_s: Annotated[float, Field(gt=0)] = 60.0
    calibration_images: PositiveInt = 256
    batch_check_images: PositiveInt = 512
    seed: int = 0


class Config(Section):
    """The whole configuration, frozen; `load_config` makes one."""

    source: Path
    paths: PathsSection
    export: ExportSection = ExportSection()
    preprocess: PreprocessSection = PreprocessSection()
    torch: TorchSection = TorchSection()
    onnx: OnnxSection = OnnxSection()
    parity: ParitySection = ParitySection()
    bench: BenchSection = BenchSection()
    quantize: QuantizeSection = QuantizeSection()
    sweep: SweepSection = SweepSection()
    service: ServiceSection = ServiceSection()
    uploads: UploadsSection = UploadsSection()
    reload: ReloadSection = ReloadSection()
    client: ClientSection = ClientSection()

    @property
    def root(self) -> Path:
        """The folder of the configuration file, from which relative paths are read."""
        return self.source.parent

    def resolve(self, path: Path | str) -> Path:
        """Return `path` with `~` expanded, taken from the configuration's folder if relative."""
        return (self.root / Path(path).expanduser()).absolute()

    @property
    def exp_dir(self) -> Path:
        """The experiment folder: logs, checkpoints, export, reports, releases."""
        return self.resolve(self.paths.exp_dir)

    @property
    def data_root(self) -> Path:
        """The folder of `train/` and `val/`."""
        return self.resolve(self.paths.data_root)

    @property
    def code_root(self) -> Path | None:
        """The serving repository, or None where our own preprocessing is used."""
        return self.resolve(self.paths.code_root) if self.paths.code_root else None

    @property
    def export_dir(self) -> Path:
        """The folder of exported models."""
        return self.resolve(self.export.out_dir) if self.export.out_dir else self.exp_dir / "export"

    @property
    def records_dir(self) -> Path:
        """The folder of the JSON records, `{exp_dir}/reports`."""
        return self.exp_dir / "reports"

    @property
    def report_dir(self) -> Path:
        """The folder of dated, executed notebooks."""
        return self.resolve(self.paths.report_dir)

    @property
    def is_demo(self) -> bool:
        """Whether the experiment is the embedded demo."""
        return (self.exp_dir / ".demo.json").exists()


def find_config(path: Path | str | None = None) -> Path:
    """Return the configuration file: `path`, else `PILLSNAP_CONFIG`, else the nearest
    `config.yaml` in this folder or above, else the one beside the library.

    Raises:
        ConfigError: there is none.
    """
    named = path or os.environ.get(CONFIG_VARIABLE)
    if named:
        found = Path(named).expanduser().absolute()
        if not found.is_file():
            origin = "--config" if path else CONFIG_VARIABLE
            raise ConfigError(f"{found}: no such configuration file (named by {origin})")
        return found
    here = Path.cwd()
    beside_library = Path(__file__).resolve().parents[2]
    for folder in (here, *here.parents, beside_library):
        if (folder / DEFAULT_CONFIG_NAME).is_file():
            return folder / DEFAULT_CONFIG_NAME
    raise ConfigError(f"no {DEFAULT_CONFIG_NAME} in {here} or above; name one with --config")


def load_config(
    path: Path | str | None = None, environment: Mapping[str, str] | None = None
) -> Config:
    """Return the validated configuration of `path` (see `find_config`).

    Args:
        path: the YAML file.
        environment: variables that override keys; the process environment by default.

    Raises:
        ConfigError: a key is unknown, of the wrong type or impossible; the message names the
            key, what was given and what is allowed.
    """
    source = find_config(path)
    data = _read_yaml(source)
    variables = read_variables(source.parent, environment)
    origins = _apply_overrides(data, variables)
    if "source" in data:
        raise ConfigError(f"{source.name}: source: unknown key; {_allowed(Config, 'source')}")
    try:
        return Config.model_validate({**data, "source": source})
    except ValidationError as error:
        raise ConfigError(_explain(error.errors()[0], source, origins)) from error


def read_variables(folder: Path, environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the variables of `folder/.env` overridden by `environment` (the process's own)."""
    from_file = {k: v for k, v in dotenv_values(folder / ".env").items() if v is not None}
    return {**from_file, **(os.environ if environment is None else environment)}


def _read_yaml(source: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(source.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{source}: cannot be read: {error}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "broken"
        raise ConfigError(f"{source}: not YAML{where}: {problem}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{source}: expected sections such as `paths:`, got {data!r}")
    return data


def _apply_overrides(data: dict[str, Any], variables: Mapping[str, str]) -> dict[str, str]:
    """Lay the PILLSNAP_ variables over `data`; return which variable set which key."""
    origins: dict[str, str] = {}
    for name in sorted(variables):
        if not name.startswith(PREFIX) or name == CONFIG_VARIABLE:
            continue
        key = SHORT_NAMES.get(name) or name.removeprefix(PREFIX).lower().replace("__", ".")
        section, _, rest = key.partition(".")
        if section not in Config.model_fields or not rest or section == "source":
            raise ConfigError(f"{name}: unknown key {key!r}; {_allowed(Config, section)}")
        value = yaml.safe_load(variables[name]) if rest.count(".") else variables[name]
        target = data.setdefault(section, {})
        *parents, leaf = rest.split(".")
        for parent in parents:
            target = target.setdefault(parent, {})
        if not isinstance(target, dict):
            raise ConfigError(f"{name}: {section} in the configuration file is not a section")
        target[leaf] = None if value in ("", "null") else value
        origins[key] = name
    return origins


def _explain(error: ErrorDetails, source: Path, origins: Mapping[str, str]) -> str:
    parts = [str(part) for part in error["loc"]]
    key = ".".join(parts)
    model: type[BaseModel] = Config
    for part in parts[:-1]:
        field = model.model_fields.get(part)
        if field is not None and isinstance(field.annotation, type):
            model = field.annotation if issubclass(field.annotation, BaseModel) else model
    where = next((f"{v} ({k})" for k, v in origins.items() if key.startswith(k)), None)
    where = where or f"{source.name}: {key}"
    if error["type"] == "extra_forbidden":
        return f"{where}: unknown key; {_allowed(model, parts[-1])}"
    if error["type"] == "missing":
        return f"{where}: missing"
    message = error["msg"][0].lower() + error["msg"][1:]
    return f"{where}: got {error['input']!r}: {message}"


def _allowed(model: type[BaseModel], given: str) -> str:
    names = sorted(name for name in model.model_fields if name != "source")
    close = difflib.get_close_matches(given, names, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}allowed: {', '.join(names)}"
