import os
import runpy
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from opslib.timing import workers
from tests.running import STARTERS, prepare_starts

QUICK = Path(__file__).parent / "quick"
runpy.run_path(str(QUICK / "sitecustomize.py"))  # in this process too
os.environ.pop("COLUMNS", None)  # a process among several is told a width of 80

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

PLAIN_WORKERS = {name: getattr(workers, name) for name in ("multiprocessing", "_prepare_child")}
SHARED = {"plant", "live", "tiny_build", "cron", "chromium"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what cannot run on this host, and say which tests stay in one process."""
    skip_what_lacks_its_needs(items)
    keep_together(items)


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


def keep_together(items: list[pytest.Item]) -> None:
    """Where tests run in several processes, keep those of a file in one of them, with the other
    files that need the same thing: a service that all share, the host's own cron or browser."""
    groups: dict[Path, str] = {}
    for item in items:
        for name in sorted(SHARED & {*item.keywords, *getattr(item, "fixturenames", ())}):
            groups[item.path] = name
    for item in items:
        item.add_marker(pytest.mark.xdist_group(groups.get(item.path, str(item.path))))


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
def _own_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the caller's PILLSNAP_ variables."""
    for name in list(os.environ):
        if name.startswith("PILLSNAP_"):
            monkeypatch.delenv(name)
