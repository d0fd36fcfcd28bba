"""Maintenance again and again without a pause, to be killed at any moment:
`python -m tests.upkeep.restless CONFIG`."""

from __future__ import annotations

import sys
from pathlib import Path

from opslib.core.config import load_config
from opslib.upkeep.maintenance import run_maintenance

if __name__ == "__main__":
    config = load_config(Path(sys.argv[1]), {})
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        run_maintenance(config, show=lambda line: None)
