"""The configuration: environment over `.env` over `config.yaml`, validated once, then frozen.

Every section is small and every key has one place. A single key is overridden by
`PILLSNAP_<SECTION>__<KEY>`; `PILLSNAP_EXP_DIR` and `PILLSNAP_DATA_ROOT` are short for
`paths.exp_dir` and `paths.data_root`; `PILLSNAP_CONFIG` names another file. Relative paths are
read from the folder of the configuration file. Where a variable moves `paths.exp_dir`, all that the
file names in it moves with it.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import get_args, get_origin

from pydantic import BaseModel, PrivateAttr, ValidationError
from pydantic_core import ErrorDetails

from opslib import TELEMETRY_SAID
from opslib.core import section_types, sections, upkeep_sections
from opslib.core.config_edit import on_one_line, parse_yaml, show_value
from opslib.core.config_end import check_end, check_last_line
from opslib.core.config_moved import move_paths
from opslib.core.errors import ConfigError
from opslib.core.files import expand_user
from opslib.core.foreign import refuse_foreign
from opslib.core.language import ENGLISH, Language, use_language
from opslib.core.models_section import Kinds
from opslib.core.overrides import CONFIG_VARIABLE, lay_over, read_variables, say_allowed

DEFAULT_CONFIG_NAME = "config.yaml"
TELEMETRY_OFF = "ORT_DISABLE_TELEMETRY"  # 1 since opslib was imported, if nobody said anything


class Config(section_types.Section):
    """The whole configuration, frozen; `load_config` makes one."""

    source: Path
    language: Language = ENGLISH
    paths: sections.PathsSection
    desk: sections.DeskSection = sections.DeskSection()
    export: sections.ExportSection = sections.ExportSection()
    models: Kinds = {}
    images: sections.ImagesSection = sections.ImagesSection()
    preprocess: sections.PreprocessSection = sections.PreprocessSection()
    torch: sections.TorchSection = sections.TorchSection()
    onnx: sections.OnnxSection = sections.OnnxSection()
    parity: sections.ParitySection = sections.ParitySection()
    bench: sections.BenchSection = sections.BenchSection()
    quantize: sections.QuantizeSection = sections.QuantizeSection()
    sweep: sections.SweepSection = sections.SweepSection()
    service: sections.ServiceSection = sections.ServiceSection()
    uploads: sections.UploadsSection = sections.UploadsSection()
    reload: sections.ReloadSection = sections.ReloadSection()
    client: sections.ClientSection = sections.ClientSection()
    drill: sections.DrillSection = sections.DrillSection()
    health: upkeep_sections.HealthSection = upkeep_sections.HealthSection()
    rotate: upkeep_sections.RotateSection = upkeep_sections.RotateSection()
    release: upkeep_sections.ReleaseSection = upkeep_sections.ReleaseSection()
    schedule: upkeep_sections.ScheduleSection = upkeep_sections.ScheduleSection()
    maintenance: upkeep_sections.MaintenanceSection = upkeep_sections.MaintenanceSection()
    checklist: upkeep_sections.ChecklistSection = upkeep_sections.ChecklistSection()
    _moved: tuple[str, ...] = PrivateAttr(())

    @property
    def moved(self) -> tuple[str, ...]:
        """The keys whose paths moved with `paths.exp_dir`, which a variable set."""
        return self._moved

    @property
    def root(self) -> Path:
        """The folder of the configuration file, from which relative paths are read."""
        return self.source.parent

    def resolve(self, path: Path | str) -> Path:
        """Return `path` with `~` expanded, taken from the configuration's folder if relative."""
        try:
            return (self.root / expand_user(Path(path))).absolute()
        except ValueError as error:
            raise ConfigError(f"{path}: {error}") from error

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
    def logs_dir(self) -> Path:
        """The folder of the service's and the jobs' logs, `{exp_dir}/logs`."""
        return self.exp_dir / "logs"

    @property
    def releases_dir(self) -> Path:
        """The folder of the release archives, `{exp_dir}/releases`."""
        return self.exp_dir / "releases"

    @property
    def restore_dir(self) -> Path:
        """Where restored releases are unpacked; the service may serve from it."""
        given = self.reload.restore_dir
        return self.resolve(given) if given else self.releases_dir / "restored"

    @property
    def report_dir(self) -> Path:
        """The folder of dated, executed notebooks."""
        return self.resolve(self.paths.report_dir)

    @property
    def is_demo(self) -> bool:
        """Whether the experiment is the embedded demo."""
        return (self.exp_dir / ".demo.json").exists()

    @property
    def can_be_demo(self) -> bool:
        """Whether the demo could be made here: it has one model, and lies in the checkout."""
        return not self.models and self.exp_dir.is_relative_to(self.root)


def check_experiment(config: Config) -> None:
    """Refuse an experiment that is not there: it is not made, for its disk may not be mounted.
    Raises `ConfigError` where its folder is missing."""
    if not config.exp_dir.is_dir():
        raise ConfigError(f"paths.exp_dir: {config.exp_dir}: no such folder; is its disk mounted?")


