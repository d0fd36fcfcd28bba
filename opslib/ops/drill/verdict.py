"""The drill's verdict: each promise as one line, with its figure, its limit and its result."""

import math
from collections import Counter
from collections.abc import Sequence

from opslib.core.formatting import format_ms
from opslib.core.language import mark, name_some, tr, tr_many
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
    to_new = mark("swap, until the new model's first answer")
    to_old = mark("rollback, until the old model's first answer")
    checks = [
        _check(
            mark("failed requests outside the kill"),
            f"{found.failed}",
            "0",
            not found.failed,
            failure,
        ),
        _check(mark("answers that mix models"), f"{len(found.mixed)}", "0", not mixed, mixed),
        check_p99(calm, twin, swaps, limits),
        _check_time(to_new, found, "swap", limits.swap_max_s),
        _check_time(to_old, found, "rollback", limits.rollback_max_s),
        _check_most(
            mark("longest stall"), stall, limits.stall_max_ms, f"{format_ms(stall)} ms", "ms"
        ),
    ]
    if any(event.kind == "kill -9" for event in found.events):
        name, most = mark("recovery from kill -9"), limits.recovery_max_s
        said = tr("no answer any more") if took is None else _seconds(took)
        checks.append(_check_most(name, math.inf if took is None else took, most, said, "s"))
    if growth is not None:
        most_pct = limits.rss_growth_max_pct
        limit = tr("at most {limit}", limit=f"+{most_pct:g} %")
        name = mark("memory, from the 10th switch to the last")
        checks.append(_check(name, f"{growth:+.1f} %", limit, growth <= most_pct))
    why = f"{broken[0].injected}: {broken[0].seen}" if broken else None
    survived = tr("{some} of {all}", some=tried - len(broken), all=tried)
    name = mark("bad models and faults survived")
    checks.append(_check(name, survived, tr("all"), not broken, why))
    return tuple(checks)


def check_p99(
    baseline: WindowStats | None,
    twin: WindowStats | None,
    swaps: WindowStats | None,
    limits: DrillSection,
) -> PromiseCheck:
    """Compare the 99th percentile in swap windows with that of nothing happening.

    Within `p99_ratio_max` times the baseline's, or not above the A/A window's interval where that
    reaches no further than `p99_ratio_max` times its own percentile, it passes; where its own
    interval ends above what is allowed, the line says so. Above both it fails, unless its own
    interval reaches down to what is allowed, or the two windows of nothing happening differ by as
    much: then it is inconclusive.

    `baseline`: the first window of nothing happening. `twin`: the second, the A/A window. `swaps`:
    the windows of swaps and rollbacks.
    """
    name = mark("p99 in swap windows")
    limit = tr("at most {ratio:g} × the baseline's", ratio=limits.p99_ratio_max)

    def answer(result: Verdict, value: str, reason: str | None = None) -> PromiseCheck:
        return PromiseCheck(name=name, value=value, limit=limit, result=result, reason=reason)

    parts = {mark("baseline"): baseline, "A/A": twin, mark("swap"): swaps}
    few = [what for what, one in parts.items() if one is None or one.p99_ms is None]
    if few or not (baseline and twin and swaps and baseline.p99_ms and twin.p99_ms):
        windows = ", ".join(map(tr, few))
        why = tr("too few requests in: {windows}", windows=windows)
        return answer("inconclusive", tr("not known"), why)
    p99, base = swaps.p99_ms or 0.0, baseline.p99_ms
    ratio = p99 / base
    value = f"{format_ms(p99)} ms, {ratio:.2f} × ({format_ms(base)} ms)"
    noise = max(base, twin.p99_ms) / min(base, twin.p99_ms)
    restless = tr(
        "two windows of nothing happening differ by {noise:.1f} × on this host", noise=noise
    )
    highest = twin.p99_ci95_ms[1] if twin.p99_ci95_ms else twin.p99_ms
    # An interval that wide is no evidence: a restless host must not excuse anything.
    wide = highest / twin.p99_ms > limits.p99_ratio_max
    limit_ms = limits.p99_ratio_max * base
    allowed = max(limit_ms, highest)
    lowest, top = swaps.p99_ci95_ms or (p99, p99)
    doubts = [restless] if noise > limits.p99_ratio_max else []
    kept_below = limit_ms if wide else allowed
    beyond = []
    if top > kept_below:
        said = {"end": format_ms(top), "allowed": format_ms(kept_below)}
        beyond.append(tr("its interval ends at {end} ms, allowed are {allowed}", **said))
    if ratio <= limits.p99_ratio_max:
        return answer("pass", value, "; ".join(doubts + beyond) or None)
    if p99 <= highest:
        reason = tr(
            "not above the A/A window's interval, which ends at {end} ms", end=format_ms(highest)
        )
        if wide:
            return answer("inconclusive", value, reason)
        return answer("pass", value, "; ".join([reason, *beyond]))
    if doubts:
        return answer("inconclusive", value, restless)
    if lowest <= allowed:
        reason = tr(
            "its interval begins at {start} ms, allowed are {allowed}",
            start=format_ms(lowest),
            allowed=format_ms(allowed),
        )
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
            told = "; ".join(named)
            if result == "fail":
                return tr("Not kept: {checks}.", checks=told)
            return tr("Not decided: {checks}.", checks=told)
    switches = Counter(event.kind for event in found.events if event.status == 200)
    done = [
        tr_many("{count:,} swap", "{count:,} swaps", switches["swap"]),
        tr_many("{count:,} rollback", "{count:,} rollbacks", switches["rollback"]),
    ]
    if switches["leak"]:
        done.append(tr_many("{count:,} more switch", "{count:,} more switches", switches["leak"]))
    p99 = next(check for check in checks if check.name.startswith("p99"))
    value = f"{p99.value}, {p99.reason}" if p99.reason else p99.value
    return tr(
        "{switches} under load: 0 of {requests:,} requests failed outside the kill, none mixed; "
        "p99 in swap windows {p99}.",
        switches=name_some(done),
        requests=requests - found.failed_in_kill,
        p99=value,
    )


def _check(
    name: str, value: str, limit: str, kept: bool, reason: str | None = None
) -> PromiseCheck:
    result: Verdict = "pass" if kept else "fail"
    return PromiseCheck(name=name, value=value, limit=limit, result=result, reason=reason)


def _check_most(name: str, value: float, most: float, said: str, unit: str) -> PromiseCheck:
    return _check(name, said, _at_most(most, unit), value <= most)


def _at_most(most: float, unit: str) -> str:
    return tr("at most {limit}", limit=f"{most:g} {unit}")


def _check_time(name: str, found: Findings, kind: str, limit_s: float) -> PromiseCheck:
    events = [event for event in found.events if event.kind == kind]
    unseen = [event for event in events if event.ready_s is None]
    if unseen or not events:
        refused = next((event for event in unseen if event.status != 200), None)
        why = None
        if refused:
            why = tr("answered {status}, stage {stage}", status=refused.status, stage=refused.stage)
        value = tr("{some} of {all} never seen in an answer", some=len(unseen), all=len(events))
        return _check(name, value, _at_most(limit_s, "s"), False, why)
    slowest = max(event.ready_s or 0.0 for event in events)
    return _check_most(name, slowest, limit_s, tr("{time} at worst", time=_seconds(slowest)), "s")


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{1000 * value:.0f} ms"
