"""H-1, H-4, H-8: the Pester files, where there is an engine; Windows' own tests are skipped."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.powershell.scripts import ROOT

MISSING = "no pwsh on PATH: install PowerShell 7 and its module Pester 5.7.1"


@pytest.mark.skipif(shutil.which("pwsh") is None, reason=MISSING)
def test_every_pester_test_passes_or_is_windows_own() -> None:
    command = ["pwsh", "-NoProfile", "-File", "tests/pester/run.ps1"]
    answer = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    failed = [line for line in answer.stdout.splitlines() if "[-]" in line]
    assert answer.returncode == 0, "\n".join(failed) or answer.stdout + answer.stderr