def find_config(path: Path | str | None = None) -> Path:
    """Return the configuration file: `path`, else `PILLSNAP_CONFIG`, else the nearest `config.yaml`
    in this folder or above, else the one beside the library. Raises `ConfigError` where there is
    none."""
    named = path or os.environ.get(CONFIG_VARIABLE)
    if named:
        origin = "--config" if path else CONFIG_VARIABLE
        try:
            found = expand_user(Path(named)).absolute()
        except ValueError as error:
            raise ConfigError(f"{origin}: got {show_value(str(named))}: {error}") from error
        if not found.is_file():
            shown = on_one_line(str(found))
            raise ConfigError(f"{shown}: no such configuration file (named by {origin})")
        return found
    here = Path.cwd()
    beside_library = Path(__file__).resolve().parents[2]
    nearest = find_nearest(here, beside_library)
    if nearest is None:
        raise ConfigError(f"no {DEFAULT_CONFIG_NAME} in {here} or above; name one with --config")
    return nearest


def find_nearest(here: Path, beside_library: Path) -> Path | None:
    """Return the `config.yaml` in `here` or above, else the one beside the library, or None."""
    places = (one / DEFAULT_CONFIG_NAME for one in (here, *here.parents, beside_library))
    return next((one for one in places if one.is_file()), None)


def load_config(
    path: Path | str | None = None, environment: Mapping[str, str] | None = None
) -> Config:
    """Return the validated configuration of `path` (see `find_config`). `path`: the YAML file.
    `environment`: variables that override keys; the process environment by default. Raises
    `ConfigError` where a key is unknown, of the wrong type or impossible; the message names the
    key, what was given and what is allowed. Or the file is another program's. Its language is in
    force from then on."""
    source = find_config(path)
    try:
        text = source.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{source}: cannot be read: {error}") from error
    config = parse_config(text, source, read_variables(source.parent, environment))
    if config.onnx.telemetry and TELEMETRY_SAID is None:
        os.environ[TELEMETRY_OFF] = "0"
    use_language(config.language)
    return config


def parse_config(text: str, source: Path, variables: Mapping[str, str]) -> Config:
    """Return the validated configuration of a YAML `text` that stands, or shall stand, in `source`.
    `variables`: variables that override keys, `.env` included. Raises `ConfigError`, as
    `load_config`."""
    check_end(text, str(source))
    data = parse_yaml(text, str(source))
    if not isinstance(data, dict):
        raise ConfigError(f"{source}: expected sections such as `paths:`, got {show_value(data)}")
    refuse_foreign(data, Config.model_fields, str(source))
    written = data.get("paths")
    home = written.get("exp_dir") if isinstance(written, dict) else None
    origins = lay_over(data, variables, Config.model_fields)
    if "source" in data:
        raise ConfigError(
            f"{source}: source: unknown key; {say_allowed(Config.model_fields, 'source')}"
        )
    try:
        config = Config.model_validate({**data, "source": source})
    except ValidationError as error:
        raise ConfigError(_explain(error.errors()[0], source, origins)) from error
    check_last_line(text, str(source))
    if "paths.exp_dir" in origins and isinstance(home, str):
        return _move_along(config, Path(home), origins)
    return config


def _move_along(config: Config, home: Path, origins: Mapping[str, str]) -> Config:
    """The configuration with what the file names in its experiment moved to where a variable has
    moved that."""
    try:
        old = Path(os.path.normpath(config.resolve(home)))
    except ConfigError:
        return config  # nothing can lie in a folder that is none
    if old == config.exp_dir:
        return config

    def move(path: Path) -> Path | None:
        there = Path(os.path.normpath(config.root / path.expanduser()))
        return config.exp_dir / there.relative_to(old) if there.is_relative_to(old) else None

    moved: Config
    moved, keys = move_paths(config, move, {"source", *origins})
    moved._moved = tuple(keys)
    return moved


def _explain(error: ErrorDetails, source: Path, origins: Mapping[str, str]) -> str:
    parts = [str(part) for part in error["loc"]]
    key = ".".join(parts)
    model: type[BaseModel] = Config
    for part in parts[:-1]:
        field = model.model_fields.get(part)
        inner = field.annotation if field is not None else None
        inner = get_args(inner)[1] if get_origin(inner) is dict else inner  # sections by name
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            model = inner
    near = (k for k in origins if f"{key}.".startswith(f"{k}.") or k.startswith(f"{key}."))
    where = next((f"{origins[k]} ({k})" for k in near), None)
    where = on_one_line(where or f"{source}: {key}")
    if error["type"] == "extra_forbidden":
        return f"{where}: unknown key; {say_allowed(model.model_fields, parts[-1])}"
    if error["type"] == "missing":
        return f"{where}: missing"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == section_types.UNSHOWN_ERROR:
        return f"{where}: {message}"
    return f"{where}: got {show_value(error['input'])}: {message[0].lower()}{message[1:]}"
