"""What every command prints: paths as they are, errors as one short line."""

import io
import subprocess
import sys

import pytest
from rich.console import Console
from rich.table import Table

from opslib.core.errors import InputError, ParameterError
from opslib.ops.bench.command import show_record
from opslib.telling.doors import MAX_ERROR_CHARACTERS, plain_cells, print_error, say, say_verdict
from opslib.telling.operation import parse_sizes
from tests.runs.makers import bench_row, make_bench

HOSTILE = "a[/red]b[bold]:smile:\\"


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=200, highlight=False)


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_what_looks_like_markup_is_printed_as_it_is(console: Console) -> None:
    say(console, HOSTILE)
    say_verdict(console, "pass", HOSTILE)
    table = Table("one")
    table.add_row(*plain_cells([HOSTILE]))
    console.print(table)
    assert printed(console).count(HOSTILE) == 3


def test_a_benchmark_with_hostile_labels_is_shown_as_it_is(console: Console) -> None:
    row = bench_row(2.0, status="unavailable", reason=HOSTILE)
    show_record(console, make_bench([row], finding=HOSTILE))
    assert printed(console).count(HOSTILE) == 2


def test_bytes_that_are_no_text_are_spelt_out(
    console: Console, capsys: pytest.CaptureFixture[str]
) -> None:
    say(console, "x\udcff")
    assert printed(console) == "x\\udcff\n"
    assert print_error(InputError("x\udcff")) == 2
    assert capsys.readouterr().err == "error: x\\udcff\n"


def test_a_long_error_loses_its_middle(capsys: pytest.CaptureFixture[str]) -> None:
    print_error(ParameterError(f"start {'9' * 5000} end"))
    line = capsys.readouterr().err
    assert line.startswith("error: start 9")
    assert line.endswith("9 end\n")
    assert len(line) <= len("error: \n") + MAX_ERROR_CHARACTERS


@pytest.mark.parametrize("text", ["9" * 5000, "0", "", "1,,2", "\udcff", "²"])
def test_an_impossible_batch_size_is_refused(text: str) -> None:
    with pytest.raises(ParameterError, match="--batch"):
        parse_sizes("batch", text)


def test_sigterm_ends_a_command_with_143_and_one_line() -> None:
    code = (
        "import signal, typer\n"
        "from opslib.telling.doors import run_app\n"
        "app = typer.Typer(add_completion=False)\n"
        "@app.command()\n"
        "def wait() -> None:\n"
        "    print('ready', flush=True)\n"
        "    signal.pause()\n"
        "run_app(app)\n"
    )
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.terminate()
        said = process.communicate(timeout=30)[1]
    assert process.returncode == 143
    assert said == "error: terminated by SIGTERM\n"
