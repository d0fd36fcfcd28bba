"""A figure or a table without data says so: every one of them is told the emptiest record there
can be, and records that lack any one optional part."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import pandas as pd
import pytest
from pydantic import BaseModel

from opslib.ops.acceptance import story as acceptance_story
from opslib.ops.acceptance.record import AcceptanceRecord
from opslib.ops.bench import columns as bench_columns
from opslib.ops.bench import story as bench_story
from opslib.ops.bench.record import BenchRecord
from opslib.ops.checklist import figures, story
from opslib.ops.checklist.items import DiskFacts
from opslib.ops.checklist.record import ChecklistRecord
from opslib.ops.drill import columns as drill_columns
from opslib.ops.drill import figures as drill_figures
from opslib.ops.drill import story as drill_story
from opslib.ops.drill.record import DrillRecord, RawRequests
from opslib.ops.fleet import figures as fleet_figures
from opslib.ops.fleet import story as fleet_story
from opslib.ops.fleet.record import FleetHost, FleetRecord, LikeGroup, LikeRow
from opslib.ops.quantize import columns as quantize_columns
from opslib.ops.quantize import figures as quantize_figures
from opslib.ops.quantize import story as quantize_story
from opslib.ops.quantize.record import Accuracy, QuantizeRecord, VariantRow
from opslib.ops.release import story as release_story
from opslib.ops.release.record import RotaRecord
from opslib.ops.release.report import Subject
from opslib.ops.served_sweep import columns as served_columns
from opslib.ops.served_sweep import story as served_story
from opslib.ops.served_sweep.record import ServedSweepRecord
from opslib.ops.sweep import columns as sweep_columns
from opslib.ops.sweep import story as sweep_story
from opslib.ops.sweep.record import SweepRecord
from opslib.telling.figures import figure_html, table_html
from opslib.telling.themes import LIGHT
from tests.runs.makers import bench_row, make_bench


def emptiest(kind: Any, **given: Any) -> Any:
    """The emptiest value of a type: nothing where nothing is allowed, else zero, else the least."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return None if type(None) in inner else emptiest(inner[0])
    if origin is Literal:
        return inner[0]
    if origin is tuple:
        return () if inner[-1] is Ellipsis else tuple(emptiest(one) for one in inner)
    if origin is dict:
        return {}
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        fields = {
            name: emptiest(field.annotation)
            for name, field in kind.model_fields.items()
            if name not in given
        }
        return kind(**fields, **given)
    return {str: "x", int: 0, float: 0.0, bool: False}[kind]


def no_requests() -> RawRequests:
    made: RawRequests = emptiest(RawRequests)
    return made


def quantized(*variants: VariantRow, **given: Any) -> QuantizeRecord:
    rows = (emptiest(VariantRow, name="x", status="measured"), *variants)
    made: QuantizeRecord = emptiest(QuantizeRecord, rows=rows, **given)
    return made


RECORDS: dict[str, Any] = {
    "bench": emptiest(BenchRecord),
    "bench without stages": make_bench([bench_row(2.0), bench_row(3.0, boundary="end_to_end")]),
    "bench of rows without figures": make_bench(
        [bench_row(2.0, latency_ms=None, throughput_img_s=None)]
    ),
    "sweep": emptiest(SweepRecord),
    "served sweep": emptiest(ServedSweepRecord),
    "quantize": quantized(),
    "quantize without speed": quantized(
        emptiest(VariantRow, name="y", accuracy=emptiest(Accuracy), size_bytes=5),
        batch_sizes=(1, 8),
    ),
    "quantize without intervals": quantized(
        emptiest(VariantRow, name="y", accuracy=emptiest(Accuracy, drop_pp=0.1)),
    ),
    "quantize without the required variant": quantized(
        emptiest(VariantRow, name="y", gated=True, status="unavailable", reason="no", file=None),
        emptiest(VariantRow, name="z", accuracy=emptiest(Accuracy), size_bytes=5),
        gated="y",
    ),
    "drill": emptiest(DrillRecord),
    "drill without requests": emptiest(DrillRecord, raw=no_requests()),
    "acceptance": emptiest(AcceptanceRecord),
    "checklist": emptiest(ChecklistRecord),
    "rota": emptiest(RotaRecord),
    "fleet": emptiest(FleetRecord),
    "fleet without figures": emptiest(
        FleetRecord,
        hosts=(emptiest(FleetHost),),
        groups=(emptiest(LikeGroup), emptiest(LikeGroup, rows=(emptiest(LikeRow),))),
        history={"x": ()},
    ),
}
STORIES: dict[str, types.ModuleType] = {
    "bench": bench_story,
    "sweep": sweep_story,
    "served": served_story,
    "quantize": quantize_story,
    "drill": drill_story,
    "acceptance": acceptance_story,
    "checklist": story,
    "rota": release_story,
    "fleet": fleet_story,
}
FIGURES = {
    drill_story: drill_figures,
    quantize_story: quantize_figures,
    fleet_story: fleet_figures,
}
COLUMNS: dict[types.ModuleType, types.ModuleType] = {
    bench_story: bench_columns,
    sweep_story: sweep_columns,
    served_story: served_columns,
    quantize_story: quantize_columns,
    drill_story: drill_columns,
}
LISTS: dict[str, Any] = {
    "rows": (),
    "disks": (),
    "runs": (),
    "flips": (),
    "folder": Path(),
    "manifest": None,
    "subject": Subject(None, None),
    "notes": (),
}


