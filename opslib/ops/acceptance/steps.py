"""The nine steps of the acceptance walk: each a command of an operator, and what it must show."""

import gzip
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from opslib.core.config import Config
from opslib.core.errors import ExitCode, OpsError
from opslib.core.formatting import format_bytes, plural
from opslib.core.kinds import pick_classifier
from opslib.core.lineage import CODE_FOLDER
from opslib.core.overrides import CONFIG_VARIABLE
from opslib.core.secrets import mask
from opslib.inference.find_model import find_onnx, list_exports
from opslib.ops.acceptance.put_back import put_back
from opslib.serving.client import ServiceClient
from opslib.serving.keys import KEY_VARIABLE
from opslib.serving.live import describe_degraded
from opslib.serving.staging import RunningService
from opslib.serving.swap import local_digests
from opslib.upkeep.crontab import PROGRAM, read_crontab, take_apart

# A benchmark or sweep that fails measured nothing: its engines disagree.
_MEASURED = (ExitCode.PASS, ExitCode.INCONCLUSIVE)
_STEP_LIMIT_S = 600.0
_JOB_LIMIT_S = 300.0
_LOG_LINE = b"2026-01-01T00:00:00Z INF a line of the tunnel, number %d\n"
_LOG_LINES = 40_000


class StepFailedError(OpsError):
    """A step of the walk did not do what it promises; the message is what was seen instead."""


class NotRunError(OpsError):
    """A step cannot be run on this host; the message says why."""


