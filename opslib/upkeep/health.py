"""The health watch for Linux hosts: ask, decide, restart, tell; one run a minute."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from opslib.core.config import Config, check_experiment
from opslib.core.errors import ExitCode, OpsError, ParameterError, StorageError, storage_errors
from opslib.core.formatting import now_text
from opslib.core.locks import hold_lock
from opslib.core.ownership import open_to_append
from opslib.core.secrets import resolve_reference
from opslib.core.web import check_address
from opslib.upkeep import health_rules as rules
from opslib.upkeep.health_record import (
    HealthRecord,
    WatchMemory,
    keep_memory,
    read_memory,
    second_path,
)
from opslib.upkeep.notices import Notice, deliver, write_notices, write_trouble
from opslib.upkeep.probe import CheckResult, probe
from opslib.upkeep.restart import run_restart

SETTLE_POLL_S = 1.0

Show = Callable[[str], None]


def health_log_path(config: Config) -> Path:
    """Return where the watch appends a line a run."""
    given = config.health.log
    return config.resolve(given) if given else config.logs_dir / "health_watch.out"


def health_state_path(config: Config) -> Path:
    """Return where the watch keeps what survives between runs."""
    given = config.health.state
    return config.resolve(given) if given else config.exp_dir / "health_state.json"


def check_health(config: Config) -> HealthRecord:
    """Ask all watched addresses once, changing nothing; the exit code is 3 where one failed or is
    degraded.

    Raises:
        ParameterError: `health.webhook` names a variable that is not set or holds no address.
    """
    if config.health.webhook is not None:
        check_address(resolve_reference(config.health.webhook, config.root), "health.webhook")
    results = _probe(config)
    checks = _read(results)
    failed = checks.layer is not None or checks.degraded is True
    code = ExitCode.GATE_FAILED if failed else ExitCode.PASS
    return _record(results, rules.Decision(rules.HealthState(), exit_code=code))


def watch_health(config: Config, alert: Show) -> HealthRecord:
    """Make one run of the watch: ask, count, restart and tell as the rules say.

    What must survive to the next run is kept as `keep_memory` says; a run that can remember nothing
    acts in the first minute of an hour alone: it cannot know how often something failed, was told
    or was restarted. What is wrong with the watch itself is told once an hour.

    Args:
        alert: gets what a person must read: alerts, recovery notices, what went wrong here.

    Raises:
        BusyError: another run is under way.
        ConfigError: the state belongs into the experiment, which is not there.
    """
    path = health_state_path(config)
    if path.is_relative_to(config.exp_dir):
        check_experiment(config)
    with _hold_lock(path):
        return _Run(config, path, alert).run()


@contextmanager
def _hold_lock(path: Path) -> Iterator[None]:
    """Hold the lock beside the state or, where it has no place there, in the second place; a run
    that has neither goes on, since cron's runs overlap only where one hangs."""
    with ExitStack() as held:
        try:
            held.enter_context(hold_lock(path.with_suffix(".lock"), "health watch"))
        except StorageError:
            with suppress(StorageError):
                second = second_path(path).with_suffix(".lock")
                held.enter_context(hold_lock(second, "health watch"))
        yield


