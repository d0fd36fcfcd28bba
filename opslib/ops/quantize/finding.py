"""A quantization in a few sentences, and which model to deploy."""

import math
from collections.abc import Sequence
from statistics import geometric_mean
from typing import Literal

from opslib.core.formatting import plural
from opslib.core.verdicts import Verdict
from opslib.ops.quantize.record import Accuracy, VariantRow

TIE_PCT = 5.0
_RULE: dict[str, Verdict] = {"met": "pass", "missed": "fail", "undecided": "inconclusive"}
_PROOF: dict[str, Verdict] = {"proven": "pass", "disproven": "fail", "inconclusive": "inconclusive"}


def judge_gate(accuracy: Accuracy, gate: Literal["rule", "proven"]) -> Verdict:
    """Return what the accuracy gate says of a variant."""
    return _RULE[accuracy.rule] if gate == "rule" else _PROOF[accuracy.proof]


def recommend(rows: Sequence[VariantRow]) -> VariantRow:
    """Return the row to deploy: the fastest variant that passes the gate, else the first row. A
    variant counts only where it is measurably faster at one batch size and slower at none. Among
    those tied with the fastest (within 5 %, or with overlapping intervals at every batch size) the
    one that loses least is taken, and of equals the one named first."""
    good = [row for row in rows[1:] if row.verdict == "pass" and row.pace == "faster"]
    if not good:
        return rows[0]
    fastest = max(good, key=_mean_speedup)
    return min(
        (row for row in good if _is_tied(row, fastest)),
        key=lambda row: row.accuracy.loss_pp if row.accuracy else math.inf,
    )


def sum_up(rows: Sequence[VariantRow], gated: VariantRow, recommended: VariantRow) -> str:
    """Return the finding: what to deploy, and what became of the required variant."""
    unlabelled = ""
    if gated.accuracy is not None and gated.accuracy.drop_pp is None:
        unlabelled = " The images are unlabelled: agreement with float32 was judged, not accuracy."
    required = f"The required variant ({gated.title}) {_describe_gated(gated)}"
    if recommended is rows[0]:
        accurate = any(row.verdict == "pass" for row in rows[1:])
        why = "that passes the accuracy gate is measurably faster"
        why = why if accurate else "passes the accuracy gate"
        return f"Keep the float32 model: no INT8 variant {why}. {required}.{unlabelled}"
    loses = describe_loss(recommended)
    head = f"Deploy {recommended.title}: {_describe_speeds(recommended)}, and {loses}"
    tail = "" if recommended.name == gated.name else f" {required}."
    return f"{head}.{tail}{unlabelled}"


def explain(recommended: VariantRow, baseline: VariantRow) -> str:
    """Return in one sentence what is gained by the recommended model."""
    if recommended is baseline or not recommended.size_bytes or not baseline.size_bytes:
        return "No INT8 variant is both accurate enough and measurably faster."
    share = baseline.size_bytes / recommended.size_bytes
    speeds = _describe_speeds(recommended)
    return f"{speeds[:1].upper()}{speeds[1:]}, in {share:.1f} times less space."


def describe_loss(row: VariantRow) -> str:
    """Return what the variant's accuracy is against float32, by rule and by proof, in words."""
    one = row.accuracy
    if one is None:
        return "its accuracy was not measured"
    proof = describe_proof(one)
    if one.drop_pp is None:
        return (
            f"it answers {one.flipped:,} of {one.n:,} unlabelled images otherwise "
            f"({one.disagreement_pct:.2f} %); {proof}"
        )
    if one.lost == one.gained:
        change = "it is as often right as float32"
    else:
        verb = "loses" if one.drop_pp > 0 else "gains"
        change = f"it {verb} {abs(one.drop_pp):.2f} points of top-1"
    within = "within" if one.rule == "met" else "over"
    limit = f"{within} the {one.max_drop_pp:g} allowed"
    return f"on {plural(one.n, 'image')} {change} ({limit}; {proof})"


def describe_prepared(done: Sequence[str]) -> str:
    """Return what was done to the float32 model before it was quantized, in a sentence."""
    return f"Prepared for quantizing: {', '.join(done)}."


def describe_proof(one: Accuracy) -> str:
    """Return what is proven of the drop, and how many images would settle it if nothing is."""
    if one.proof == "proven":
        return f"proven: at most {one.drop_max_pp:.2f} with 95 % confidence"
    if one.proof == "disproven":
        return "and it is proven to be over the limit"
    if one.images_to_settle is None:
        return "not proven, and more images would not settle it"
    return f"not proven: about {round_up(one.images_to_settle):,} images would settle it"


def round_up(count: int) -> int:
    """Return `count` rounded up to two significant digits."""
    step: int = 10 ** max(0, math.floor(math.log10(count)) - 1)
    return int(math.ceil(count / step) * step)


def describe_speedup(speedup: float) -> str:
    """Return a speed-up as people say it: `1.7 times as fast`, `6.1 times slower`."""
    if speedup >= 1:
        return f"{speedup:.1f} times as fast"
    return f"{1 / speedup:.1f} times slower" if speedup < 0.91 else f"{speedup:.2f} times as fast"


def _describe_gated(row: VariantRow) -> str:
    accuracy = row.accuracy
    if accuracy is None:
        return f"could not be made: {row.reason}"
    passed = {
        "pass": "passes the accuracy gate",
        "fail": "fails the accuracy gate",
        "inconclusive": "cannot be decided by the accuracy gate",
    }[row.verdict or "inconclusive"]
    if row.pace == "slower":
        return f"{passed}, but is {_describe_speeds(row)}: do not deploy it"
    if row.pace == "unclear":
        return f"{passed}, but is not measurably faster"
    return f"{passed} and is {_describe_speeds(row)}"


def _describe_speeds(row: VariantRow) -> str:
    said = {size: describe_speedup(speedup) for size, speedup in row.speedups.items()}
    if len(set(said.values())) == 1:
        return f"{next(iter(said.values()))} at batch {' and '.join(map(str, said))}"
    parts = [f"{speedup} at batch {size}" for size, speedup in said.items()]
    return " and ".join(parts) or "of unknown speed"


def _mean_speedup(row: VariantRow) -> float:
    return geometric_mean(row.speedups.values()) if row.speedups else 0.0


def _is_tied(row: VariantRow, fastest: VariantRow) -> bool:
    if _mean_speedup(row) >= _mean_speedup(fastest) / (1 + TIE_PCT / 100):
        return True
    pairs = zip(row.speed, fastest.speed, strict=True)
    known = [(one.comparison, two.comparison) for one, two in pairs]
    ends = [(one.speedup_ci95[1], two.speedup_ci95[0]) for one, two in known if one and two]
    return bool(ends) and all(high >= low for high, low in ends)
