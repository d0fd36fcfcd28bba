"""An engine that is told no number of threads takes what this process may use, and no more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.models import write_onnx

PROBE = """
import json, os, sys
os.sched_setaffinity(0, {int(sys.argv[2])})
from pathlib import Path
import onnxruntime
from opslib.inference.engine import EngineRequest
from opslib.inference.opening import open_engine
from opslib.inference.providers import SessionSettings
before = set(os.listdir("/proc/self/task"))
settings = SessionSettings(execution_mode=sys.argv[3])
with open_engine(EngineRequest("onnx", Path(sys.argv[1]), settings=settings)) as engine:
    own = set(os.listdir("/proc/self/task")) - before
    print(json.dumps([engine.facts.threads, len(own)]))
"""


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two processors to leave one")
@pytest.mark.parametrize("mode", ["SEQUENTIAL", "PARALLEL"])
def test_an_affinity_mask_of_one_processor_is_kept(tmp_path: Path, mode: str) -> None:
    model = write_onnx(tmp_path / "m.onnx", classes=3, size=16)
    allowed = str(max(os.sched_getaffinity(0)))
    told = subprocess.run(
        [sys.executable, "-c", PROBE, str(model), allowed, mode],
        capture_output=True,
        text=True,
        check=True,
    )
    threads, workers = json.loads(told.stdout)
    assert (threads, workers) == (1, 0)