class _Run:
    """One run under its lock: the memory it read, and the lines it writes."""

    def __init__(self, config: Config, path: Path, alert: Show) -> None:
        self._config = config
        self._section = config.health
        self._path = path
        self._alert = alert
        self._remembers = True
        self._trouble = ""
        self._log_trouble = ""
        self._memory, damage = read_memory(path, _now_s())
        if damage:
            self._say(damage)

    def run(self) -> HealthRecord:
        results = _probe(self._config)
        if not _read(results).good:
            self._keep(self._memory, always=True)
        policy = rules.Policy(
            failures=self._section.failures,
            successes=self._section.successes,
            restart_on=self._section.restart_on,
            can_restart=self._section.restart_command is not None,
            max_restarts_per_hour=self._section.max_restarts_per_hour,
        )
        before = self._memory.decisions
        now_s = _now_s()
        decision = rules.decide(before, _read(results), policy, now_s)
        self._keep(self._memory.model_copy(update={"decisions": decision.state}))
        if not self._remembers:
            before = rules.HealthState()
            decision = rules.decide_forgetful(_read(results), policy, now_s)
        actions, restart = decision.actions, None
        if "restart" in actions:
            restart, results, decision = self._restart(decision, results, policy)
            actions += decision.actions
        notices = write_notices(actions, before, decision.state, decision.reason, results, _now_s())
        record = _record(results, decision, actions, restart, notices)
        self._log(record.describe())
        notices += self._write_trouble(now_s)
        self._keep(self._memory.model_copy(update={"decisions": decision.state}), notices)
        for notice in notices:
            self._say(notice.text)
        self._deliver()
        return record

    def _restart(
        self, decision: rules.Decision, results: dict[str, CheckResult], policy: rules.Policy
    ) -> tuple[str, dict[str, CheckResult], rules.Decision]:
        seen = "; ".join(f"{name} {result.detail}" for name, result in results.items())
        self._log(f"restart: {self._section.failures} consecutive failures ({seen})")
        command = self._section.restart_command or ""
        ok, detail = run_restart(command, self._section.restart_timeout_s)
        if not ok:
            self._say(f"restart command: {detail}")
        results = self._await_answers()
        decided = rules.decide_after_restart(decision.state, _read(results), policy)
        return detail, results, decided

    def _await_answers(self) -> dict[str, CheckResult]:
        """Ask again until everything answers or the time to settle is over."""
        give_up = time.monotonic() + self._section.settle_s
        while True:
            results = _probe(self._config)
            if _read(results).good or time.monotonic() >= give_up:
                return results
            time.sleep(min(SETTLE_POLL_S, max(give_up - time.monotonic(), 0)))

    def _write_trouble(self, now_s: int) -> tuple[Notice, ...]:
        """What is wrong with the watch itself, once an hour."""
        told_s = self._memory.trouble_told_s
        is_due = told_s is None or abs(now_s - told_s) >= rules.HOUR_S
        what = "; ".join(filter(None, (self._trouble, self._log_trouble)))
        if not what or not (is_due if self._remembers else rules.hour_begins(now_s)):
            return ()
        self._memory = self._memory.model_copy(update={"trouble_told_s": now_s})
        return (write_trouble(what, now_s),)

    def _deliver(self) -> None:
        """Send what is not delivered yet, in order; what fails is tried again by the next run."""
        waiting, reference = self._memory.undelivered, self._section.webhook
        if waiting and reference is None:  # it was taken out of the configuration
            self._keep(self._memory.model_copy(update={"undelivered": ()}))
        if not waiting or reference is None:
            return
        try:
            address = resolve_reference(reference, self._config.root)
            check_address(address, "health.webhook")
        except ParameterError as error:
            self._say(f"webhook: {error}")
            return
        while waiting:
            failure = deliver(waiting[0], address, self._section.timeout_s)
            if failure:
                self._say(f"webhook: {failure}; tried again by the next run")
                break
            waiting = waiting[1:]
        self._keep(self._memory.model_copy(update={"undelivered": waiting}))

    def _keep(
        self, memory: WatchMemory, notices: tuple[Notice, ...] = (), *, always: bool = False
    ) -> None:
        if notices and self._section.webhook is not None:
            memory = memory.with_notices(notices)
        if always or notices or memory != self._memory or not self._path.exists():
            memory = memory.model_copy(update={"kept_at_s": _now_s(), "alone": False})
            self._trouble, self._remembers = keep_memory(self._path, memory)
        self._memory = memory

    def _say(self, text: str) -> None:
        self._alert(text)
        self._log(text)

    def _log(self, text: str) -> None:
        """Append a line to the log; that it cannot be written is told once an hour."""
        path = health_log_path(self._config)
        moment = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        line = " ".join(text.splitlines())
        try:
            with (
                storage_errors(f"append to {path}"),
                os.fdopen(open_to_append(path), "a", encoding="utf-8") as file,
            ):
                file.write(f"{moment} {line}\n")
        except OpsError as error:
            self._log_trouble = str(error)


def _probe(config: Config) -> dict[str, CheckResult]:
    section = config.health
    urls = {"internal": section.internal_url}
    if section.external_url is not None:
        urls["external"] = section.external_url
    return probe(urls, section.timeout_s)


def _read(results: dict[str, CheckResult]) -> rules.Checks:
    external = results.get("external")
    answered = [result.degraded for result in results.values() if result.ok]
    degraded = any(answered) if answered else None
    return rules.Checks(results["internal"].ok, external.ok if external else None, degraded)


def _record(
    results: dict[str, CheckResult],
    decision: rules.Decision,
    actions: tuple[rules.ActionName, ...] = (),
    restart: str | None = None,
    notices: tuple[Notice, ...] = (),
) -> HealthRecord:
    return HealthRecord(
        at_utc=now_text(),
        internal=results["internal"],
        external=results.get("external"),
        layer=_read(results).layer,
        internal_failures=decision.state.internal_failures,
        external_failures=decision.state.external_failures,
        actions=actions,
        reason=decision.reason,
        restart=restart,
        notices=notices,
        exit_code=int(decision.exit_code),
    )


def _now_s() -> int:
    return int(time.time())
