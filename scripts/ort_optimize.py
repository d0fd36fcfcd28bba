#!/usr/bin/env python3
"""Find the fastest ONNX Runtime settings: `scripts/ort_optimize.py --help` lists the options."""

from opslib.ops.sweep.command import sweep
from opslib.telling.doors import run_command

if __name__ == "__main__":
    run_command(sweep)
