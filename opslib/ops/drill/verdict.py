"""The drill's verdict: each promise as one line, with its figure, its limit and its result."""

import math
from collections import Counter
from collections.abc import Sequence

from opslib.core.formatting import format_ms, plural
from opslib.core.sections import DrillSection
from opslib.core.verdicts import Verdict, exit_code_of
from opslib.ops.drill.analysis import Findings
from opslib.ops.drill.record import Injection, Memory, PromiseCheck, WindowStats, growth_pct


def list_checks(
    found: Findings, injections: Sequence[Injection], memory: Sequence[Memory], limits: DrillSection
) -> tuple[PromiseCheck, ...]:
    """Return every line of the verdict."""
    windows = {one.kind: one for one in found.windows}
    calm, twin, swaps = (windows.get(kind) for kind in ("baseline", "A/A", "swaps and rollbacks"))
    stall, growth, took = found.longest_stall_ms, growth_pct(memory), found.recovery_s
    failure = next(iter(found.first_failures), None)
    mixed = next((why for why, _ in Counter(found.mixed.values()).most_common(1)), None)
    broken = [one for one in injections if one.held is False]
    tried = sum(one.held is not None for one in injections)
    to_new = "swap, until the new model's first answer"
    to_old = "rollback, until the old model's first answer"
    checks = [
        _check(
            "failed requests outside the kill", f"{found.failed}", "0", not found.failed, failure
        ),
        _check("answers that mix models", f"{len(found.mixed)}", "0", not mixed, mixed),
        check_p99(calm, twin, swaps, limits),
        _check_time(to_new, found, "swap", limits.swap_max_s),
        _check_time(to_old, found, "rollback", limits.rollback_max_s),
        _check_most("longest stall", stall, limits.stall_max_ms, f"{format_ms(stall)} ms", "ms"),
    ]
    if any(event.kind == "kill -9" for event in found.events):
        name, most = "recovery from kill -9", limits.recovery_max_s
        said = "no answer any more" if took is None else _seconds(took)
        checks.append(_check_most(name, math.inf if took is None else took, most, said, "s"))
    if growth is not None:
        limit, held = f"at most +{limits.rss_growth_max_pct:g} %", limits.rss_growth_max_pct
        name = "memory, from the 10th switch to the last"
        checks.append(_check(name, f"{growth:+.1f} %", limit, growth <= held))
    why = f"{broken[0].injected}: {broken[0].seen}" if broken else None
    survived = f"{tried - len(broken)} of {tried}"
    checks.append(_check("bad models and faults survived", survived, "all", not broken, why))
    return tuple(checks)


