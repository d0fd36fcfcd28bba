"""`pillops run`, `report`, `snapshot` and `lab`, as they are typed."""

import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from opslib import __version__
from opslib.cli import app
from opslib.core.config import load_config
from opslib.core.errors import InputError, UsageError
from opslib.core.overrides import CONFIG_VARIABLE
from opslib.runs import lab
from opslib.runs.notebooks import find_notebook
from opslib.telling.doors import call_app
from tests.models import write_config
from tests.runs.makers import (
    bench_row,
    make_bench,
    make_project,
    make_run,
    publish_cell,
    write_run,
)


def pillops(*arguments: str) -> int:
    return call_app(app, list(arguments))


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    """Two benchmarks, the newer one slower."""
    root = tmp_path / "reports"
    write_run(root, make_run(1), make_bench([bench_row(2.0)]))
    write_run(root, make_run(2), make_bench([bench_row(2.5)]))
    write_config(tmp_path)
    return root


def test_the_version_and_a_list_of_commands_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert pillops("--version") == 0
    assert capsys.readouterr().out == f"pillops {__version__}\n"
    assert pillops() == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in ("run", "report", "snapshot", "lab"))


def test_a_run_prints_its_answer_and_its_page_and_returns_its_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = make_project(tmp_path, publish_cell("fail"))
    file = tmp_path / "p.yaml"
    file.write_text("count: 2\nname: 0012345\n")
    given = ("-p", "count", "4", "-f", str(file), "--config", str(config.source))
    assert pillops("run", "toy", *given) == 3
    answer = capsys.readouterr()
    assert "Latency  1.5 ms\nFail: It answers in time.\n" in answer.out
    page = Path(answer.out.splitlines()[-1].removeprefix("report: "))
    assert page.is_file()
    assert "cell 1 of 3" in answer.err
    assert "count = 4, name = 0012345" in page.read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run", "toy", "-p", "count"), "expected key value or key=value"),
        (("run", "toy", "-p", "nope=1"), "unknown"),
        (("run", "nope"), "no such notebook"),
        (("run", "toy", "--nope"), "No such option"),
        (("run", "toy", "--timeout", "soon"), "timeout"),
        (("run",), "Missing argument"),
        (("report", "diff", "a", "b"), "no such report folder"),
    ],
)
def test_a_wrong_command_line_is_one_usage_error(
    tmp_path: Path, arguments: tuple[str, ...], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_project(tmp_path, "1")
    monkeypatch.setenv(CONFIG_VARIABLE, str(config.source))
    with pytest.raises(UsageError, match=words):
        pillops(*arguments)


def test_diff_shows_each_row_and_ends_well(
    reports: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pillops("report", "diff", "000001", "000002", "--root", str(reports)) == 0
    answer = capsys.readouterr().out
    assert "+25.0 %" in answer
    assert "1 row worse" in answer


def test_check_ends_with_three_on_a_regression(
    reports: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pillops("report", "check", "--root", str(reports)) == 3
    assert "1 row worse" in capsys.readouterr().out
    assert pillops("report", "check", "--root", str(reports), "--against", "000002") == 0


def test_check_is_inconclusive_where_nothing_can_be_compared(reports: Path) -> None:
    write_run(reports, make_run(3), make_bench([bench_row(2.0, status="inconclusive")]))
    assert pillops("report", "check", "--root", str(reports)) == 4


def test_index_prints_the_page_it_wrote(reports: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pillops("report", "index", "--root", str(reports)) == 0
    assert Path(capsys.readouterr().out.strip()) == reports / "index.html"
    assert (reports / "index.html").is_file()


def test_adopt_gives_a_plain_notebook_its_page(
    reports: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = reports / "nightly.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell("1", execution_count=1)]), path)
    assert pillops("report", "adopt", str(path), "--root", str(reports)) == 0
    assert (reports / "nightly.html").is_file()
    assert "nightly.html" in (reports / "index.html").read_text()
    capsys.readouterr()
    with pytest.raises(InputError, match="outside the report folder"):
        pillops("report", "adopt", str(tmp_path / "x.ipynb"), "--root", str(reports))


def test_snapshot_checks_shows_writes_and_is_then_current(
    reports: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = tmp_path / "docs" / "PERFORMANCE.md"
    twin = tmp_path / "docs" / "ko" / "PERFORMANCE.md"
    twin.parent.mkdir(parents=True)
    before = "<!-- snapshot:bench -->\n<!-- /snapshot -->\n"
    document.write_text(before)
    where = ("--config", str(tmp_path / "config.yaml"))
    with pytest.raises(InputError, match=r"ko/PERFORMANCE\.md: no such document"):
        pillops("snapshot", *where)
    twin.write_text(before)
    assert pillops("snapshot", "--check", *where) == 3
    assert pillops("snapshot", "--dry-run", *where) == 0
    assert document.read_text() == twin.read_text() == before
    assert "nothing was changed" in capsys.readouterr().out
    assert pillops("snapshot", "--document", str(document), *where) == 0
    assert "2.50" in document.read_text()
    assert twin.read_text() == before
    assert pillops("snapshot", *where) == 0
    assert "2.50" in twin.read_text()
    assert pillops("snapshot", "--check", *where) == 0


def test_lab_opens_the_landing_notebook_on_this_interpreter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(write_config(tmp_path), {})
    with pytest.raises(InputError, match=r"00_start\.ipynb"):
        lab.lab_command(config, port=8888, browser=True)
    (tmp_path / "notebooks").mkdir()
    (tmp_path / lab.LANDING).write_text("{}")
    command = lab.lab_command(config, port=9000, browser=False)
    assert command[:3] == [sys.executable, "-m", "jupyterlab"]
    assert f"--LabApp.default_url=/lab/tree/{lab.LANDING}" in command
    assert "--no-browser" in command
    started: list[dict[str, str]] = []

    def execve(_path: str, _command: list[str], environment: dict[str, str]) -> None:
        started.append(environment)

    monkeypatch.setattr("os.execve", execve)
    monkeypatch.chdir(tmp_path)
    lab.open_lab(config, port=9000, browser=False)
    assert started[0][CONFIG_VARIABLE] == str(config.source)


def test_a_configuration_elsewhere_finds_the_notebooks_of_this_checkout(tmp_path: Path) -> None:
    config = load_config(write_config(tmp_path))
    root = Path(__file__).resolve().parents[2]
    assert find_notebook("bench", config) == root / "notebooks" / "01_bench.ipynb"
