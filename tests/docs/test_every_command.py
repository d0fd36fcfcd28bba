"""Every command of README and docs is parsed as the program parses it, and executed by a test of
`make docs-check`, or said why not and where instead."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.exceptions import TyperException

from tests.docs.commands import (
    DOCUMENTS,
    ROOT,
    find_calls,
    find_mentions,
    make_doors,
    parse,
    read_commands,
    run_script,
)
from tests.models import write_config, write_images, write_onnx

# Executed here, in this order, in a folder laid out like a checkout.
HERE = (
    ".venv/bin/pillops run 01_bench",
    ".venv/bin/pillops run notebooks/01_bench.ipynb -f my.yaml",
    ".venv/bin/pillops report diff RUN_A RUN_B",
    ".venv/bin/pillops report check",
)
# Not executed here: where instead, as a test or a target of the Makefile.
ELSEWHERE = {
    ".venv/bin/papermill notebooks/01_bench.ipynb out.ipynb": "tests/notebooks/test_notebooks.py",
    "make demo": "tests/demo/test_build.py",
    "make test": "Makefile",
    "make acceptance": "Makefile",
    "pillops bench --model FILE": "tests/zoo/test_doors.py",
    "pillops release create --onnx FILE --only": "tests/zoo/test_doors.py",
    "make lab": "tests/runs/test_lab.py",
    ".venv/bin/pillops run 01_bench -p batch 1,8 -p budget_s 30": (
        "tests/notebooks/test_notebooks.py"
    ),
    ".venv/bin/pillops run bench -p batch 1,8 -p budget_s 30": "tests/runs/test_parameters.py",
    ".venv/bin/python scripts/perf_bench_infer.py --engine both --batch 1,2,4,8": (
        "tests/scripts/test_perf_bench_infer.py"
    ),
}


_RUNS = re.compile(r"""parametrize\(\s*"command",\s*(find_commands\(\)|COMMANDS)""")


def own_tests(document: Path) -> list[Path]:
    """The test modules that execute the commands of a document, found by the name they open."""
    modules = sorted((ROOT / "tests" / "docs").glob("test_*.py"))
    named = [path for path in modules if f'"{document.name}"' in path.read_text()]
    return [path for path in named if _RUNS.search(path.read_text())]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_a_command_is_executed_or_named_with_the_place_that_does(document: Path) -> None:
    if own_tests(document):
        return
    for command in read_commands(document):
        assert command in HERE or command in ELSEWHERE, f"{document.name}: {command}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_the_program_knows_the_command_and_its_options(document: Path) -> None:
    calls = find_calls(document)
    for words in [*calls, *find_mentions(document)]:
        try:
            parse(words)
        except TyperException as error:
            said = error.format_message()
            if words in calls or not said.startswith("Missing "):  # a part of one may be named
                pytest.fail(f"pillops {' '.join(words)}: {said}")


def test_calls_are_found_and_a_wrong_one_is_noticed() -> None:
    calls = [words for document in DOCUMENTS for words in find_calls(document)]
    for words in (
        ["release", "prove", "--turns", "100"],
        ["reload", "--path", "$MODEL", "--host", "$HOST_A", "--host", "$HOST_B"],
        ["serve", "--port", "8001"],
        ["maintain", "--dry-run"],
    ):
        assert words in calls
    for words in (["check", "dayly", "--howrs"], ["release", "proof"], ["serve", "--port", "x"]):
        with pytest.raises(TyperException):
            parse(words)


def test_every_place_named_instead_exists() -> None:
    for place in ELSEWHERE.values():
        assert (ROOT / place).exists(), place


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A tiny experiment laid out like a checkout."""
    folder = tmp_path_factory.mktemp("checkout")
    write_images(folder / "images/val/a", 4)
    write_onnx(folder / "exp/export/m.onnx")
    bench = "bench: {target_half_width_pct: 1.0e+30, engine: onnx, batch: [1], budget_s: 2}\n"
    write_config(folder, bench)
    (folder / "my.yaml").write_text("batch: '1'\nbudget_s: 2\n")
    make_doors(folder)
    return folder


def fill_in(command: str, checkout: Path) -> str:
    runs = sorted((checkout / "reports").glob("*/*/run.json"))
    for name, run in zip(("RUN_A", "RUN_B"), runs, strict=False):
        command = command.replace(name, str(run.parent))
    return command


@pytest.mark.parametrize("command", HERE)
def test_a_command_of_the_readme_or_the_report_guide_works(checkout: Path, command: str) -> None:
    answer = run_script(
        fill_in(command, checkout), checkout, {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    )
    # A verdict other than pass is an answer too: it depends on who else works on this host.
    assert answer.returncode in (0, 3, 4), answer.stderr


def test_each_command_executed_here_stands_in_a_document() -> None:
    said = {command for document in DOCUMENTS for command in read_commands(document)}
    assert set(HERE) <= said
    assert set(ELSEWHERE) <= said, "a command named here is in no document any more"


def test_a_block_without_a_language_hides_no_command() -> None:
    for document in DOCUMENTS:
        for block in re.findall(r"```\n(.*?)```", document.read_text(), re.DOTALL):
            assert not re.search(r"^(\.venv/bin/|make |scripts/)", block, re.MULTILINE), document
