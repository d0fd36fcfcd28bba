"""ONNX Runtime reports nothing to its makers from a process of ours, unless that is allowed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.models import write_config, write_onnx

PROCESSES = {
    "the doctor": "import sys; sys.argv[1:] = ['doctor']; from opslib.cli import main; main()",
    "an engine": """
from pathlib import Path
from opslib.inference.engine import EngineRequest
from opslib.inference.opening import open_engine
open_engine(EngineRequest("onnx", Path("exp/export/m.onnx"))).close()
""",
    "a trial": """
from pathlib import Path
from opslib.inference.trial import try_model
try_model(Path("exp/export/m.onnx"))
""",
    "a child that knows nothing of ours": """
import opslib, subprocess, sys
subprocess.run([sys.executable, "-c", "import onnxruntime"], check=True)
""",
}
IMPORT = "import onnxruntime"
ALLOWED = """
from opslib.core.config import load_config
load_config()
import onnxruntime
"""


def run_alone(folder: Path, code: str, **variables: str) -> list[str]:
    """Run code in a process with a home of its own, where `CI` is not set; return what lies there
    and in its temporary folder afterwards that is ONNX Runtime's."""
    home, temporary = folder / "home", folder / "tmp"
    home.mkdir()
    temporary.mkdir()
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    places = {"HOME": str(home), "TMPDIR": str(temporary), "PYTHONPATH": str(Path.cwd())}
    told = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=kept | places | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert "Traceback" not in told.stderr
    found = [*home.glob(".cache/Microsoft/**/*"), *temporary.glob(".ses")]
    return sorted(path.name for path in found if path.is_file())


@pytest.fixture
def place(tmp_path: Path) -> Path:
    write_config(tmp_path)
    (tmp_path / "exp" / "export").mkdir(parents=True)
    write_onnx(tmp_path / "exp" / "export" / "m.onnx")
    return tmp_path


@pytest.mark.parametrize("code", [IMPORT, ALLOWED], ids=["without us", "allowed"])
def test_it_reports_where_nobody_says_no(place: Path, code: str) -> None:
    variables = {"PILLSNAP_ONNX__TELEMETRY": "true"}
    found = run_alone(place, code, **variables)
    if not found and code == IMPORT:
        pytest.skip("this build of ONNX Runtime keeps nothing")
    assert found == [".ses", "deviceid", "onnxruntime.db"]


def test_what_the_environment_says_itself_wins_over_the_key(place: Path) -> None:
    said = {"ORT_DISABLE_TELEMETRY": "1", "PILLSNAP_ONNX__TELEMETRY": "true"}
    assert run_alone(place, ALLOWED, **said) == []


@pytest.mark.parametrize("what", PROCESSES)
def test_nothing_is_kept_or_reported_by_a_process_of_ours(place: Path, what: str) -> None:
    assert run_alone(place, PROCESSES[what]) == []
