"""A new operation is one folder and one line: the toy of `tests/toy_operation`, registered."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from opslib import ops
from opslib.cli import make_app
from opslib.core.config import Config, load_config
from opslib.core.errors import ParameterError
from opslib.core.plans import carry_out
from opslib.runs.catalogue import scan_runs
from opslib.runs.run_record import RunRecord
from opslib.runs.runner import run_notebook
from opslib.runs.snapshot import plan_snapshot
from opslib.telling.doors import call_app
from tests.models import write_config
from tests.toy_operation.operation import TOY

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Config]:
    """A project with the toy's notebook, in a house that knows the toy."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    before = dict(ops.OPERATIONS)
    ops.register(TOY)
    (tmp_path / "notebooks").mkdir()
    shutil.copy(ROOT / "tests/toy_operation/toy.ipynb", tmp_path / "notebooks")
    yield load_config(write_config(tmp_path))
    ops.OPERATIONS.clear()
    ops.OPERATIONS.update(before)


@pytest.fixture
def run(config: Config) -> RunRecord:
    return run_notebook("toy", config=config, parameters={"throws": "20"})


def test_it_gets_a_command(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    assert call_app(make_app(), ["toy", "--throws", "20", "--config", str(config.source)]) == 0
    said = capsys.readouterr().out
    assert "heads" in said
    assert "of 20 throws" in said


def test_its_notebooks_parameters_are_checked_before_anything_runs(config: Config) -> None:
    for value in ("many", "0", "1001"):
        with pytest.raises(ParameterError, match="throws"):
            run_notebook("toy", config=config, parameters={"throws": value})
    assert not config.report_dir.exists() or not scan_runs(config.report_dir)


def test_it_gets_a_report_an_index_row_and_a_row_in_a_document(
    config: Config, run: RunRecord
) -> None:
    assert (run.exit_code, run.verdict) == (0, "pass"), run.problem
    root = config.report_dir
    (row,) = scan_runs(root)
    assert row.sentence == run.finding
    page = (root / row.href).read_text()
    assert "Throws and heads" in page
    assert run.title in (root / "index.html").read_text()

    document = config.root / "TOYS.md"
    document.write_text("<!-- snapshot:toy -->\n<!-- /snapshot -->\n")
    carry_out(plan_snapshot([document], root), dry_run=False, show=lambda _line: None)
    head, _, line = document.read_text().splitlines()[1:4]
    assert head.startswith("| Host | Throws | Heads | Run |")
    assert "| 20 | " in line
    assert (root / "cited" / run.id / "toy.html").is_file()
