"""The configuration's sections: small frozen groups of keys with types, limits and defaults."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator
from pydantic_core import PydanticCustomError

from opslib.core.secrets import split_http
from opslib.core.section_types import (
    UNSHOWN_ERROR,
    BatchSizes,
    Counts,
    ImportString,
    Names,
    PositiveInt,
    Providers,
    Section,
    Share,
    StoreUrl,
    split_commas,
)
from opslib.core.store_address import is_address

_LOCAL_FOLDER = "expected a local folder; desk.url takes the address of a store for all hosts"


class PathsSection(Section):
    """Where the experiment, its images and the serving code live."""

    exp_dir: Path
    data_root: Path
    code_root: Path | None = None
    report_dir: Path = Path("reports")

    @field_validator("report_dir", mode="before")
    @classmethod
    def _refuse_address(cls, value: Any) -> Any:
        if is_address(str(value)):
            raise PydanticCustomError(UNSHOWN_ERROR, _LOCAL_FOLDER)
        return value


class DeskSection(Section):
    """Where the reports of several hosts lie together, and what this host is called there."""

    url: StoreUrl = None
    host: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")] | None = None


class ExportSection(Section):
    """Where exported models live; `{exp_dir}/export` unless given."""

    out_dir: Path | None = None


class ImagesSection(Section):
    """Which images are measured on, and what they show."""

    val: Annotated[str, Field(min_length=1)] | None = None
    train: Annotated[str, Field(min_length=1)] | None = None
    labels: Path | None = None


class PreprocessSection(Section):
    """Which code turns image files into the model's input."""

    function: str = "opslib.inference.preprocess:preprocess"
    img_size: Annotated[int, Field(ge=8, le=4096)] | None = None


class TorchSection(Section):
    """Where the Torch checkpoint is looked for, and how it becomes a network."""

    factory: str | None = None
    checkpoints: Names = (
        "checkpoints/best.pt",
        "checkpoints/*_classification_best.pt",
        "*_classification_best.pt",
        "artifacts/*/checkpoints/*_classification_best.pt",
    )
    safe_globals: Annotated[tuple[ImportString, ...], BeforeValidator(split_commas)] = ()


class OnnxSection(Section):
    """ONNX Runtime session settings, in its own spelling."""

    providers: Providers = ("CUDA", "CPU")
    graph_optimization_level: Literal["DISABLE_ALL", "BASIC", "EXTENDED", "ALL"] = "ALL"
    execution_mode: Literal["SEQUENTIAL", "PARALLEL"] = "SEQUENTIAL"
    intra_op_num_threads: Annotated[int, Field(ge=0)] = 0
    inter_op_num_threads: Annotated[int, Field(ge=0)] = 0
    allow_spinning: bool = True
    telemetry: bool = False
    cuda: dict[str, str | int] = {"cudnn_conv_use_max_workspace": 1}


class ParitySection(Section):
    """How far two engines' probabilities may lie apart."""

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
    max_batch: PositiveInt = 8


class UploadsSection(Section):
    """How large a request may be, beside MAX_UPLOAD_MB and ALLOWED_EXTS of `.env`."""

    batch_max_images: PositiveInt = 16
    batch_max_mb: PositiveInt = 100
    max_pixels: PositiveInt = 50_000_000
    batch_max_pixels: PositiveInt = 200_000_000


class ReloadSection(Section):
    """Which models may be switched in, and what a candidate may cost before it is."""

    model_dirs: Annotated[tuple[Path, ...], BeforeValidator(split_commas)] = ()
    restore_dir: Path | None = None
    trial_timeout_s: Annotated[float, Field(gt=0)] = 120.0
    trial_memory_mb: PositiveInt | None = None
    resident_models: PositiveInt = 2
    resident_min_free_mb: Annotated[int, Field(ge=0)] = 1024


def _check_service(value: str) -> str:
    try:
        split_http(value if "://" in value else f"http://{value}")
    except ValueError as error:
        raise ValueError("expected http://HOST:PORT") from error
    return value


class ClientSection(Section):
    """How the tools talk to a service: ours, or another that honours the contract."""

    url: Annotated[str, AfterValidator(_check_service)] = "http://127.0.0.1:8000"
    timeout_s: Annotated[float, Field(gt=0, le=86_400)] = 180.0
    request_field: str = "model_path"
    path_field: str = "model_path"
    digest_field: str = "model_sha256"
    loaded_field: str = "model_loaded"


class SweepSection(Section):
    """Which options the sweeps try, of sessions and as served, and how long."""

    objective: Literal["throughput", "p50"] = "throughput"
    batch: BatchSizes = (1, 8)
    budget_s: Annotated[float, Field(gt=0)] = 60.0
    margin_pct: Annotated[float, Field(gt=0)] = 2.0
    finalists: Annotated[int, Field(ge=2)] = 4
    parity_images: PositiveInt = 8
    threads: Counts | None = None
    spinning: Annotated[tuple[bool, ...], BeforeValidator(split_commas)] = (True, False)
    cudnn_conv_algo_search: Names = ("EXHAUSTIVE", "HEURISTIC", "DEFAULT")
    prefer_nhwc: tuple[Literal[0, 1], ...] = (0, 1)
    use_tf32: tuple[Literal[0, 1], ...] = (1, 0)
    enable_cuda_graph: tuple[Literal[0, 1], ...] = (0, 1)
    tensorrt: bool = True
    p99_limit_ms: Annotated[float, Field(gt=0)] = 100.0
    rate_per_s: Annotated[float, Field(gt=0)] | None = None
    workers: Counts | None = None
    max_batch: BatchSizes = (1, 8)
    served_budget_s: Annotated[float, Field(gt=0)] = 140.0


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


Seconds = Annotated[float, Field(gt=0, le=3600)]


class DrillSection(Section):
    """How the rollback drill loads a service, for how long, and the limits of its verdict."""

    load_share: Annotated[float, Field(gt=0, le=0.9)] = 0.3
    rate_max_per_s: Annotated[float, Field(gt=0, le=5000)] = 200.0
    images: PositiveInt = 64
    capacity_s: Seconds = 4.0
    baseline_s: Seconds = 15.0
    aa_s: Seconds = 15.0
    settle_s: Seconds = 2.0
    swaps: PositiveInt = 5
    p99_ratio_max: Annotated[float, Field(ge=1)] = 1.5
    swap_max_s: Seconds = 60.0
    rollback_max_s: Seconds = 1.0
    stall_max_ms: Annotated[float, Field(gt=0)] = 1000.0
    recovery_max_s: Seconds = 60.0
    rss_growth_max_pct: Annotated[float, Field(gt=0)] = 5.0
    soak_requests: PositiveInt = 20_000
    soak_swaps: PositiveInt = 20
    leak_swaps: Annotated[int, Field(ge=20)] = 200
