"""What is installed, what really works here, and what to do next: findings, one a line.

Nothing is changed. A finding is `ok`, a `note` (works without it, and says what is missing for
what) or a `problem` (something this project needs does not work).
"""

import shutil
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from opslib import __version__
from opslib.core.config import Config
from opslib.core.foreign import describe_their_variables
from opslib.core.formatting import format_bytes
from opslib.core.host import host_facts
from opslib.core.kinds import list_kinds
from opslib.core.language import tr
from opslib.core.lineage import CODE_FOLDER, git_dirty, git_sha
from opslib.core.overrides import read_variables
from opslib.ops.checklist.doctor_experiment import (
    look_at_env,
    look_at_images,
    look_at_model,
    look_at_service,
)
from opslib.ops.checklist.finding import Finding, FindingState

LOW_DISK_SHARE = 0.10


def examine(config: Config) -> Iterator[Finding]:
    """Yield the findings for `config` on this host, the ground first."""
    code = tr(
        "pillops {version}, commit {commit}", version=__version__, commit=git_sha(CODE_FOLDER)
    )
    if git_dirty(CODE_FOLDER):
        code = tr("{code}, with uncommitted changes", code=code)
    python = tr("Python {version} at {path}", version=sys.version.split()[0], path=sys.executable)
    yield Finding("code", "ok", f"{code}; {python}")
    yield from _look_at_variables(config)
    yield _look_at_packages()
    yield from _look_at_host()
    yield from _look_at_providers(config)
    yield _look_at_kernel()
    yield _look_at_cron()
    yield _look_at_disk(config)
    for kind in list_kinds(config):
        yield from look_at_model(config, kind)
    yield from look_at_images(config)
    yield from look_at_env(config)
    yield look_at_service(config)


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
        seen = tr(
            "a variable names {folder}, and with it moved {keys}",
            folder=config.exp_dir,
            keys=", ".join(config.moved),
        )
        yield Finding("variables", "note", seen)
    if not config.export_dir.is_relative_to(config.exp_dir):
        seen = tr(
            "export.out_dir, {folder}, lies outside of paths.exp_dir", folder=config.export_dir
        )
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
                wrong.append(tr("{package} is missing", package=requirement.name))
        elif not requirement.specifier.contains(version, prereleases=True):
            wrong.append(
                tr(
                    "{package} (wanted {wanted})",
                    package=f"{requirement.name} {version}",
                    wanted=requirement.specifier,
                )
            )
    if not wrong:
        return Finding("packages", "ok", tr("{count} packages as wanted", count=len(needed)))
    step = tr("install what is missing: `pip install -r requirements.txt`")
    return Finding("packages", "problem", "; ".join(wrong), step)


def _find_version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _look_at_host() -> Iterator[Finding]:
    facts = host_facts()
    memory = format_bytes(facts.memory_bytes)
    seen = tr(
        "{cpu}, {usable} of {total} cores usable, {memory}",
        cpu=facts.cpu,
        usable=facts.cpus_usable,
        total=facts.cpus_total,
        memory=memory,
    )
    yield Finding("host", "ok", f"{seen}; {facts.os}")
    for card in facts.gpus:
        seen = tr("{card}, driver {driver}", card=card.name, driver=card.driver)
        yield Finding("card", "ok", f"{seen}, {format_bytes(card.memory_bytes)}")
    if not facts.gpus:
        seen = tr("nvidia-smi shows no NVIDIA card: figures are of the CPU")
        yield Finding("card", "note", seen)


def _look_at_providers(config: Config) -> Iterator[Finding]:
    from opslib.inference.providers import probe_provider

    for name in ("CUDA", "TENSORRT", "CPU"):
        problem = probe_provider(name)
        if problem is None:
            yield Finding("provider", "ok", tr("{provider}: a session starts on it", provider=name))
            continue
        wanted = name in config.onnx.providers
        alone = wanted and len(config.onnx.providers) == 1
        state: FindingState = "problem" if name == "CPU" or alone else "note"
        step = None
        if name == "CUDA" and (alone or (wanted and host_facts().gpus)):
            step = tr("see docs/PERFORMANCE.md for the driver and the packages that CUDA needs")
        yield Finding("provider", state, f"{name}: {problem}", step)


def _look_at_kernel() -> Finding:
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    try:
        program = KernelSpecManager().get_kernel_spec("python3").argv[0]
    except NoSuchKernel:
        step = tr("install the kernel: `python -m ipykernel install --sys-prefix`")
        seen = tr("python3 is not installed: `pillops run` works, plain papermill does not")
        return Finding("kernel", "problem", seen, step)
    # Jupyter itself puts the running interpreter in the place of a bare "python".
    bare = program in ("python", "python3", f"python3.{sys.version_info.minor}")
    if bare or Path(program).absolute() == Path(sys.executable).absolute():
        return Finding(
            "kernel",
            "ok",
            tr("python3 runs {program}", program=sys.executable if bare else program),
        )
    seen = tr(
        "python3 runs {program}, not this interpreter: plain papermill may miss packages",
        program=program,
    )
    return Finding("kernel", "note", seen, tr("activate the environment before plain papermill"))


def _look_at_cron() -> Finding:
    from opslib.upkeep.schedule import is_cron_running

    if not shutil.which("crontab"):
        step = tr("where schedules shall run on this host: `apt-get install cron`")
        return Finding("cron", "note", tr("the program crontab is missing"), step)
    if is_cron_running():
        return Finding("cron", "ok", tr("installed and running"))
    step = tr("start cron: `service cron start`; under WSL2 see docs/OPS_CHECKLIST.md#schedules")
    return Finding("cron", "note", tr("installed, but no cron runs: no schedule fires"), step)


def _look_at_disk(config: Config) -> Finding:
    folder = next(one for one in (config.exp_dir, *config.exp_dir.parents) if one.exists())
    use = shutil.disk_usage(folder)
    seen = tr(
        "{folder}: {free} free of {total}",
        folder=folder,
        free=format_bytes(use.free),
        total=format_bytes(use.total),
    )
    if use.free >= use.total * LOW_DISK_SHARE:
        return Finding("disk", "ok", seen)
    step = tr("see what can be freed: `scripts/maintenance.sh --dry-run`")
    return Finding("disk", "problem", seen, step)
