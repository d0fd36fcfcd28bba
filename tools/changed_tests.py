"""Run the tests of what changed, the nearest first, until the time is up.

What changed is what differs from `main`, or from the commit before where nothing does. A changed
test comes first, then the tests that import a changed module, then those that import a module that
imports it. One line says what was left out.

    python tools/changed_tests.py [--seconds 45] [--list]
"""

from __future__ import annotations

import argparse
import ast
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
RINGS = 2


def git(*words: str) -> list[str]:
    """Return the lines that git says, none where it refuses."""
    said = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    return said.stdout.splitlines()


def find_changed() -> list[Path]:
    """Return the files that differ from `main` or are new, or those of the last commit."""
    base = git("merge-base", "HEAD", "main") or ["HEAD"]
    names = git("diff", "--name-only", base[0]) + git("ls-files", "-o", "--exclude-standard")
    return [ROOT / name for name in names or git("diff", "--name-only", "HEAD~1")]


def module_of(path: Path) -> str:
    """Return the name by which a file of this checkout is imported."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def find_imports(path: Path) -> Iterator[str]:
    """Yield the modules that a file imports, and the names it takes from them as if modules."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{one.name}" for one in node.names)


def choose(changed: Iterable[Path]) -> list[Path]:
    """Return the test files of what changed, the nearest first."""
    files = [path for room in ("opslib", "tests") for path in sorted((ROOT / room).rglob("*.py"))]
    importers: dict[str, set[Path]] = defaultdict(set)
    for path in files:
        for name in find_imports(path):
            importers[name].add(path)
    ring = [path for path in changed if path.suffix == ".py" and path.is_relative_to(ROOT)]
    seen = set(ring)
    chosen = [path for path in ring if path.exists() and path.name.startswith("test_")]
    for _ in range(RINGS):
        near = {one for path in ring for one in importers[module_of(path)]} - seen
        seen |= near
        rooms = {path.relative_to(ROOT).parts[1] for path in ring if len(path.parts) > 1}
        ring = sorted(near, key=lambda one: (one.relative_to(ROOT).parts[1] not in rooms, one))
        chosen += [path for path in ring if path.name.startswith("test_")]
    return chosen


class Limit:
    """Ends a run of pytest when its time is up, and says which files were not finished."""

    def __init__(self, seconds: float) -> None:
        self.left: list[pytest.Item] = []
        self.failed = False
        self._session: pytest.Session | None = None
        self._seconds = seconds

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Learn what there is to run."""
        self.left = list(session.items)

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Begin to count."""
        self._session = session
        signal.signal(signal.SIGALRM, self._end)
        signal.setitimer(signal.ITIMER_REAL, self._seconds)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep what failed."""
        self.failed = self.failed or report.failed

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """One less is left."""
        self.left = [item for item in self.left if item.nodeid != nodeid]
        if not self.left:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _end(self, *_: object) -> None:
        if self._session is not None:
            self._session.shouldstop = "the time is up"  # for a test that swallows every exception
        pytest.exit("the time is up", returncode=int(self.failed))


def main() -> int:
    """Run the tests and return pytest's exit code; none to run is no failure."""
    parser = argparse.ArgumentParser(description=__doc__, add_help=True)
    parser.add_argument("--seconds", type=float, default=45.0)
    parser.add_argument("--list", action="store_true", help="name the files and run nothing")
    asked = parser.parse_args()
    chosen = [str(path.relative_to(ROOT)) for path in choose(find_changed())]
    if asked.list or not chosen:
        print("\n".join(chosen) or "no test belongs to what changed")
        return 0
    limit = Limit(asked.seconds)
    words = ["-o", "addopts=", "-q", "-m", "not docs_run and not alone", *chosen]
    code = pytest.main(words, plugins=[limit])
    if limit.left:
        files = dict.fromkeys(item.nodeid.partition("::")[0] for item in limit.left)
        print(f"left out: {len(limit.left)} tests of {', '.join(files)}; `make test` runs them")
    return 0 if code == pytest.ExitCode.NO_TESTS_COLLECTED else int(code)


if __name__ == "__main__":
    sys.exit(main())
