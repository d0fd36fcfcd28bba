"""The three answers an operation may give, and the exit code of each."""

from typing import Literal

from opslib.core.errors import ExitCode

Verdict = Literal["pass", "fail", "inconclusive"]

VERDICT_EXIT_CODES: dict[str, ExitCode] = {
    "pass": ExitCode.PASS,
    "fail": ExitCode.GATE_FAILED,
    "inconclusive": ExitCode.INCONCLUSIVE,
}


def exit_code_of(verdict: Verdict, *, skipped: bool) -> int:
    """Return the exit code of a verdict; a good one that rests on less than was asked says so."""
    code = VERDICT_EXIT_CODES[verdict]
    return int(ExitCode.SKIPPED if skipped and code == ExitCode.PASS else code)
