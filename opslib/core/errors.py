"""Every error this project raises on purpose, and the exit code each one ends a program with.

    OpsError                      1   something the code could not finish
    ├── UsageError                2   parameters, configuration or input are wrong
    │   ├── ConfigError               a key of config.yaml, .env or the environment
    │   ├── ParameterError            a command-line option or notebook parameter
    │   ├── InputError                an image, a folder, a glob
    │   ├── ModelError                a model file, its sidecar or its card
    │   ├── UnavailableError          an engine or provider this host cannot run
    │   └── StorageError              a disk that is full, a folder that cannot be written
    ├── GateFailedError           3   a measured value is over its limit
    ├── InconclusiveError         4   the evidence does not decide
    ├── DeadlineError             5   a cell or a step took longer than allowed
    ├── BusyError                 6   another run holds the lock
    ├── SecretLeakError           7   a secret stood in an output
    └── SkippedError              9   finished, with items skipped

    TerminatedError             143   SIGTERM ended the run; no OpsError, so that no handler of
                                      errors takes it for a result

The end of a notebook's run is told by its record, which also knows 1 (a cell raised), 8 (no such
kernel) and 138 (the kernel died).

A message is one line that names the culprit and what was expected.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum


class ExitCode(IntEnum):
    """What a finished program tells its caller."""

    PASS = 0
    CELL_RAISED = 1
    USAGE = 2
    GATE_FAILED = 3
    INCONCLUSIVE = 4
    DEADLINE = 5
    BUSY = 6
    SECRET_LEAK = 7
    NO_KERNEL = 8
    SKIPPED = 9
    KERNEL_DIED = 138
    TERMINATED = 143


class OpsError(Exception):
    """Base of all errors raised on purpose; `exit_code` is what a program ends with."""

    exit_code: ExitCode = ExitCode.CELL_RAISED

    def _render_traceback_(self) -> list[str]:
        """Show one line in a notebook; the message says all there is to say (IPython's hook)."""
        return [f"{type(self).__name__}: {self}"]


class UsageError(OpsError):
    """The caller gave something that cannot be used."""

    exit_code = ExitCode.USAGE


class ConfigError(UsageError):
    """A configuration key is unknown, of the wrong type or impossible."""


class ParameterError(UsageError):
    """A command-line option or notebook parameter is unknown or impossible."""


class InputError(UsageError):
    """An image, folder or glob cannot be read."""


class ModelError(UsageError):
    """A model file, sidecar, checkpoint or card is missing, damaged or does not fit."""


class UnavailableError(UsageError):
    """This host cannot run what was asked for; the message is the reason."""


class StorageError(UsageError):
    """A disk is full or a folder cannot be written."""


class GateFailedError(OpsError):
    """A measured value is over its limit."""

    exit_code = ExitCode.GATE_FAILED


class InconclusiveError(OpsError):
    """The evidence does not decide."""

    exit_code = ExitCode.INCONCLUSIVE


class DeadlineError(OpsError):
    """A cell or step took longer than allowed."""

    exit_code = ExitCode.DEADLINE


class BusyError(OpsError):
    """Another run holds the lock; the message says which."""

    exit_code = ExitCode.BUSY


class SecretLeakError(OpsError):
    """A secret stood in an output and was redacted."""

    exit_code = ExitCode.SECRET_LEAK


class SkippedError(OpsError):
    """The work finished, but some items were skipped."""

    exit_code = ExitCode.SKIPPED


class TerminatedError(KeyboardInterrupt):
    """SIGTERM ended the run; like Ctrl-C it passes every handler of errors."""

    exit_code = ExitCode.TERMINATED


@contextmanager
def storage_errors(action: str) -> Iterator[None]:
    """Turn an `OSError` of the block into a `StorageError` that says what was being done."""
    try:
        yield
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise StorageError(f"cannot {action}: {error.strerror or error}{where}") from error
