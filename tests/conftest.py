import functools
import os
import re
import runpy
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from opslib.core.language import ENGLISH, use_language
from opslib.timing import workers
from tests.running import STARTERS, prepare_starts
from tests.s3 import S3, start_s3
from tests.sftp import Sftp, can_serve, meet, start_sftp

ROOT = Path(__file__).resolve().parents[1]
QUICK = ROOT / "tests" / "quick"
runpy.run_path(str(QUICK / "sitecustomize.py"))  # in this process too
os.environ.pop("COLUMNS", None)  # a process among several is told a width of 80

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

PLAIN_WORKERS = {name: getattr(workers, name) for name in ("multiprocessing", "_prepare_child")}
# By which of its words a test file is known to share something with others: a service that all ask,
# a demo that all read, the host's own cron or browser.
SHARED = {
    "demo": r"\btiny(_build)?[,:)]",
    "plant": r"\bplant: Plant\b",
    "live": r"\blive: Live\b",
    "cron": r"\bmark\.cron\b",
    "chromium": r"\bmark\.chromium\b",
}
# What takes longest, or waits longest, begins first: at the end no process works alone.
FIRST = (
    "cron",
    "tests/fleet/test_roll.py",
    "live",
    "plant",
    "chromium",
    "tests/zoo/test_doors.py",
    "tests/ops/bench/test_run.py",
    "tests/upkeep/test_health.py",
    "tests/ops/drill/test_catches.py",
    "tests/ops/release/test_rota.py",
    "tests/ops/sweep/test_run.py",
    "tests/ops/served_sweep/test_run.py",
    "tests/scripts/test_their_options.py",
    "tests/notebooks/test_release.py",
    "tests/notebooks/test_rollback_drill.py",
    "tests/upkeep/test_maintenance.py",
    "tests/ops/acceptance/test_acceptance.py",
    "tests/runs/test_runner.py",
    "tests/inference/test_zoo.py",
    "tests/scripts/test_perf_bench_infer.py",
    "tests/ops/release/test_command.py",
    "tests/ops/quantize/test_preparation.py",
    "tests/ops/quantize/test_run.py",
    "tests/upkeep/test_full_disk.py",
    "tests/ops/drill/test_two_stage.py",
    "tests/notebooks/test_ort_sweep.py",
    "tests/notebooks/test_served_sweep.py",
    "tests/notebooks/test_fleet.py",
    "tests/deletions/test_killing.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what cannot run on this host; where tests run in several processes, order them."""
    skip_what_lacks_its_needs(items)
    if "PYTEST_XDIST_WORKER" in os.environ:
        first = {name: number for number, name in enumerate(FIRST)}
        sizes = Counter(find_group(str(item.path)) for item in items)
        items.sort(key=lambda item: rank(find_group(str(item.path)), first, sizes))


def rank(group: str, first: dict[str, int], sizes: Counter[str]) -> tuple[int, int, str]:
    """Where a group stands: those of `FIRST`, then the largest."""
    return first.get(group, len(FIRST)), -sizes[group], group


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Where tests run in several processes, keep those of a group in one of them.

    xdist's own marker for that renames tests, which pytest 9.2 ignores.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Groups(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return find_group(str(config.rootpath / nodeid.partition("::")[0]))

    return Groups(config, log)


@functools.cache
def find_group(path: str) -> str:
    """Name the group of a file's tests: the file's own, or what it shares with other files."""
    text = Path(path).read_text()
    shared = (name for name, sign in SHARED.items() if re.search(sign, text))
    return next(shared, str(Path(path).relative_to(ROOT)))


def skip_what_lacks_its_needs(items: list[pytest.Item]) -> None:
    """Skip, and say why, what needs a card, Debian's chromium or cron where there is none."""
    needs = {
        "gpu": (shutil.which("nvidia-smi"), "needs an NVIDIA card"),
        "cron": (shutil.which("cron"), "needs cron: apt-get install cron"),
        "chromium": (shutil.which("chromium"), "needs chromium: apt-get install chromium"),
    }
    for marker, (there, reason) in needs.items():
        for item in items:
            if marker in item.keywords and not there:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session", autouse=True)
def _own_locks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests wait for no timed run outside of them, and hold none up."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PILLOPS_LOCK_DIR", str(tmp_path_factory.mktemp("locks")))
        patch.setenv("PYTHONPATH", str(QUICK), prepend=os.pathsep)
        prepare_starts(patch)
        yield


@pytest.fixture
def plain_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What our programs start starts as it does outside of tests: each a new interpreter."""
    for name in STARTERS:
        monkeypatch.setattr(f"{name}.subprocess", subprocess)
    for name, plain in PLAIN_WORKERS.items():
        monkeypatch.setattr(workers, name, plain)


@pytest.fixture(autouse=True)
def _own_configuration(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test sees the caller's PILLSNAP_ variables, nor the language of the one before."""
    for name in list(os.environ):
        if name.startswith("PILLSNAP_"):
            monkeypatch.delenv(name)
    yield
    use_language(ENGLISH)


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """A real S3 server of our own."""
    with start_s3(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3(s3_server: S3, monkeypatch: pytest.MonkeyPatch) -> S3:
    """The S3 server that this test and what it starts talk to, with the right credentials."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return s3_server


@pytest.fixture(scope="session")
def sftp_server() -> Iterator[Sftp]:
    """A real SFTP server of our own."""
    if not can_serve():
        pytest.skip("needs sshd; as root namespaces too")
    folder = Path(tempfile.mkdtemp(prefix="pillops-sftp-", dir="/tmp"))  # users must get there
    folder.chmod(0o755)
    try:
        with start_sftp(folder) as server:
            yield server
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def sftp(sftp_server: Sftp, monkeypatch: pytest.MonkeyPatch) -> Sftp:
    """The SFTP server that this test and what it starts can reach, with the right key."""
    meet(sftp_server, monkeypatch)
    return sftp_server


@pytest.fixture
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], str]:
    """Return the address of a new store of a kind: `file`, `s3` or `sftp`."""

    def make(kind: str) -> str:
        if kind == "s3":
            return f"s3://{request.getfixturevalue('s3').make_bucket()}/x"
        if kind == "sftp":
            return str(request.getfixturevalue("sftp").make_store())
        return f"file://{tmp_path}/shared"

    return make


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What a test logged goes from the process that ran it to the one that shows it, which takes
    UTF-8 alone: names of files may be none."""
    report = yield
    report.sections = [
        (name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections
    ]
    return report
