#!/usr/bin/env python3
"""Benchmark the model: `scripts/perf_bench_infer.py --help` lists the options."""

from opslib.ops.bench.command import bench
from opslib.telling.doors import run_command

if __name__ == "__main__":
    run_command(bench)