@dataclass(frozen=True)
class Walk:
    """What every step may use: the experiment, its running service, and the seconds to measure."""

    config: Config
    service: RunningService
    outside: str
    budget_s: float

    def run(
        self, *words: str, codes: Sequence[int] = (0,), variables: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of the checkout as an operator does, with `variables` added. Raises
        StepFailedError: it ended with another code than `codes`."""
        own = {"PILLSNAP_PYTHON": sys.executable} if words[0].endswith(".sh") else {}
        if words[0] == "pillops":
            words = (sys.executable, "-m", "opslib.cli", *words[1:])
        elif words[0].endswith(".py"):
            words = (sys.executable, *words)
        own |= {CONFIG_VARIABLE: str(self.config.source), KEY_VARIABLE: self.service.key}
        env = {**os.environ, **own, **(variables or {})}
        limit_s = _STEP_LIMIT_S + self.budget_s
        try:
            answer = subprocess.run(
                words, cwd=CODE_FOLDER, env=env, capture_output=True, text=True, timeout=limit_s
            )
        except subprocess.TimeoutExpired as error:
            raise StepFailedError(f"took longer than {limit_s:g} s") from error
        if answer.returncode not in codes:
            said = mask(answer.stderr or answer.stdout, [self.service.key]).strip().splitlines()
            last = said[-1] if said else "nothing"
            raise StepFailedError(f"ended with {answer.returncode}: {last}")
        return answer


class Step(NamedTuple):
    """A step of the walk: its title, the command to show, and what takes it and returns what was
    seen."""

    title: str
    command: str
    run: Callable[[Walk], str]


STEPS: list[Step] = []


def _step(title: str, command: str) -> Callable[[Callable[[Walk], str]], Callable[[Walk], str]]:
    def add(run: Callable[[Walk], str]) -> Callable[[Walk], str]:
        STEPS.append(Step(title, command, run))
        return run

    return add


def check_health(url: str) -> str:
    """Return what `/health` of a service says; it must be 200 with the model that is wanted."""
    import httpx

    try:
        answer = httpx.get(f"{url}/health", timeout=5.0, trust_env=False)
    except httpx.HTTPError as error:
        raise StepFailedError(f"{url}/health: {error}") from error
    if answer.status_code != 200 or not answer.json().get("model_loaded"):
        raise StepFailedError(f"{url}/health: {answer.status_code} {answer.text[:200]}")
    degraded = describe_degraded(answer.json())
    if degraded is not None:
        raise StepFailedError(f"{url}/health: {degraded}")
    return f"200, {answer.json()['engine']} on {answer.json()['device']}, a model is loaded"


@_step("local /health answers 200", "curl -s http://127.0.0.1:PORT/health")
def health_inside(walk: Walk) -> str:
    """Ask the service itself."""
    return check_health(walk.service.url)


@_step("external /health answers 200", "curl -s http://127.0.0.2:PORT/health")
def health_outside(walk: Walk) -> str:
    """Ask through the address that stands in for the public one."""
    seen = check_health(walk.outside)
    return f"{seen}; simulated by the loopback address {walk.outside}"


@_step("a release is made", "scripts/backup_release.sh")
def make_release(walk: Walk) -> str:
    """Make a release and let `sha256sum` agree."""
    archive = Path(walk.run("scripts/backup_release.sh").stdout.strip())
    check = ["sha256sum", "-c", "--status", f"{archive.name}.sha256"]
    if subprocess.run(check, cwd=archive.parent, check=False).returncode:
        raise StepFailedError(f"{archive.name}: sha256sum -c says no")
    return f"{archive.name}, {format_bytes(archive.stat().st_size)}; sha256sum -c agrees"


def newest(folder: Path, pattern: str, since: float) -> Path:
    """Return the newest file of a pattern written since then (Unix seconds). Raises
    StepFailedError: there is none."""
    found = [path for path in folder.glob(pattern) if path.stat().st_mtime >= since]
    if not found:
        raise StepFailedError(f"{folder}/{pattern}: no new record")
    return max(found, key=lambda path: path.stat().st_mtime)


def _measured(walk: Walk, pattern: str, *words: str, codes: Sequence[ExitCode] = _MEASURED) -> str:
    since = time.time() - 1
    answer = walk.run(*words, "--budget", f"{walk.budget_s:g}", codes=codes)
    record = newest(walk.config.records_dir, pattern, since)
    content = json.loads(record.read_bytes())
    verdict, schema = content.get("verdict", "none"), content["schema"]
    allowed = "" if answer.returncode == 0 else ": the step is that it runs and says so"
    return f"{record.name} ({schema}), verdict {verdict}, exit code {answer.returncode}{allowed}"


@_step(
    "the benchmark runs on both engines",
    "scripts/perf_bench_infer.py --engine both --model MODEL "
    f"--inputs {shlex.quote('IMAGES/val/**/*')} --batch 1,2,4,8,16",
)
def run_bench(walk: Walk) -> str:
    """Measure both engines at the batch sizes of the requirements."""
    model = str(find_onnx(walk.config).resolve())
    inputs = f"{walk.config.data_root}/val/**/*"
    words = ("--engine", "both", "--model", model, "--inputs", inputs, "--batch", "1,2,4,8,16")
    return _measured(walk, "bench_*.json", "scripts/perf_bench_infer.py", *words)


@_step("the sweep runs without arguments", "scripts/ort_optimize.py")
def run_sweep(walk: Walk) -> str:
    """Race the settings, with no arguments but the time allowed."""
    return _measured(walk, "ort_bench.json", "scripts/ort_optimize.py")


@_step("INT8 is compared", "scripts/quantize_dynamic.py --model MODEL --out OUT")
def run_quantize(walk: Walk) -> str:
    """Compare INT8 with float32; the variant is thrown away."""
    model, script = str(find_onnx(walk.config).resolve()), "scripts/quantize_dynamic.py"
    codes = (*_MEASURED, ExitCode.GATE_FAILED)  # "do not deploy it" is a decision, too
    with tempfile.TemporaryDirectory(prefix="pillops-acceptance-") as folder:
        words = (script, "--model", model, "--out", f"{folder}/model.int8.onnx")
        return _measured(walk, "quantize_*.json", *words, codes=codes)


@_step("a rollback is rehearsed", "scripts/reload_model.sh --path OTHER; pillops rollback")
def rehearse_rollback(walk: Walk) -> str:
    """Switch to another model and back, each confirmed by `/version`."""
    kind = pick_classifier(walk.config)
    found = find_onnx(walk.config, kind=kind).resolve()
    exports = list_exports(walk.config.export_dir, kind)
    other = next((path for path in sorted(exports) if path.resolve() != found), None)
    if other is None:
        raise NotRunError(f"{walk.config.export_dir}: only one model; a rollback needs two")
    client = ServiceClient(walk.service.url, walk.service.key, kind.client)
    with put_back(walk.config, "served"), client:
        before = client.version()
        host = ("--host", walk.service.url)
        target = found if before.sha256 in local_digests(other) else other
        walk.run("scripts/reload_model.sh", "--path", str(target), *host)
        switched = client.version()
        if switched.sha256 == before.sha256:
            raise StepFailedError(f"/version still says {before.describe()}")
        walk.run("pillops", "rollback", "--kind", kind.name, *host)
        after = client.version()
    if after.sha256 != before.sha256:
        raise StepFailedError(f"/version says {after.describe()}, before {before.describe()}")
    tags = f"{before.version_tag} to {switched.version_tag} and back"
    return f"{tags}; /version confirms generation {after.generation}"


@_step("schedules are installed", "pillops schedule install --demo")
def rehearse_schedules(walk: Walk) -> str:
    """Install the schedules, run the first one as cron would, and leave the crontab as it was."""
    if shutil.which(PROGRAM) is None:
        raise NotRunError(f"the program {PROGRAM} is missing: apt-get install cron")
    with put_back(walk.config, "schedules"):
        walk.run("pillops", "schedule", "install", "--demo")
        block = take_apart(read_crontab(), str(walk.config.source)).block or ""
        jobs = [line for line in block.splitlines() if not line.startswith("#")]
        line = next((job for job in jobs if "scripts/maintenance.sh" in job), None)
        if line is None:
            raise StepFailedError(f"crontab -l: no maintenance job for {walk.config.source}")
        said = _run_as_cron(line, walk.config.logs_dir / "cron_maint.out")
    installed = f"{plural(len(jobs), 'job')} installed, the first run as cron does: {said}"
    return f"{installed}; the crontab is as it was before"


@_step("maintenance and rotation run by hand", "scripts/maintenance.sh; pillops rotate")
def rehearse_upkeep(walk: Walk) -> str:
    """Clean the experiment and rotate a planted log of the tunnel; every line must survive."""
    walk.run("scripts/maintenance.sh", "--dry-run")
    since = time.time() - 1
    walk.run("scripts/maintenance.sh")
    record = newest(walk.config.records_dir, "maintenance_*.json", since)
    with tempfile.TemporaryDirectory(prefix="pillops-acceptance-") as folder:
        log = Path(folder) / "cloudflared.log"
        text = b"".join(_LOG_LINE % number for number in range(_LOG_LINES))
        log.write_bytes(text)
        changed = {"PILLSNAP_ROTATE__LOG": str(log), "PILLSNAP_ROTATE__MAX_MB": "1"}
        walk.run("pillops", "rotate", variables=changed)
        archives = sorted(Path(folder).glob("cloudflared.log.*.gz"))
        kept = b"".join(gzip.decompress(path.read_bytes()) for path in archives)
        kept += log.read_bytes() if log.exists() else b""
        if not archives or kept != text:
            raise StepFailedError(f"{log.name}: {len(text) - len(kept)} bytes are missing")
        size = format_bytes(archives[0].stat().st_size)
    return f"{record.name}; {_LOG_LINES:,} lines of a log rotated into {size}, none lost"


def _run_as_cron(line: str, log: Path) -> str:
    """Run a crontab line's command with cron's empty environment; return what its log gained."""
    before = log.stat().st_size if log.exists() else 0
    command = line.split(None, 5)[5].replace("\\%", "%")
    environment = {"HOME": os.environ.get("HOME", "/"), "PATH": "/usr/bin:/bin", "SHELL": "/bin/sh"}
    shell = ["/bin/sh", "-c", command]
    answer = subprocess.run(shell, env=environment, timeout=_JOB_LIMIT_S, check=False)
    grown = log.stat().st_size - before if log.exists() else 0
    if answer.returncode or grown <= 0:
        raise StepFailedError(f"ended with {answer.returncode}, {log.name} grew by {grown} bytes")
    return f"exit code 0, {log.name} grew by {format_bytes(grown)}"