def tellers(module: types.ModuleType, given: dict[str, Any]) -> Iterator[tuple[str, Callable]]:  # type: ignore[type-arg]
    """What a module draws, describes and lists from the arguments given, by name."""
    for name, function in vars(module).items():
        tells = name.startswith(("draw_", "describe_", "list_notes", "snapshot"))
        if not inspect.isfunction(function) or not (tells or name.endswith("_frame")):
            continue
        names = inspect.signature(function).parameters
        needed = [n for n, p in names.items() if p.default is p.empty and n != "theme"]
        if all(one in given for one in needed):
            call = partial(function, *(given[one] for one in needed))
            yield name, partial(call, LIGHT) if "theme" in names else call


def cases() -> Iterator[Any]:
    for label, record in RECORDS.items():
        module = STORIES[label.split(maxsplit=1)[0]]
        given = {**LISTS, "record": record}
        for one in filter(None, (module, COLUMNS.get(module), FIGURES.get(module))):
            for name, call in tellers(one, given):
                yield pytest.param(name, call, id=f"{label}-{name}")
    for module in (figures, quantize_figures):
        for name, call in tellers(module, LISTS):
            yield pytest.param(name, call, id=f"{module.__name__.rpartition('.')[2]}-{name}")


@pytest.mark.parametrize(("name", "call"), cases())
def test_every_teller_tells_of_a_record_without_data(name: str, call: Callable[[], Any]) -> None:
    import matplotlib.pyplot as plt

    told = call()
    if isinstance(told, pd.DataFrame):
        assert "</table>" in table_html(told, caption="c")
    elif name.startswith("describe_"):
        assert told.strip()
        assert ". ." not in told
        assert ": ." not in told
    elif name == "snapshot":
        columns, rows = told
        assert all(len(row) == len(columns) for row in rows)
    plt.close("all")


PAIRS = [
    (bench_story, "against_batch", "bench", "no engine was timed"),
    (bench_story, "against_batch", "bench of rows without figures", "no engine was timed"),
    (bench_story, "stages", "bench", "No stages were measured"),
    (bench_story, "stages", "bench without stages", "No stages were measured"),
    (sweep_story, "pareto", "sweep", "no setting was timed"),
    (served_story, "settings", "served sweep", "no setting was measured"),
    (quantize_figures, "decision", "quantize", "no INT8 variant was measured"),
    (drill_figures, "timeline", "drill", "single requests are gone"),
    (drill_figures, "timeline", "drill without requests", "no request was measured"),
    (drill_figures, "distribution", "drill without requests", "none was measured"),
    (drill_figures, "memory", "drill", "No memory was measured"),
    (acceptance_story, "times", "acceptance", "No step was walked"),
    (fleet_figures, "speeds", "fleet", "No host was held beside"),
    (fleet_figures, "speeds", "fleet without figures", "No host was held beside"),
    (fleet_figures, "served", "fleet", "No record tells"),
    (fleet_figures, "served", "fleet without figures", "No record tells"),
]


@pytest.mark.parametrize(("module", "what", "label", "said"), PAIRS)
def test_a_figure_without_data_says_so_in_its_place(
    module: types.ModuleType, what: str, label: str, said: str
) -> None:
    record = RECORDS[label]
    draw = partial(getattr(module, f"draw_{what}"), record)
    html = figure_html(draw, alt=getattr(module, f"describe_{what}")(record))
    assert html.startswith('<p class="pillops-nothing">')
    assert said in html


@pytest.mark.parametrize(
    ("draw", "describe", "said"),
    [
        (figures.draw_disks, figures.describe_disks, "No disk could be read"),
        (figures.draw_lately, figures.describe_lately, "No item was checked"),
        (release_story.draw_history, release_story.describe_history, "no release yet"),
    ],
)
def test_so_does_one_of_no_disks_runs_or_releases(draw: Any, describe: Any, said: str) -> None:
    assert said in figure_html(partial(draw, ()), alt=describe(()))


def test_a_disk_without_a_reading_has_no_curve() -> None:
    disks = [emptiest(DiskFacts, mount="/", trend="no trend yet")]
    assert "<img" in figure_html(partial(figures.draw_disks, disks), alt="a disk")


def test_a_variant_whose_speed_was_not_measured_is_not_drawn_as_fast_as_float32() -> None:
    record = RECORDS["quantize without speed"]
    figure = quantize_figures.draw_decision(record, LIGHT)
    assert figure is not None
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert "not measured" in texts
    assert not any("×" in text for text in texts)
    assert "speed not measured" in quantize_figures.describe_decision(record)
