#!/usr/bin/env python3
"""Quantize the model to INT8: `scripts/quantize_dynamic.py --help` lists the options."""

from opslib.cli.doors import run_command
from opslib.cli.quantize import quantize

if __name__ == "__main__":
    run_command(quantize)
