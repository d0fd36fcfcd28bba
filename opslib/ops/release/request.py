"""What a person asks a release for."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class ReleaseRequest:
    """What to release and where to; the defaults are everything, into `{exp_dir}/releases`.

    `onnx` is the model that it is about, by default what the link means, else the newest; `only`
    leaves the other models of `export/` out. `allow_missing_metrics` notes that
    `reports/metrics.json` is missing rather than refuse. `verify` reads the finished archive back,
    `load_models` also loads its models from it. `strip_metadata` packs, of a model whose metadata
    gives something away, a copy without, once both are shown to answer alike.
    """

    onnx: Path | None = None
    only: bool = False
    out: Path | None = None
    allow_missing_metrics: bool = False
    sign: Path | None = None
    unsigned: bool = False
    verify: bool = True
    load_models: bool = True
    strip_metadata: bool = False
    environment: dict[str, str] | None = field(default=None, repr=False)
