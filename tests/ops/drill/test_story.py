"""A drill told to people: every event in the figure, every promise in a table."""

from __future__ import annotations

from functools import partial

import pytest

from opslib.core.lineage import record_lineage
from opslib.inference.facts import InputFacts
from opslib.ops import find_records
from opslib.ops.drill import figures, story
from opslib.ops.drill.analysis import analyse, pack_requests
from opslib.ops.drill.record import DrillModel, DrillRecord, Injection, Memory, PromiseCheck
from opslib.ops.drill.rehearsal import Deed
from opslib.serving.load import LoadPlan, LoadResult
from opslib.telling.figures import figure_html, table_html
from opslib.timing.disturbance import Disturbance
from tests.ops.drill.makers import make_sample, make_steady


@pytest.fixture(scope="module")
def record() -> DrillRecord:
    """A drill with one of everything, one request failed in it."""
    samples = [*make_steady(0, 3, 1), *make_steady(3, 6, 2)]
    samples.append(make_sample(5.0, status=503, error="busy"))
    plan = LoadPlan(url="http://127.0.0.1:1", images=(), requests=1, rate_per_s=100.0)
    load = LoadResult(
        plan=plan, started_unix_s=0, started_clock_s=0, wall_s=6.0, samples=tuple(samples)
    )
    deeds = [
        Deed("swap", "b", 2.0, 3.0, status=200, resident=False),
        Deed("bad model", "text", 5.2, 5.3, status=422, stage="read"),
    ]
    found = analyse(load, deeds, [("baseline", 0.0, 1.0), ("A/A", 1.0, 2.0)], settle_s=1.0)
    nothing = Disturbance(
        wall_s=6,
        run_delay_pct=None,
        other_cpu_pct=None,
        load_average=None,
        throttled_s=None,
        cpu_frequency_mhz=None,
        foreign_gpu_processes=None,
    )
    return DrillRecord(
        verdict="fail",
        finding="Not kept.",
        exit_code=3,
        lineage=record_lineage(),
        target="staging",
        form="short",
        device="cpu",
        model=DrillModel(name="a.onnx", sha256="a" * 64),
        other_model=DrillModel(name="b.onnx", sha256="b" * 64),
        inputs=InputFacts(glob="*", count=1, sha256="c" * 64, skipped=()),
        capacity_per_s=300,
        load_share=0.3,
        rate_per_s=100,
        p99_ratio_max=1.5,
        settle_s=1.0,
        started_at_utc="2026-11-01T00:00:00+00:00",
        wall_s=6,
        requests=len(samples),
        failed=found.failed,
        failed_in_kill=0,
        mixed=0,
        longest_stall_ms=2,
        sent_late_p99_ms=0.1,
        windows=found.windows,
        calms=found.calms,
        events=found.events,
        injections=(Injection(injected="text", promised="refused", seen="422", held=None),),
        checks=(PromiseCheck(name="failed", value="1", limit="0", result="fail", reason="503"),),
        memory=(Memory(during="swap", swap=1, rss_bytes=1 << 27),),
        disturbance=nothing,
        notes=("a note",),
        raw=pack_requests(samples),
    )


def test_each_figure_is_drawn_and_told(record: DrillRecord) -> None:
    for draw, describe in (
        (figures.draw_timeline, figures.describe_timeline),
        (figures.draw_distribution, figures.describe_distribution),
        (figures.draw_memory, figures.describe_memory),
    ):
        assert figure_html(partial(draw, record), alt=describe(record))
    told = figures.describe_timeline(record)
    assert "swap at 2 s" in told
    assert "bad model at 5 s" in told
    assert "1 requests failed outside the kill" in told


def test_each_table_says_what_was_promised_and_seen(record: DrillRecord) -> None:
    tables = {
        "failed": story.checks_frame(record),
        "before (baseline)": story.windows_frame(record),
        "swap A → B": story.switches_frame(record),
        "not tried": story.injections_frame(record),
    }
    for said, frame in tables.items():
        assert said in table_html(frame, caption="a table")
    assert list(story.injections_frame(record)) == ["injected", "promised", "seen", "kept"]


def test_the_notes_say_what_was_drilled_and_how_hard(record: DrillRecord) -> None:
    text = " ".join(story.list_notes(record))
    for said in ("a.onnx", "b.onnx", "100 requests a second", "a note"):
        assert said in text


def test_a_slim_record_keeps_its_tables_and_says_that_its_requests_are_gone(
    record: DrillRecord,
) -> None:
    slim = record.slim()
    assert len(story.windows_frame(slim)) == len(story.windows_frame(record))
    for draw, describe in (
        (figures.draw_timeline, figures.describe_timeline),
        (figures.draw_distribution, figures.describe_distribution),
    ):
        html = figure_html(partial(draw, slim), alt=describe(slim))
        assert html.startswith('<p class="pillops-nothing">')
        assert "this record was slimmed" in html


def test_documents_can_show_a_drill(record: DrillRecord) -> None:
    kept = find_records("drill_20261101-000000.json")
    assert kept is not None
    columns, rows = kept.table(record)
    assert len(columns) == len(rows[0])
