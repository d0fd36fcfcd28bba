"""docs/MODELS.md says of every model of the zoo what the tests hold the doors to."""

import sys
from pathlib import Path

from tests.running import run_python

ROOT = Path(__file__).resolve().parents[2]


def test_the_table_is_what_the_zoo_expects() -> None:
    answer = run_python([sys.executable, ROOT / "tools/models.py", "--check"])
    assert answer.returncode == 0, "run `python tools/models.py`"
