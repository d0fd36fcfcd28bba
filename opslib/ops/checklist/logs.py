"""Which errors the service and the tunnel have logged since the last look."""

from datetime import UTC, timedelta
from pathlib import Path

from opslib.core.config import Config
from opslib.core.formatting import format_bytes, plural
from opslib.core.secrets import live_secrets
from opslib.ops.checklist.items import STATES, Answer, LogGroup, State, Visit
from opslib.ops.checklist.log_digest import LogDigest
from opslib.ops.checklist.service import start_step
from opslib.upkeep import log_names

SHOWN_GROUPS = 3


def check_api_log(visit: Visit) -> Answer:
    """Return what the service's logs (`checklist.api_logs`) and their archives say since the window
    began."""
    folder = visit.config.logs_dir
    logs = [folder / pattern for pattern in visit.config.checklist.api_logs]
    # of whatever age, or a part of it in the window
    found = [any(path.parent.glob(path.name)) or find_log_files(path, visit) for path in logs]
    missing = [str(path) for path, there in zip(logs, found, strict=True) if not there]
    if len(missing) == len(logs):
        why = "the service never ran on this experiment, or logs elsewhere"
        told = f"{', '.join(missing)}: no such log: {why}"
        step = f"{start_step(visit.config)}; or is paths.exp_dir another folder?"
        return Answer.of("attention", told, step=step)
    named = " ".join(str(path) for path in logs)
    step = f"read it: `grep ERROR {named} | tail`, then restart or roll back if answers are wrong"
    return _digest(visit, logs, "API", step, *missing)


def check_tunnel_log(visit: Visit) -> Answer:
    """Return what cloudflared's log and its rotated parts say since the window began."""
    path = tunnel_log_path(visit.config)
    try:
        there = path.is_file() or bool(find_log_files(path, visit))
    except PermissionError:
        there = True  # reading it will say so
    if not there:
        step = "name the tunnel's log: `checklist.cloudflared_log`"
        return visit.not_set_up(f"{path} is not there", step)
    step = f"read it: `grep ERR {path} | tail`; does the tunnel answer? see the outside health"
    return _digest(visit, [path], "cloudflared", step)


def tunnel_log_path(config: Config) -> Path:
    """Return where cloudflared's log is: as the checklist is told, else as its rotation is."""
    given = config.checklist.cloudflared_log
    return config.resolve(given) if given else log_names.tunnel_log_path(config)


def find_log_files(path: Path, visit: Visit) -> list[Path]:
    """Return the log at `path`, whose name may be a pattern, and its rotated parts, beside it or in
    `archive/`, that were written to since the window began, the newest last."""
    since = (visit.now - timedelta(hours=visit.window_h)).timestamp()
    patterns = (path.name, f"{path.name}.*", f"archive/{path.name}*")
    found = {path, *(one for pattern in patterns for one in path.parent.glob(pattern))}
    dated = []
    for one in found:
        try:
            facts = one.stat()
        except FileNotFoundError:
            continue
        if facts.st_mtime >= since and one.is_file():
            dated.append((facts.st_mtime_ns, one))
    return [one for _, one in sorted(dated)]


def _digest(visit: Visit, paths: list[Path], source: str, step: str, *missing: str) -> Answer:
    section = visit.config.checklist
    since = visit.now - timedelta(hours=visit.window_h)
    digest = LogDigest(source, since)
    files: dict[Path, None] = {}
    for path in paths:
        try:
            files |= dict.fromkeys(find_log_files(path, visit))
        except PermissionError as error:
            digest.problems.append(f"{path}: {error.strerror}")
    for file in files:
        digest.add_file(file)
    groups = digest.groups(live_secrets(visit.config.root), section.log_ignore)
    counted = [group for group in groups if not group.ignored]
    count = sum(group.count for group in counted)
    state: State = "ok"
    if digest.problems or digest.puzzling:
        state = "unknown"
    if count:
        state = "failed" if count >= section.log_errors_failed else "attention"
    if any(group.level == "CRITICAL" for group in counted):
        state = "failed"
    said = f"{plural(count, 'error line')} in {plural(len(counted), 'group')}"
    ignored = sum(group.count for group in groups if group.ignored)
    passed = f", {ignored:,} ignored as configured" if ignored else ""
    lines = [
        f"{said if count else 'no error'} since {since.astimezone(UTC):%Y-%m-%d %H:%M} UTC{passed}"
        f" ({plural(digest.files, 'file')}, {format_bytes(digest.read_bytes)})",
        *map(describe_group, counted[:SHOWN_GROUPS]),
    ]
    if len(counted) > SHOWN_GROUPS:
        lines.append(f"and {plural(len(counted) - SHOWN_GROUPS, 'other message')}")
    if digest.undated:
        lines.append(f"{plural(digest.undated, 'line')} without a time: may be older")
    lines += digest.problems
    lines += [f"{name}: no line of it is in a form that is known here" for name in digest.puzzling]
    if state == "unknown" and digest.problems:
        step = "let this account read the log, or run the checklist as one that may"
    elif state == "unknown":
        step = "look at it yourself; the forms that are read: docs/OPS_CHECKLIST.md"
    if missing:
        lines += [f"{one}: no such log" for one in missing]
        step = step if state != "ok" else "name the logs that there are: `checklist.api_logs`"
        state = min(state, "attention", key=STATES.index)
    next_step = None if state == "ok" else step
    return Answer(state=state, evidence=tuple(lines), next_step=next_step, groups=tuple(groups))


def describe_group(group: LogGroup) -> str:
    """Return a group as one line: how often, when, what."""
    if group.first_utc is None or group.last_utc is None:
        when = "no time"
    elif group.first_utc[:16] == group.last_utc[:16]:
        when = _short(group.last_utc)
    else:
        when = f"{_short(group.first_utc)} to {_short(group.last_utc)}"
    return f"{group.count:,} × {group.example} ({when})"


def _short(moment_utc: str) -> str:
    return moment_utc[5:16].replace("T", " ")
