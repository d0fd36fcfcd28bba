"""Rotation again and again without a pause, to be killed at any moment:
`python -m tests.upkeep.restless_rotation CONFIG`."""

from __future__ import annotations

import sys
from pathlib import Path

from opslib.core.config import load_config
from opslib.upkeep.rotate import run_rotation

if __name__ == "__main__":
    config = load_config(Path(sys.argv[1]), {})
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        run_rotation(config, show=lambda line: None)
