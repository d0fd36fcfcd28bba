"""Samples, events and windows made by hand."""

from __future__ import annotations

from typing import Any

from opslib.ops.drill.record import DrillEvent, EventKind, WindowStats
from opslib.serving.load import Sample


def make_sample(due_s: float, generation: int | None = 1, **changes: Any) -> Sample:
    """A good answer of the model `m<generation>`, 2 ms after it was due."""
    given: dict[str, Any] = {
        "due_s": due_s,
        "latency_ms": 2.0,
        "status": 200,
        "sent_late_ms": 0.1,
        "generation": generation,
        "header_generation": generation,
        "model_sha256": f"m{generation}",
        "version_tag": f"tag-m{generation}",
        "class_ids": (generation or 0,),
    }
    return Sample(**(given | changes))


def make_steady(
    start_s: float, end_s: float, generation: int = 1, rate: float = 100.0
) -> list[Sample]:
    """Good answers at a constant rate."""
    count = round((end_s - start_s) * rate)
    return [make_sample(start_s + index / rate, generation) for index in range(count)]


def make_event(kind: EventKind = "swap", start_s: float = 1.0, **changes: Any) -> DrillEvent:
    """A switch from generation 1 that took half a second."""
    given: dict[str, Any] = {
        "kind": kind,
        "name": "model-b",
        "start_s": start_s,
        "end_s": start_s + 0.5,
        "first_answer_s": start_s + 0.5,
        "window_end_s": start_s + 2.5,
        "status": 200,
        "mark_before": "generation 1",
        "mark_after": "generation 2",
    }
    return DrillEvent(**(given | changes))


def make_window(kind: str, p99_ms: float | None, **changes: Any) -> WindowStats:
    """The figures of a window with this p99, its interval ten percent to either side."""
    given: dict[str, Any] = {
        "kind": kind,
        "windows": 1,
        "duration_s": 10.0,
        "requests": 1000,
        "failed": 0,
        "p50_ms": 1.0,
        "p99_ms": p99_ms,
        "p99_ci95_ms": None if p99_ms is None else (0.9 * p99_ms, 1.1 * p99_ms),
    }
    return WindowStats(**(given | changes))
