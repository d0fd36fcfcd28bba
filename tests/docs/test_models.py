"""docs/MODELS.md says of every model of the zoo what the tests hold the doors to."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_table_is_what_the_zoo_expects() -> None:
    answer = subprocess.run([sys.executable, ROOT / "tools/models.py", "--check"], check=False)
    assert answer.returncode == 0, "run `python tools/models.py`"
