#!/usr/bin/env python3
"""Quantize the model to INT8: `scripts/quantize_dynamic.py --help` lists the options."""

from opslib.ops.quantize.command import quantize
from opslib.telling.doors import run_command

if __name__ == "__main__":
    run_command(quantize)
