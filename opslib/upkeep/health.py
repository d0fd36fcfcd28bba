"""The health watch for Linux hosts: ask, decide, restart, tell; one run a minute."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from opslib.core.config import Config
from opslib.core.errors import ExitCode, OpsError, ParameterError, storage_errors
from opslib.core.experiment import check_experiment
from opslib.core.locks import hold_lock
from opslib.core.ownership import open_to_append
from opslib.core.secrets import resolve_reference
from opslib.upkeep.health_record import HealthRecord, WatchMemory, keep_memory, read_memory
from opslib.upkeep.health_rules import (
    ActionName,
    Checks,
    Decision,
    HealthState,
    Policy,
    decide,
    decide_after_restart,
)
from opslib.upkeep.notices import (
    Notice,
    deliver,
    write_alert,
    write_degraded,
    write_recovery,
    write_sound,
)
from opslib.upkeep.probe import CheckResult, probe
from opslib.upkeep.restart import run_restart
from opslib.upkeep.web import check_address

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
    return _record(results, exit_code=ExitCode.GATE_FAILED if failed else ExitCode.PASS)


def watch_health(config: Config, alert: Show) -> HealthRecord:
    """Make one run of the watch: ask, count, restart and tell as the rules say.

    Args:
        alert: gets what a person must read: alerts, recovery notices, what went wrong here.

    What must survive to the next run is written where the last one wrote it when the disk is full.
    Where even that fails, the run says so, alerts at the first failure and restarts nothing: it
    cannot know how often something failed or was restarted.

    Raises:
        BusyError: another run is under way.
        ConfigError: the state belongs into the experiment, which is not there.
    """
    path = health_state_path(config)
    if path.is_relative_to(config.exp_dir):
        check_experiment(config)
    with hold_lock(path.with_suffix(".lock"), "health watch"):
        return _Run(config, path, alert).run()


class _Run:
    """One run under its lock: the memory it read, and the lines it writes."""

    def __init__(self, config: Config, path: Path, alert: Show) -> None:
        self._config = config
        self._section = config.health
        self._path = path
        self._alert = alert
        self._log_works = self._remembers = True
        self._memory, damage = read_memory(path)
        if damage:
            self._say(damage)

    def run(self) -> HealthRecord:
        results = _probe(self._config)
        if not _read(results).good:
            self._keep(self._memory, always=True)
        remembers = self._remembers
        policy = Policy(
            failures=self._section.failures if remembers else 1,
            successes=self._section.successes,
            restart_on=self._section.restart_on,
            can_restart=remembers and self._section.restart_command is not None,
            max_restarts_per_hour=self._section.max_restarts_per_hour,
        )
        before = self._memory.decisions
        decision = decide(before, _read(results), policy, _now_s())
        actions, restart = decision.actions, None
        self._keep(self._memory.model_copy(update={"decisions": decision.state}))
        if "restart" in actions:
            restart, results, decision = self._restart(decision, results, policy)
            actions += decision.actions
        notices = _write_notices(actions, decision, results, before)
        record = _record(results, decision, actions, restart, notices)
        self._keep(self._memory.model_copy(update={"decisions": decision.state}), notices)
        self._log(record.describe())
        for notice in notices:
            self._say(notice.text)
        self._deliver()
        return record

    def _restart(
        self, decision: Decision, results: dict[str, CheckResult], policy: Policy
    ) -> tuple[str, dict[str, CheckResult], Decision]:
        seen = "; ".join(f"{name} {result.detail}" for name, result in results.items())
        self._log(f"restart: {self._section.failures} consecutive failures ({seen})")
        command = self._section.restart_command or ""
        result = run_restart(command, self._section.restart_timeout_s)
        if not result.ok:
            self._say(f"restart command: {result.detail}")
        results = self._await_answers()
        decided = decide_after_restart(decision.state, _read(results), policy)
        return result.detail, results, decided

    def _await_answers(self) -> dict[str, CheckResult]:
        """Ask again until everything answers or the time to settle is over."""
        give_up = time.monotonic() + self._section.settle_s
        while True:
            results = _probe(self._config)
            if _read(results).good or time.monotonic() >= give_up:
                return results
            time.sleep(min(SETTLE_POLL_S, max(give_up - time.monotonic(), 0)))

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
        if always or memory != self._memory or not self._path.exists():
            failure = keep_memory(self._path, memory)
            if failure and self._remembers:
                self._say(f"{failure}; alerting at once, restarting nothing")
            self._remembers = failure is None
        self._memory = memory

    def _say(self, text: str) -> None:
        self._alert(text)
        self._log(text)

    def _log(self, text: str) -> None:
        """Append a line to the log; a log that cannot be written is told once, and no more."""
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
            if self._log_works:
                self._alert(str(error))
            self._log_works = False


def _probe(config: Config) -> dict[str, CheckResult]:
    section = config.health
    urls = {"internal": section.internal_url}
    if section.external_url is not None:
        urls["external"] = section.external_url
    return probe(urls, section.timeout_s)


def _read(results: dict[str, CheckResult]) -> Checks:
    external = results.get("external")
    answered = [result.degraded for result in results.values() if result.ok]
    degraded = any(answered) if answered else None
    return Checks(results["internal"].ok, external.ok if external else None, degraded)


def _write_notices(
    actions: tuple[ActionName, ...],
    decision: Decision,
    results: dict[str, CheckResult],
    before: HealthState,
) -> tuple[Notice, ...]:
    incident, degradation, seen = decision.state.incident, decision.state.degradation, results
    found = []
    if "alert" in actions and incident is not None:
        found.append(write_alert(incident, decision.reason, list(seen.items()), _now_s()))
    if "recovery" in actions and before.incident is not None:
        found.append(write_recovery(before.incident, _now_s()))
    if "alert-degraded" in actions and degradation.since_s is not None:
        found.append(write_degraded(degradation.since_s, list(seen.items()), _now_s()))
    if "recovery-degraded" in actions and before.degradation.since_s is not None:
        found.append(write_sound(before.degradation.since_s, _now_s()))
    return tuple(found)


def _record(
    results: dict[str, CheckResult],
    decision: Decision | None = None,
    actions: tuple[ActionName, ...] = (),
    restart: str | None = None,
    notices: tuple[Notice, ...] = (),
    exit_code: ExitCode = ExitCode.PASS,
) -> HealthRecord:
    return HealthRecord(
        at_utc=datetime.now(UTC).isoformat(timespec="seconds"),
        internal=results["internal"],
        external=results.get("external"),
        layer=_read(results).layer,
        internal_failures=decision.state.internal_failures if decision else 0,
        external_failures=decision.state.external_failures if decision else 0,
        actions=actions,
        reason=decision.reason if decision else "",
        restart=restart,
        notices=notices,
        exit_code=int(decision.exit_code if decision else exit_code),
    )


def _now_s() -> int:
    return int(time.time())
