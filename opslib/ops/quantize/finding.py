"""A quantization in a few sentences, and which model to deploy."""

import math
from collections.abc import Sequence
from statistics import geometric_mean
from typing import Literal

from opslib.core.language import name_some, tr, tr_many
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
        unlabelled = tr(
            "The images are unlabelled: agreement with float32 was judged, not accuracy."
        )
    required = tr(
        "The required variant ({title}) {what}.", title=gated.title, what=_describe_gated(gated)
    )
    if recommended is not rows[0]:
        head = tr(
            "Deploy {title}: {speeds}, and {loss}.",
            title=recommended.title,
            speeds=_describe_speeds(recommended),
            loss=describe_loss(recommended),
        )
        required = "" if recommended.name == gated.name else required
    elif any(row.verdict == "pass" for row in rows[1:]):
        head = tr(
            "Keep the float32 model: no INT8 variant that passes the accuracy gate is "
            "measurably faster."
        )
    else:
        head = tr("Keep the float32 model: no INT8 variant passes the accuracy gate.")
    return " ".join(filter(None, (head, required, unlabelled)))


def explain(recommended: VariantRow, baseline: VariantRow) -> str:
    """Return in one sentence what is gained by the recommended model."""
    if recommended is baseline or not recommended.size_bytes or not baseline.size_bytes:
        return tr("No INT8 variant is both accurate enough and measurably faster.")
    share = baseline.size_bytes / recommended.size_bytes
    speeds = _describe_speeds(recommended)
    speeds = f"{speeds[:1].upper()}{speeds[1:]}"
    return tr("{speeds}, in {share:.1f} times less space.", speeds=speeds, share=share)


def describe_loss(row: VariantRow) -> str:
    """Return what the variant's accuracy is against float32, by rule and by proof, in words."""
    one = row.accuracy
    if one is None:
        return tr("its accuracy was not measured")
    proof = describe_proof(one)
    if one.drop_pp is None:
        return tr(
            "it answers {flipped:,} of {images:,} unlabelled images otherwise ({pct:.2f} %); "
            "{proof}",
            flipped=one.flipped,
            images=one.n,
            pct=one.disagreement_pct,
            proof=proof,
        )
    if one.lost == one.gained:
        change = tr("it is as often right as float32")
    elif one.drop_pp > 0:
        change = tr("it loses {points:.2f} points of top-1", points=one.drop_pp)
    else:
        change = tr("it gains {points:.2f} points of top-1", points=-one.drop_pp)
    if one.rule == "met":
        limit = tr("within the {points:g} allowed", points=one.max_drop_pp)
    else:
        limit = tr("over the {points:g} allowed", points=one.max_drop_pp)
    return tr_many(
        "on {count:,} image {change} ({limit}; {proof})",
        "on {count:,} images {change} ({limit}; {proof})",
        one.n,
        change=change,
        limit=limit,
        proof=proof,
    )


def describe_prepared(done: Sequence[str]) -> str:
    """Return what was done to the float32 model before it was quantized, in a sentence."""
    return f"Prepared for quantizing: {', '.join(done)}."


def describe_proof(one: Accuracy) -> str:
    """Return what is proven of the drop, and how many images would settle it if nothing is."""
    if one.proof == "proven":
        return tr("proven: at most {points:.2f} with 95 % confidence", points=one.drop_max_pp)
    if one.proof == "disproven":
        return tr("and it is proven to be over the limit")
    if one.images_to_settle is None:
        return tr("not proven, and more images would not settle it")
    images = round_up(one.images_to_settle)
    return tr("not proven: about {images:,} images would settle it", images=images)


def round_up(count: int) -> int:
    """Return `count` rounded up to two significant digits."""
    step: int = 10 ** max(0, math.floor(math.log10(count)) - 1)
    return int(math.ceil(count / step) * step)


def describe_speedup(speedup: float) -> str:
    """Return a speed-up as people say it: `1.7 times as fast`, `6.1 times slower`."""
    if speedup >= 1:
        return tr("{times} times as fast", times=f"{speedup:.1f}")
    if speedup < 0.91:
        return tr("{times} times slower", times=f"{1 / speedup:.1f}")
    return tr("{times} times as fast", times=f"{speedup:.2f}")


def _describe_gated(row: VariantRow) -> str:
    accuracy = row.accuracy
    if accuracy is None:
        return tr("could not be made: {reason}", reason=row.reason)
    passed = {
        "pass": tr("passes the accuracy gate"),
        "fail": tr("fails the accuracy gate"),
        "inconclusive": tr("cannot be decided by the accuracy gate"),
    }[row.verdict or "inconclusive"]
    speeds = _describe_speeds(row)
    if row.pace == "slower":
        return tr("{passed}, but is {speeds}: do not deploy it", passed=passed, speeds=speeds)
    if row.pace == "unclear":
        return tr("{passed}, but is not measurably faster", passed=passed)
    return tr("{passed} and is {speeds}", passed=passed, speeds=speeds)


def _describe_speeds(row: VariantRow) -> str:
    said = {str(size): describe_speedup(speedup) for size, speedup in row.speedups.items()}
    if len(set(said.values())) == 1:
        said = {name_some(list(said), len(said)): next(iter(said.values()))}
    parts = [tr("{speed} at batch {size}", speed=speed, size=size) for size, speed in said.items()]
    return name_some(parts, len(parts)) or tr("of unknown speed")


def _mean_speedup(row: VariantRow) -> float:
    return geometric_mean(row.speedups.values()) if row.speedups else 0.0


def _is_tied(row: VariantRow, fastest: VariantRow) -> bool:
    if _mean_speedup(row) >= _mean_speedup(fastest) / (1 + TIE_PCT / 100):
        return True
    pairs = zip(row.speed, fastest.speed, strict=True)
    known = [(one.comparison, two.comparison) for one, two in pairs]
    ends = [(one.speedup_ci95[1], two.speedup_ci95[0]) for one, two in known if one and two]
    return bool(ends) and all(high >= low for high, low in ends)
