#!/usr/bin/env python3
"""Find the fastest ONNX Runtime settings: `scripts/ort_optimize.py --help` lists the options."""

from opslib.cli.doors import run_command
from opslib.cli.sweep import sweep

if __name__ == "__main__":
    run_command(sweep)
