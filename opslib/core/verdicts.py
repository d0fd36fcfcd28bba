"""The three answers an operation may give, and the exit code of each."""

from __future__ import annotations

from typing import Literal

from opslib.core.errors import ExitCode

Verdict = Literal["pass", "fail", "inconclusive"]

VERDICT_EXIT_CODES: dict[str, ExitCode] = {
    "pass": ExitCode.PASS,
    "fail": ExitCode.GATE_FAILED,
    "inconclusive": ExitCode.INCONCLUSIVE,
}
