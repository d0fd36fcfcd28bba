"""The health watch for Linux hosts: ask, decide, restart, tell; one run a minute."""

import os
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from opslib.core.config import Config, check_experiment
from opslib.core.deadline import NotEndedError, run_or_end
from opslib.core.errors import ExitCode, OpsError, ParameterError, StorageError, storage_errors
from opslib.core.formatting import now_text
from opslib.core.locks import hold_lock
from opslib.core.ownership import open_to_append
from opslib.core.secrets import resolve_reference
from opslib.core.web import check_address
from opslib.upkeep import health_rules as rules
from opslib.upkeep.health_record import (
    HealthRecord,
    keep_memory,
    read_memory,
    second_path,
)
from opslib.upkeep.notices import Notice, write_notice, write_notices
from opslib.upkeep.probe import CheckResult, probe

SETTLE_POLL_S = 1.0
KILL_WAIT_S = 5.0
MAX_UNDELIVERED = 20  # the oldest go

Show = Callable[[str], None]
Results = Mapping[str, CheckResult]


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
    degraded. `ParameterError` where `health.webhook` names a variable that is not set or holds no
    address."""
    if config.health.webhook is not None:
        _resolve_webhook(config, config.health.webhook)
    results = _probe(config)
    checks = _read(results)
    failed = checks.layer is not None or checks.degraded is True
    code = ExitCode.GATE_FAILED if failed else ExitCode.PASS
    return _record(results, rules.Decision(rules.HealthState(), exit_code=code))


def watch_health(config: Config, alert: Show) -> HealthRecord:
    """Make one run of the watch: ask, count, restart and tell as the rules say.

    What must survive to the next run is kept as `keep_memory` says; a run that can remember nothing
    acts in the first minute of an hour alone: it cannot know how often something failed, was told
    or was restarted. What is wrong with the watch itself is told once an hour. `alert`: gets what a
    person must read: alerts, recovery notices, what went wrong here. Raises `BusyError` where
    another run is under way; `ConfigError` where the state belongs into the experiment, which is
    not there.
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
        self._config, self._section = config, config.health
        self._path, self._alert = path, alert
        self._remembers = True
        self._trouble = self._log_trouble = ""
        self._memory, damage = read_memory(path, _now_s())
        if damage:
            self._say(damage)

    def run(self) -> HealthRecord:
        results = _probe(self._config)
        checks = _read(results)
        if checks.layer is not None:
            self._keep(always=True)
        before, now_s = self._memory.decisions, _now_s()
        decision = rules.decide(before, checks, self._section, now_s)
        self._keep(decisions=decision.state)
        if not self._remembers:
            before = rules.HealthState()
            decision = rules.decide_forgetful(checks, self._section, now_s)
        actions, restart = decision.actions, None
        if "restart" in actions:
            restart, results = self._restart(results)
            checks = _read(results)
            decision = rules.decide_after_restart(decision.state, checks, self._section)
            actions += decision.actions
        notices = write_notices(actions, before, decision.state, decision.reason, results, _now_s())
        record = _record(results, decision, actions=actions, restart=restart, notices=notices)
        self._log(record.describe())
        notices += self._write_trouble(now_s)
        self._keep(notices, decisions=decision.state)
        for notice in notices:
            self._say(notice.text)
        self._deliver()
        return record

    def _restart(self, results: Results) -> tuple[str, Results]:
        """Restart, and ask again until everything answers or the time to settle is over."""
        seen = "; ".join(f"{name} {result.detail}" for name, result in results.items())
        self._log(f"restart: {self._section.failures} consecutive failures ({seen})")
        command = self._section.restart_command or ""
        ok, detail = run_restart(command, self._section.restart_timeout_s)
        if not ok:
            self._say(f"restart command: {detail}")
        give_up = time.monotonic() + self._section.settle_s
        while True:
            results = _probe(self._config)
            if _read(results).layer is None or time.monotonic() >= give_up:
                return detail, results
            time.sleep(min(SETTLE_POLL_S, max(give_up - time.monotonic(), 0)))

    def _write_trouble(self, now_s: int) -> tuple[Notice, ...]:
        """What is wrong with the watch itself, once an hour."""
        told_s = self._memory.trouble_told_s
        is_due = told_s is None or abs(now_s - told_s) >= rules.HOUR_S
        what = "; ".join(filter(None, (self._trouble, self._log_trouble)))
        if not what or not (is_due if self._remembers else rules.hour_begins(now_s)):
            return ()
        self._memory = self._memory.model_copy(update={"trouble_told_s": now_s})
        return (write_notice("trouble", f"TROUBLE: {what}", "watch", now_s, now_s),)

    def _deliver(self) -> None:
        """Send what is not delivered yet, in order; what fails is tried again by the next run."""
        waiting, reference = self._memory.undelivered, self._section.webhook
        if not waiting:
            return
        if reference is None:  # it was taken out of the configuration
            self._keep(undelivered=())
            return
        try:
            address = _resolve_webhook(self._config, reference)
        except ParameterError as error:
            self._say(f"webhook: {error}")
            return
        while waiting:
            if failure := waiting[0].deliver(address, self._section.timeout_s):
                self._say(f"webhook: {failure}; tried again by the next run")
                break
            waiting = waiting[1:]
        self._keep(undelivered=waiting)

    def _keep(
        self, notices: tuple[Notice, ...] = (), *, always: bool = False, **changes: Any
    ) -> None:
        """Keep the memory with these changes, where there is something new to keep."""
        if notices and self._section.webhook is not None:
            waiting = (*self._memory.undelivered, *notices)
            changes["undelivered"] = waiting[-MAX_UNDELIVERED:]
        memory = self._memory.model_copy(update=changes)
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
        line = " ".join(text.splitlines())
        try:
            with (
                storage_errors(f"append to {path}"),
                os.fdopen(open_to_append(path), "a", encoding="utf-8") as file,
            ):
                file.write(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {line}\n")
        except OpsError as error:
            self._log_trouble = str(error)


def run_restart(command: str, timeout_s: float) -> tuple[bool, str]:
    """Run `command` (no shell); return whether it ended well, and how in a few words.

    Past `timeout_s` its whole process group is ended. Its output goes to a file, so that a daemon
    which it leaves behind and which keeps the output open does not hold this process up; the file
    is in memory, so that a full disk does not hinder a restart.
    """
    with os.fdopen(os.memfd_create("restart"), "w+b") as output:
        told = {"stdout": output, "stderr": subprocess.STDOUT}
        try:
            code = run_or_end(shlex.split(command), timeout_s, KILL_WAIT_S, **told)
        except OSError as error:
            return False, f"cannot be run: {error.strerror or error}"
        except NotEndedError:
            return False, f"hung, and could not be ended after {timeout_s:g} s"
        except subprocess.TimeoutExpired:
            return False, f"hung and was ended after {timeout_s:g} s"
        output.seek(max(0, output.seek(0, os.SEEK_END) - 400))
        said = " ".join(output.read().decode(errors="replace").split())
        return code == 0, f"exit {code}{': ' + said[-200:] if said and code else ''}"


def _resolve_webhook(config: Config, reference: str) -> str:
    address = resolve_reference(reference, config.root)
    check_address(address, "health.webhook")
    return address


def _probe(config: Config) -> Results:
    urls = {"internal": config.health.internal_url, "external": config.health.external_url}
    watched = {name: url for name, url in urls.items() if url is not None}
    return probe(watched, config.health.timeout_s)


def _read(results: Results) -> rules.Checks:
    external = results.get("external")
    answered = [result.degraded for result in results.values() if result.ok]
    degraded = any(answered) if answered else None
    return rules.Checks(results["internal"].ok, external.ok if external else None, degraded)


def _record(results: Results, decision: rules.Decision, **done: Any) -> HealthRecord:
    return HealthRecord(
        at_utc=now_text(),
        internal=results["internal"],
        external=results.get("external"),
        layer=_read(results).layer,
        internal_failures=decision.state.internal_failures,
        external_failures=decision.state.external_failures,
        reason=decision.reason,
        exit_code=int(decision.exit_code),
        **done,
    )


def _now_s() -> int:
    return int(time.time())
