"""What is installed, what really works here, and what to do next: findings, one a line.

Nothing is changed. A finding is `ok`, a `note` (works without it, and says what is missing for
what) or a `problem` (something this project needs does not work).
"""

import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from opslib import __version__
from opslib.core.clock import ASK
from opslib.core.config import Config, read_variables
from opslib.core.env_file import ENV_NAME
from opslib.core.environment import ServiceEnvironment, load_service_environment
from opslib.core.errors import ConfigError, InputError, OpsError
from opslib.core.foreign import describe_their_variables
from opslib.core.formatting import format_bytes, format_counts, plural
from opslib.core.host import host_facts
from opslib.core.kinds import Kind, list_kinds
from opslib.core.lineage import CODE_FOLDER, git_dirty, git_sha
from opslib.core.secrets import show_address

FindingState = Literal["ok", "note", "problem"]
LOW_DISK_SHARE = 0.10
YOUR_OWN = "your own model and images: paths.exp_dir and paths.data_root"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: where, how it is, what was seen, and what to do about it."""

    area: str
    state: FindingState
    seen: str
    next_step: str | None = None


def examine(config: Config) -> Iterator[Finding]:
    """Yield the findings for `config` on this host, the ground first."""
    changed = ", with uncommitted changes" if git_dirty(CODE_FOLDER) else ""
    code = f"pillops {__version__}, commit {git_sha(CODE_FOLDER)}{changed}"
    yield Finding("code", "ok", f"{code}; Python {sys.version.split()[0]} at {sys.executable}")
    yield from _look_at_variables(config)
    yield _look_at_packages()
    yield from _look_at_host()
    yield from _look_at_providers(config)
    yield _look_at_kernel()
    yield _look_at_cron()
    yield _look_at_disk(config)
    for kind in list_kinds(config):
        yield from _look_at_model(config, kind)
    yield from _look_at_images(config)
    yield from _look_at_env(config)
    yield _look_at_service(config)


def list_next_steps(findings: list[Finding]) -> list[str]:
    """Return what to do, problems first, each step once."""
    ordered = sorted(findings, key=lambda one: one.state != "problem")
    return list(dict.fromkeys(one.next_step for one in ordered if one.next_step))


def _look_at_variables(config: Config) -> Iterator[Finding]:
    """What variables did to the configuration that its file does not show."""
    theirs = describe_their_variables(read_variables(config.root))
    if theirs is not None:
        yield Finding("variables", "note", theirs)
    if config.moved:
        seen = f"a variable names {config.exp_dir}, and with it moved {', '.join(config.moved)}"
        yield Finding("variables", "note", seen)
    if not config.export_dir.is_relative_to(config.exp_dir):
        seen = f"export.out_dir, {config.export_dir}, lies outside of paths.exp_dir"
        yield Finding("variables", "note", seen)


def _look_at_packages() -> Finding:
    from packaging.requirements import Requirement

    wrong = []
    wanted = [Requirement(text) for text in metadata.requires("pillops") or ()]
    needed = [one for one in wanted if one.marker is None or one.marker.evaluate()]
    for requirement in needed:
        version = _find_version(requirement.name)
        if version is None:
            if requirement.name != "onnxruntime-gpu" or not _find_version("onnxruntime"):
                wrong.append(f"{requirement.name} is missing")
        elif not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement.name} {version} (wanted {requirement.specifier})")
    if not wrong:
        return Finding("packages", "ok", f"{len(needed)} packages as wanted")
    step = "install what is missing: `pip install -r requirements.txt`"
    return Finding("packages", "problem", "; ".join(wrong), step)


def _find_version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _look_at_host() -> Iterator[Finding]:
    facts = host_facts()
    memory = format_bytes(facts.memory_bytes)
    seen = f"{facts.cpu}, {facts.cpus_usable} of {facts.cpus_total} cores usable, {memory}"
    yield Finding("host", "ok", f"{seen}; {facts.os}")
    for card in facts.gpus:
        seen = f"{card.name}, driver {card.driver}, {format_bytes(card.memory_bytes)}"
        yield Finding("card", "ok", seen)
    if not facts.gpus:
        yield Finding("card", "note", "nvidia-smi shows no NVIDIA card: figures are of the CPU")


def _look_at_providers(config: Config) -> Iterator[Finding]:
    from opslib.inference.providers import probe_provider

    for name in ("CUDA", "TENSORRT", "CPU"):
        problem = probe_provider(name)
        if problem is None:
            yield Finding("provider", "ok", f"{name}: a session starts on it")
            continue
        wanted = name in config.onnx.providers
        alone = wanted and len(config.onnx.providers) == 1
        state: FindingState = "problem" if name == "CPU" or alone else "note"
        step = None
        if name == "CUDA" and (alone or (wanted and host_facts().gpus)):
            step = "see docs/PERFORMANCE.md for the driver and the packages that CUDA needs"
        yield Finding("provider", state, f"{name}: {problem}", step)


def _look_at_kernel() -> Finding:
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    try:
        program = KernelSpecManager().get_kernel_spec("python3").argv[0]
    except NoSuchKernel:
        step = "install the kernel: `python -m ipykernel install --sys-prefix`"
        seen = "python3 is not installed: `pillops run` works, plain papermill does not"
        return Finding("kernel", "problem", seen, step)
    # Jupyter itself puts the running interpreter in the place of a bare "python".
    bare = program in ("python", "python3", f"python3.{sys.version_info.minor}")
    if bare or Path(program).absolute() == Path(sys.executable).absolute():
        return Finding("kernel", "ok", f"python3 runs {sys.executable if bare else program}")
    seen = f"python3 runs {program}, not this interpreter: plain papermill may miss packages"
    return Finding("kernel", "note", seen, "activate the environment before plain papermill")


def _look_at_cron() -> Finding:
    from opslib.upkeep.schedule import is_cron_running

    if not shutil.which("crontab"):
        step = "where schedules shall run on this host: `apt-get install cron`"
        return Finding("cron", "note", "the program crontab is missing", step)
    if is_cron_running():
        return Finding("cron", "ok", "installed and running")
    step = "start cron: `service cron start`; under WSL2 see docs/OPS_CHECKLIST.md#schedules"
    return Finding("cron", "note", "installed, but no cron runs: no schedule fires", step)


def _look_at_disk(config: Config) -> Finding:
    folder = next(one for one in (config.exp_dir, *config.exp_dir.parents) if one.exists())
    use = shutil.disk_usage(folder)
    seen = f"{folder}: {format_bytes(use.free)} free of {format_bytes(use.total)}"
    if use.free >= use.total * LOW_DISK_SHARE:
        return Finding("disk", "ok", seen)
    step = "see what can be freed: `scripts/maintenance.sh --dry-run`"
    return Finding("disk", "problem", seen, step)


def _look_at_model(config: Config, kind: Kind) -> Iterator[Finding]:
    from opslib.core.cards import explain_report, find_gaps
    from opslib.core.models import find_model_files
    from opslib.inference.causes import ModelCheckError, find_hint
    from opslib.inference.contract import Contract, check_input, probe_size
    from opslib.inference.find_model import find_card, find_onnx

    where = kind.of("the embedded demo" if config.is_demo else "experiment")
    step = _name_experiment(config)
    try:
        files = find_model_files(find_onnx(config, kind=kind))
        step = "restore the card from a release, or move it away to serve without"
        card = find_card(config, files.path)
        if kind.contract == "classifier":
            expected = Contract.from_card(card) if card is not None else None
            check_input(files.path, probe_size(files.path, expected, config.preprocess.img_size))
    except OpsError as error:
        if isinstance(error, ModelCheckError):
            step = find_hint(error.stage, str(error))
        yield Finding("model", "problem", f"{where}: {error}", step)
        return
    size = format_bytes(files.size_bytes)
    classes = f", {card.num_classes} classes" if card and card.num_classes else ""
    yield Finding("model", "ok", f"{where} at {config.exp_dir}: {files.path.name}, {size}{classes}")
    gaps = find_gaps(card)
    if gaps is not None:
        unused = explain_report(config.export_dir) if card is None else None
        said = "; ".join(filter(None, (gaps, unused)))
        step = f"make its card: `pillops card {files.path}`"
        yield Finding("model", "note", f"{files.path.name}: {said}", step)


def _name_experiment(config: Config) -> str:
    return f"make the demo: `make demo`; {YOUR_OWN}" if config.can_be_demo else f"name {YOUR_OWN}"


def _look_at_images(config: Config) -> Iterator[Finding]:
    from opslib.inference.preprocess import DEFAULT_FUNCTION, load_preprocessor

    if config.data_root.is_dir():
        yield _count_images(config, "val")
        yield _count_images(config, "train")
    else:
        seen = f"{config.data_root}: no such folder"
        yield Finding("images", "problem", seen, _name_experiment(config))
    if config.images.labels is not None:
        yield _look_at_labels(config.resolve(config.images.labels))
    function = config.preprocess.function
    if function == DEFAULT_FUNCTION:
        return
    try:
        load_preprocessor(function, config.code_root)
    except OpsError as error:
        step = "correct paths.code_root or preprocess.function"
        yield Finding("code_root", "problem", str(error), step)
    else:
        yield Finding("code_root", "ok", f"{function} is found in {config.code_root}")


def _count_images(config: Config, split: Literal["val", "train"]) -> Finding:
    from opslib.inference.images import count_suffixes, list_images

    found = list_images(config, split)
    besides = [f"left out: {format_counts(found.left_out)}"] if found.left_out else []
    besides += found.problems
    if found.paths:
        seen = format_counts(count_suffixes(found.paths))
        state: FindingState = "note" if found.problems else "ok"
        return Finding("images", state, f"{found.pattern}: {'; '.join([seen, *besides])}")
    step = f"name images in images.{split}, a glob below {config.data_root}"
    seen = f"{found.pattern}: {'; '.join(['no image', *besides])}"
    return Finding("images", "note", seen, step)


def _look_at_labels(path: Path) -> Finding:
    from opslib.ops.quantize.labels import KEY, read_label_map

    try:
        labels = read_label_map(path)
    except InputError as error:
        return Finding("labels", "problem", str(error), f"correct {KEY}")
    return Finding("labels", "ok", f"{labels.path}: {plural(len(labels.ids), 'code')}")


def _look_at_env(config: Config) -> Iterator[Finding]:
    env_file = config.root / ENV_NAME
    try:
        found = load_service_environment(config)
    except ConfigError as error:
        yield Finding(ENV_NAME, "problem", str(error), f"correct it in {env_file}")
        return
    for kind in list_kinds(config):
        yield from _look_at_pin(kind)
    yield _look_at_key(env_file, found)


def _look_at_pin(kind: Kind) -> Iterator[Finding]:
    try:
        pinned = next(iter(kind.pins()), None)
    except ConfigError as error:
        yield Finding("pin", "problem", str(error), f"correct {kind.pin_file}")
        return
    if pinned is not None and pinned.is_file():
        yield Finding("pin", "note", f"{kind.pin} pins {pinned}: a start serves that")
    elif pinned is not None:
        seen = f"{kind.pin} names {pinned}, which is not there: the service will not start"
        yield Finding("pin", "problem", seen, f"correct or clear {kind.pin} in {kind.pin_file}")


def _look_at_key(env_file: Path, found: ServiceEnvironment) -> Finding:
    from opslib.serving.keys import MAX_AGE_DAYS, check_key, key_age_days

    step = "put a key into .env: `pillops key rotate`"
    try:
        check_key(found.api_key.get_secret_value() if found.api_key else None)
    except ConfigError as error:
        state: FindingState = "problem" if env_file.exists() else "note"
        return Finding("key", state, str(error).partition(";")[0], step)
    age = key_age_days(env_file)
    if age is None:
        return Finding("key", "ok", "API_KEY is strong, set outside of .env")
    if age < 0:
        return Finding("key", "note", f"API_KEY is strong and dated after now: {ASK}", step)
    if age > MAX_AGE_DAYS:
        seen = f"API_KEY is strong and {age:.0f} days old; monthly is the rule"
        return Finding("key", "note", seen, step)
    return Finding("key", "ok", f"API_KEY is strong, {age:.0f} days old")


def _look_at_service(config: Config) -> Finding:
    import httpx

    from opslib.ops.checklist.service import start_step
    from opslib.serving.live import normalise_url
    from opslib.upkeep.probe import judge

    address = normalise_url(config.client.url)
    url = f"{show_address(address)}/health"
    try:
        answer = httpx.get(f"{address}/health", timeout=2.0, trust_env=False)
    except (httpx.HTTPError, httpx.InvalidURL):
        return Finding("service", "note", f"{url} does not answer", start_step(config))
    judged = judge(answer.status_code, answer.content)
    if judged.degraded:
        step = f"which model it wants and why it has not got it: {config.logs_dir}/api.err"
        return Finding("service", "problem", f"{url}: {judged.detail}", step)
    if answer.status_code == 200:
        return Finding("service", "ok", f"{url} answers 200")
    seen, step = f"{url} answers {answer.status_code}", f"look at {config.logs_dir}/api.err"
    return Finding("service", "problem", seen, step)
