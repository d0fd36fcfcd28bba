"""`pillops quantize`, `pillops promote` and `scripts/quantize_dynamic.py`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console

from opslib.core.config import Config, load_config
from opslib.ops.quantize.request import QuantizeRequest
from opslib.telling.columns import terminal_table
from opslib.telling.doors import (
    ConfigOption,
    describe_experiment,
    make_console,
    say,
    say_inputs,
    say_verdict,
)
from opslib.telling.operation import Operation, measure, records_of, takes_request

if TYPE_CHECKING:
    from opslib.ops.quantize.record import QuantizeRecord


@takes_request(QuantizeRequest)
def quantize(request: QuantizeRequest, config: Config, json: Path | None) -> int:
    """Make INT8 variants, compare their accuracy and speed with float32, and say what to deploy."""
    from opslib.ops.quantize.run import keep_quantize, run_quantize

    what = f"quantization of {describe_experiment(config)}"

    def name_files(record: QuantizeRecord) -> list[str]:
        kept = [row for row in record.variants if row.file]
        named = request.out is not None and any(row.gated for row in kept)
        lines = [f"dynamic INT8 model: {request.out}"] if named else []
        folders = [(config.exp_dir / str(row.file)).parent for row in kept[:1]]
        return [*lines, *(f"variants: {folder}" for folder in folders)]

    record, _ = measure(
        what, run_quantize, keep_quantize, show_quantize, request, config, json, name_files
    )
    return int(record.exit_code)


def promote(
    model: Annotated[str, typer.Argument(help="A quantized file, or a name: static-minmax.")],
    dry_run: Annotated[bool, typer.Option(help="Show the plan and stop.")] = False,
    force: Annotated[bool, typer.Option(help="Against the evidence; the card says so.")] = False,
    config: ConfigOption = None,
) -> int:
    """Put an INT8 variant into export/ with its model card, unless its evidence is against it."""
    from opslib.core.errors import SkippedError
    from opslib.core.plans import carry_out
    from opslib.ops.quantize.promote import plan_promotion

    loaded = load_config(config)
    show = partial(say, make_console())
    plan = plan_promotion(loaded, model, force=force)
    outcome = carry_out(plan, dry_run=dry_run, show=show)
    for skipped in outcome.skipped:
        raise SkippedError(f"{skipped.action.target}: {skipped.reason}")
    if outcome.done:
        show("the model in service is unchanged; switch with scripts/reload_model.sh --path FILE")
    return 0


def show_quantize(console: Console, record: QuantizeRecord) -> None:
    """Print a quantization's rows as a table, its notes and the verdict."""
    from opslib.ops.quantize.columns import decision_columns
    from opslib.ops.quantize.finding import describe_prepared

    host, top1 = record.lineage.host, record.baseline_top1_pct
    isa = ", ".join(flag for flag in host.isa if "vnni" in flag or "amx" in flag) or "no VNNI"
    images = f"{record.inputs.count:,} {'labelled' if record.labelled else 'unlabelled'} images"
    accurate = f", float32 top-1 {top1:.2f} %" if top1 is not None else ""
    caption = (
        f"{host.label} ({isa}); timed on the CPU, speed against float32; {images} at "
        f"{record.img_size} px{accurate}; ? no clear difference"
    )
    columns, look = decision_columns(record), {"box": SIMPLE_HEAD, "collapse_padding": True}
    console.print(terminal_table(columns, record.rows, caption, **look))
    if record.prepared:
        say(console, describe_prepared(record.prepared))
    for row in record.rows:
        where = row.divergence.finding if row.divergence else None
        for note in filter(None, (row.reason, where, *row.notes)):
            say(console, f"{row.title}: {note}")
    if record.label_note:
        say(console, f"no labels: {record.label_note}")
    say_inputs(console, record.inputs)
    say_verdict(console, record.verdict, record.finding)


QUANTIZE = Operation(
    "quantize",
    {"quantize": quantize, "promote": promote},
    records=records_of("opslib.ops.quantize", "QuantizeRecord", "quantize_"),
)
