"""One model at one batch size while it is measured, and when its figures are conclusive.

What decides is the ratio to the reference network, timed in turn with it: that holds from one day
to the next. The absolute figure is what this host did then.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from opslib.core.errors import OpsError
from opslib.inference.engine import EngineFacts, EngineRequest
from opslib.ops.bench.record import Relative
from opslib.timing.blocks import FEWEST_BLOCKS, MIN_RUNS, Boundary, Summary, summarize_blocks
from opslib.timing.related import Round, choose_rounds, is_settled, log_ratio_interval
from opslib.timing.station import FixedBatchError, TimedBlock

BOUNDARIES: tuple[Boundary, ...] = ("inference", "end_to_end")
PLANNED_BLOCKS = 5  # more short blocks beat few long ones: Student's t is 2.8 at five, 4.3 at three


@dataclass
class Cell:
    """One model at one batch size, the blocks measured so far within each boundary, and the rounds
    beside the reference network, where there is one. `error`: why it cannot be measured;
    `unrelated`: why there can be no rounds."""

    name: str
    request: EngineRequest
    reference: EngineRequest | None = None
    facts: EngineFacts | None = None
    error: OpsError | None = None
    unrelated: str | None = None
    blocks: dict[Boundary, list[TimedBlock]] = field(
        default_factory=lambda: {boundary: [] for boundary in BOUNDARIES}
    )
    related: dict[Boundary, list[Round]] = field(
        default_factory=lambda: {boundary: [] for boundary in BOUNDARIES}
    )

    @property
    def reason(self) -> str | None:
        """Why it cannot be measured, in words."""
        return None if self.error is None else str(self.error)

    @property
    def missing(self) -> OpsError | None:
        """Why a figure that was asked for is missing; a batch size that the model does not take
        leaves none out."""
        return None if isinstance(self.error, FixedBatchError) else self.error

    def summary(self, boundary: Boundary) -> Summary | None:
        """Return what the blocks of one boundary say, or None where there is none."""
        blocks = [timed.block for timed in self.blocks[boundary]]
        return summarize_blocks(blocks) if blocks else None

    def wide(self, target_half_width_pct: float, fewest: int) -> list[Boundary]:
        """Return the boundaries whose ratio to the reference is not known to the target yet, from
        at least `fewest` rounds."""
        if self.reference is None or self.reason or self.unrelated:
            return []
        return [
            one
            for one in self.blocks
            if not is_settled(self.related[one], target_half_width_pct, fewest)
        ]

    def wants_block(self, target_half_width_pct: float) -> bool:
        """Whether a further absolute block is due: few so far, or their interval is wide."""
        fewest = PLANNED_BLOCKS if self.reference is None else FEWEST_BLOCKS
        found = [self.summary(one) for one in self.blocks]
        return any(
            one is None
            or len(one.block_medians_ms) + one.disturbed_blocks < fewest
            or one.half_width_pct is None
            or one.half_width_pct > target_half_width_pct
            for one in found
        )

    def problem(self, boundary: Boundary, target_half_width_pct: float) -> str | None:
        """Return why the figure of one boundary is not conclusive, or None. Its ratio to the
        reference decides; where there is none beside it, the absolute latency."""
        found = self.summary(boundary)
        if found is None:
            return "the time budget ended before it was measured"
        if self.reference is not None:
            ratio = summarize_relative(self.related[boundary])
            if ratio is None and self.unrelated:
                return f"not held against the reference network: {self.unrelated}"
            if ratio is None:
                return "the time budget ended before it was held against the reference network"
            what, half_width_pct = "the ratio to the reference", ratio.half_width_pct
        elif found.half_width_pct is None:
            count = len(found.block_medians_ms)
            return f"blocks that fitted into the time budget: {count}; an interval needs three"
        elif found.n < MIN_RUNS:
            return f"{found.n} runs fitted into the time budget; a median needs {MIN_RUNS}"
        else:
            what, half_width_pct = "the 95 % interval", found.half_width_pct
        if half_width_pct <= target_half_width_pct:
            return None
        return f"{what} is ±{half_width_pct:.1f} %, ±{target_half_width_pct:g} % is wanted"


def summarize_relative(rounds: Sequence[Round]) -> Relative | None:
    """Return what the rounds of one row say, or None where there are too few."""
    interval = log_ratio_interval(rounds)
    if interval is None:
        return None
    used = choose_rounds(rounds)
    left_out = [one for one in rounds if len(used) < len(rounds) and not one.calm]
    return Relative(
        ratio=math.exp((interval.low + interval.high) / 2),
        ci95=(math.exp(interval.low), math.exp(interval.high)),
        half_width_pct=100 * math.expm1(interval.half_width),
        reference_ms=statistics.median(one.reference_ms for one in used),
        log_ratios=_raw(used),
        disturbed_log_ratios=_raw(left_out),
    )


def _raw(rounds: Sequence[Round]) -> tuple[float, ...]:
    return tuple(float(f"{one.log_ratio:.4g}") for one in rounds)
