import errno
import os
import re
from pathlib import Path

import pytest

from opslib.core import errors
from opslib.core.errors import ExitCode, OpsError, StorageError, storage_errors

DOCUMENTED = {
    "OpsError": 1,
    "UsageError": 2,
    "ConfigError": 2,
    "ParameterError": 2,
    "InputError": 2,
    "ModelError": 2,
    "UnavailableError": 2,
    "StorageError": 2,
    "GateFailedError": 3,
    "InconclusiveError": 4,
    "DeadlineError": 5,
    "BusyError": 6,
    "SecretLeakError": 7,
    "SkippedError": 9,
    "TerminatedError": 143,
}


@pytest.mark.parametrize(("name", "code"), DOCUMENTED.items())
def test_each_error_ends_a_program_with_its_documented_code(name: str, code: int) -> None:
    assert int(getattr(errors, name).exit_code) == code


def test_every_error_class_is_in_the_drawn_tree() -> None:
    classes = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, OpsError)
    }
    assert classes | {"TerminatedError"} == set(DOCUMENTED)
    for name in classes:
        assert name in (errors.__doc__ or "")


def test_every_exit_code_belongs_to_an_error_or_to_the_end_of_a_run() -> None:
    of_runs = {ExitCode.PASS, ExitCode.NO_KERNEL, ExitCode.KERNEL_DIED}
    assert set(ExitCode) == of_runs | {ExitCode(code) for code in DOCUMENTED.values()}


@pytest.mark.parametrize("name", sorted(DOCUMENTED))
def test_every_error_is_raised_somewhere(name: str) -> None:
    sources = Path(errors.__file__).parents[1].rglob("*.py")
    assert any(re.search(rf"(?<!class )\b{name}\(", path.read_text()) for path in sources)


def test_an_operating_system_error_says_what_was_being_done() -> None:
    with (
        pytest.raises(StorageError, match=r"cannot write report.*No space left.*/x/y"),
        storage_errors("write report"),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/x/y")


def test_no_module_of_the_library_uses_assert_as_a_check() -> None:
    import ast

    for path in Path(errors.__file__).parents[1].rglob("*.py"):
        tree = ast.parse(path.read_text())
        assert not any(isinstance(node, ast.Assert) for node in ast.walk(tree)), path


def test_termination_is_never_taken_for_a_result() -> None:
    assert not issubclass(errors.TerminatedError, Exception)