def check_p99(
    baseline: WindowStats | None,
    twin: WindowStats | None,
    swaps: WindowStats | None,
    limits: DrillSection,
) -> PromiseCheck:
    """Compare the 99th percentile in swap windows with that of nothing happening.

    Within `p99_ratio_max` times the baseline's, or not above the A/A window's interval where that
    reaches no further than `p99_ratio_max` times its own percentile, it passes. Above both it
    fails, unless its own interval reaches down to what is allowed, or the two windows of nothing
    happening differ by as much: then it is inconclusive.

    `baseline`: the first window of nothing happening. `twin`: the second, the A/A window. `swaps`:
    the windows of swaps and rollbacks.
    """
    name, limit = "p99 in swap windows", f"at most {limits.p99_ratio_max:g} × the baseline's"

    def answer(result: Verdict, value: str, reason: str | None = None) -> PromiseCheck:
        return PromiseCheck(name=name, value=value, limit=limit, result=result, reason=reason)

    parts = {"baseline": baseline, "A/A": twin, "swap": swaps}
    few = [what for what, one in parts.items() if one is None or one.p99_ms is None]
    if few or not (baseline and twin and swaps and baseline.p99_ms and twin.p99_ms):
        return answer("inconclusive", "not known", f"too few requests in: {', '.join(few)}")
    p99, base = swaps.p99_ms or 0.0, baseline.p99_ms
    ratio = p99 / base
    value = f"{format_ms(p99)} ms, {ratio:.2f} × ({format_ms(base)} ms)"
    noise = max(base, twin.p99_ms) / min(base, twin.p99_ms)
    restless = f"two windows of nothing happening differ by {noise:.1f} × on this host"
    if ratio <= limits.p99_ratio_max:
        return answer("pass", value, restless if noise > limits.p99_ratio_max else None)
    highest = twin.p99_ci95_ms[1] if twin.p99_ci95_ms else twin.p99_ms
    if p99 <= highest:
        reason = f"not above the A/A window's interval, which ends at {format_ms(highest)} ms"
        # An interval that wide is no evidence: a restless host must not excuse anything.
        wide = highest / twin.p99_ms > limits.p99_ratio_max
        return answer("inconclusive" if wide else "pass", value, reason)
    if noise > limits.p99_ratio_max:
        return answer("inconclusive", value, restless)
    allowed = max(limits.p99_ratio_max * base, highest)
    lowest = swaps.p99_ci95_ms[0] if swaps.p99_ci95_ms else p99
    if lowest <= allowed:
        reason = f"its interval begins at {format_ms(lowest)} ms, allowed are {format_ms(allowed)}"
        return answer("inconclusive", value, reason)
    return answer("fail", value)


def decide(checks: Sequence[PromiseCheck], injections: Sequence[Injection]) -> tuple[Verdict, int]:
    """Return the verdict and the exit code: what could not be tried ends a good drill with 9."""
    results = {check.result for check in checks}
    verdict: Verdict = next((one for one in ("fail", "inconclusive") if one in results), "pass")
    return verdict, exit_code_of(verdict, skipped=any(one.held is None for one in injections))


def sum_up(checks: Sequence[PromiseCheck], found: Findings, requests: int) -> str:
    """Return the finding: what broke, what is not known, or what was survived."""
    for result in ("fail", "inconclusive"):
        named = [check.line for check in checks if check.result == result]
        if named:
            word = "Not kept" if result == "fail" else "Not decided"
            return f"{word}: {'; '.join(named)}."
    switches = Counter(event.kind for event in found.events if event.status == 200)
    there, back = switches["swap"], switches["rollback"]
    also = f" and {plural(switches['leak'], 'more switch', 'more switches')}"
    p99 = next(check for check in checks if check.name.startswith("p99"))
    why = f", {p99.reason}" if p99.reason else ""
    return (
        f"{plural(there, 'swap')} and {plural(back, 'rollback')}"
        f"{also if switches['leak'] else ''} under load: 0 of "
        f"{requests - found.failed_in_kill:,} requests failed outside the kill, none mixed; "
        f"p99 in swap windows {p99.value}{why}."
    )


def _check(
    name: str, value: str, limit: str, kept: bool, reason: str | None = None
) -> PromiseCheck:
    result: Verdict = "pass" if kept else "fail"
    return PromiseCheck(name=name, value=value, limit=limit, result=result, reason=reason)


def _check_most(name: str, value: float, most: float, said: str, unit: str) -> PromiseCheck:
    return _check(name, said, f"at most {most:g} {unit}", value <= most)


def _check_time(name: str, found: Findings, kind: str, limit_s: float) -> PromiseCheck:
    events = [event for event in found.events if event.kind == kind]
    unseen = [event for event in events if event.ready_s is None]
    if unseen or not events:
        refused = next((event for event in unseen if event.status != 200), None)
        why = f"answered {refused.status}, stage {refused.stage}" if refused else None
        value = f"{len(unseen)} of {len(events)} never seen in an answer"
        return _check(name, value, f"at most {limit_s:g} s", False, why)
    slowest = max(event.ready_s or 0.0 for event in events)
    return _check_most(name, slowest, limit_s, f"{_seconds(slowest)} at worst", "s")


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{1000 * value:.0f} ms"
