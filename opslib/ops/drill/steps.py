"""The story of the drill: there and back, bad models, two at once, kill -9, and home."""

import itertools
import time
from pathlib import Path

from opslib.core.errors import OpsError
from opslib.ops.drill.faults import Fault, NotPossibleError, list_faults, make_fault
from opslib.ops.drill.keeper import BUSY
from opslib.ops.drill.record import EventKind, growth_pct
from opslib.ops.drill.rehearsal import Deed, Rehearsal, ask_at_once
from opslib.ops.drill.target import Target
from opslib.serving.live import LiveVersion
from opslib.serving.swap import is_same_model

_NOT_LOOKED_AT = (401, *BUSY)
_THERE_AND_BACK: tuple[EventKind, ...] = ("swap", "rollback")


def swap_and_roll_back(rehearsal: Rehearsal, times: int) -> None:
    """Swap to the other model and back, so many times; memory is noted after each."""
    for number in range(1, times + 1):
        rehearsal.report(f"swapping: {number} of {times}")
        for at, kind in enumerate(_THERE_AND_BACK, start=2 * number - 1):
            path = rehearsal.next_other() if kind == "swap" else rehearsal.target.stable
            _switch(rehearsal, kind, path, memory_of=at)


def look_for_leaks(rehearsal: Rehearsal, times: int) -> None:
    """Switch so many times more, each time by loading a model anew."""
    pairs = zip(rehearsal.target.others, rehearsal.target.homes, strict=True)
    turns, failed = itertools.cycle(itertools.chain.from_iterable(pairs)), 0
    for number in range(1, times + 1):
        if number % 10 == 1:
            rehearsal.report(f"looking for leaks: {number} of {times} switches")
        path = next(turns)
        deed = rehearsal.ask("leak", path.stem, str(path))
        failed += not deed.accepted
        rehearsal.pause()
        rehearsal.note_memory("leak", number)
    growth = growth_pct(rehearsal.memory)
    said = f"{growth:+.1f} % since the tenth" if growth is not None else "not known"
    rehearsal.note(
        f"{times} switches, a model loaded each time",
        "all succeed",
        f"{failed} failed; memory {said}",
        not failed,
    )


def offer_bad_models(rehearsal: Rehearsal) -> None:
    """Offer every bad model of the list; each must be refused and nothing change."""
    target = rehearsal.target
    for fault in list_faults():
        try:
            _check_allowed(target, fault)
            rehearsal.report(f"bad models: {fault.name}")
            with make_fault(fault, target.stable, target.ground) as path:
                _offer(rehearsal, fault, str(path))
        except NotPossibleError as error:
            rehearsal.note(fault.name, _promise(fault), f"not tried: {error}", None)


def reload_twice_at_once(rehearsal: Rehearsal) -> None:
    """Ask for both models in the same moment; one wins, nothing breaks."""
    rehearsal.report("two reloads at once")
    target = rehearsal.target
    paths = [rehearsal.next_other(), target.homes[-1]]
    deeds = [Deed("two at once", path.stem, time.perf_counter()) for path in paths]
    ask_at_once(target, deeds, [str(path) for path in paths])
    rehearsal.deeds += deeds
    rehearsal.settle()
    live = rehearsal.version()
    statuses = sorted(deed.status or 0 for deed in deeds)
    won = [path for deed, path in zip(deeds, paths, strict=True) if deed.accepted]
    served = any(_serves(live, path) for path in won)
    rehearsal.note(
        "two reloads in the same moment",
        "one is done, the other waits its turn or is refused (409); one of the two is served whole",
        f"{' and '.join(map(str, statuses))}; serves {_describe(live)}",
        bool(won) and served and all(status in (200, *BUSY) for status in statuses),
    )


def kill_and_recover(rehearsal: Rehearsal) -> None:
    """End the service with SIGKILL while the other model is served, and start it again."""
    injected, promised = "kill -9 of the service", "it restarts with the model it served"
    staged = rehearsal.target.staged
    if staged is None:
        rehearsal.note(injected, promised, "not tried: the service is not ours to kill", None)
        return
    rehearsal.report("kill -9 and recovery")
    if not _serves(rehearsal.version(), rehearsal.target.others[0]):
        _switch(rehearsal, "switch", rehearsal.next_other())
    before = rehearsal.version()
    deed = Deed("kill -9", "SIGKILL", time.perf_counter())
    rehearsal.deeds.append(deed)
    staged.kill()
    try:
        staged.start()
    except OpsError as error:
        deed.said = str(error)
        rehearsal.note(injected, promised, f"it did not start again: {error}", False)
        return
    finally:
        deed.end = time.perf_counter()
    rehearsal.settle()
    after = rehearsal.version()
    deed.status = 200
    rehearsal.note(
        injected,
        promised,
        f"up after {deed.end - deed.start:.1f} s; before {_describe(before)}, after "
        f"{_describe(after)}",
        before is not None and after is not None and after.is_same(before),
    )


def go_home(rehearsal: Rehearsal, found: LiveVersion) -> bool:
    """Go back to the model that the drill found; return whether it is served again."""
    rehearsal.report("back to the model it found")
    path = rehearsal.target.stable
    rehearsal.ask("back", path.stem, str(path))
    rehearsal.settle()
    live = rehearsal.version()
    held = live is not None and live.is_same(found)
    rehearsal.note(
        "the end of the drill",
        f"the model that it found is served: {found.version_tag or path.stem}",
        f"serves {_describe(live)}",
        held,
    )
    return held


def _check_allowed(target: Target, fault: Fault) -> None:
    if target.barred is not None:
        raise NotPossibleError(target.barred)
    if fault.hangs and target.staged is None:
        raise NotPossibleError("it may stop a service that others use for good")
    if fault.classifier and target.kind.contract != "classifier":
        raise NotPossibleError(f"a {target.kind.name} model is no classifier")


def _offer(rehearsal: Rehearsal, fault: Fault, path: str) -> None:
    before = rehearsal.version()
    deed = rehearsal.ask("bad model", fault.name, path)
    after = rehearsal.version()
    unchanged = before is not None and before == after
    stage = f", stage {deed.stage}" if deed.stage and deed.stage != "unknown" else ""
    seen = "200: accepted" if deed.accepted else f"{deed.status or 'no answer'}{stage}"
    if not unchanged:
        seen += f"; now serves {_describe(after)}"
    held: bool | None = unchanged and deed.status is not None and not deed.accepted
    if held and deed.status in _NOT_LOOKED_AT:
        held = None
    rehearsal.note(fault.name, _promise(fault), seen, held)
    if not unchanged:
        stable = rehearsal.target.stable
        rehearsal.ask("back", stable.stem, str(stable))
    rehearsal.pause()


def _promise(fault: Fault) -> str:
    return f"refused (by our service at stage {fault.stage}); the model before serves on"


def _switch(rehearsal: Rehearsal, kind: EventKind, path: Path, memory_of: int = 0) -> None:
    """Switch; one that does not bring its model is noted, good ones are in the figures."""
    deed = rehearsal.ask(kind, path.stem, str(path))
    rehearsal.settle()
    if memory_of:
        rehearsal.note_memory("swap", memory_of)
    live = rehearsal.version()
    if not deed.accepted or not _serves(live, path):
        seen = f"{'200' if deed.accepted else deed.said}; serves {_describe(live)}"
        rehearsal.note(f"a {kind} to {path.stem}", "confirmed by /version", seen, False)


def _serves(live: LiveVersion | None, path: Path) -> bool:
    return live is not None and is_same_model(live, path)


def _describe(live: LiveVersion | None) -> str:
    return live.describe() if live is not None else "nothing"
