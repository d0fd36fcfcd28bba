"""Which errors the service and the tunnel have logged since the last look."""

from datetime import UTC, timedelta
from pathlib import Path

from opslib.core.config import Config
from opslib.core.formatting import format_bytes
from opslib.core.language import tr, tr_many
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
        told = tr(
            "{logs}: no such log: the service never ran on this experiment, or logs elsewhere",
            logs=", ".join(missing),
        )
        start = start_step(visit.config)
        step = tr("{start}; or is paths.exp_dir another folder?", start=start)
        return Answer.of("attention", told, step=step)
    named = " ".join(str(path) for path in logs)
    step = tr(
        "read it: `grep ERROR {logs} | tail`, then restart or roll back if answers are wrong",
        logs=named,
    )
    return _digest(visit, logs, "API", step, *missing)


def check_tunnel_log(visit: Visit) -> Answer:
    """Return what cloudflared's log and its rotated parts say since the window began."""
    path = tunnel_log_path(visit.config)
    try:
        there = path.is_file() or bool(find_log_files(path, visit))
    except PermissionError:
        there = True  # reading it will say so
    if not there:
        step = tr("name the tunnel's log: `checklist.cloudflared_log`")
        return visit.not_set_up(tr("{path} is not there", path=path), step)
    step = tr(
        "read it: `grep ERR {log} | tail`; does the tunnel answer? see the outside health", log=path
    )
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
    said = tr("no error")
    if count:
        said = tr(
            "{lines} in {groups}",
            lines=tr_many("{count:,} error line", "{count:,} error lines", count),
            groups=tr_many("{count:,} group", "{count:,} groups", len(counted)),
        )
    said = tr(
        "{said} since {since} UTC", said=said, since=f"{since.astimezone(UTC):%Y-%m-%d %H:%M}"
    )
    ignored = sum(group.count for group in groups if group.ignored)
    if ignored:
        said = tr("{said}, {ignored:,} ignored as configured", said=said, ignored=ignored)
    read = tr_many("{count} file", "{count} files", digest.files)
    lines = [
        f"{said} ({read}, {format_bytes(digest.read_bytes)})",
        *map(describe_group, counted[:SHOWN_GROUPS]),
    ]
    more = len(counted) - SHOWN_GROUPS
    if more > 0:
        lines.append(tr_many("and {count} other message", "and {count} other messages", more))
    if digest.undated:
        lines.append(
            tr_many(
                "{count:,} line without a time: may be older",
                "{count:,} lines without a time: may be older",
                digest.undated,
            )
        )
    lines += digest.problems
    lines += [
        tr("{name}: no line of it is in a form that is known here", name=name)
        for name in digest.puzzling
    ]
    if state == "unknown" and digest.problems:
        step = tr("let this account read the log, or run the checklist as one that may")
    elif state == "unknown":
        step = tr("look at it yourself; the forms that are read: docs/OPS_CHECKLIST.md")
    if missing:
        lines += [tr("{log}: no such log", log=one) for one in missing]
        named = tr("name the logs that there are: `checklist.api_logs`")
        step = step if state != "ok" else named
        state = min(state, "attention", key=STATES.index)
    next_step = None if state == "ok" else step
    return Answer(state=state, evidence=tuple(lines), next_step=next_step, groups=tuple(groups))


def describe_group(group: LogGroup) -> str:
    """Return a group as one line: how often, when, what."""
    if group.first_utc is None or group.last_utc is None:
        when = tr("no time")
    elif group.first_utc[:16] == group.last_utc[:16]:
        when = _short(group.last_utc)
    else:
        when = tr("{first} to {last}", first=_short(group.first_utc), last=_short(group.last_utc))
    return f"{group.count:,} × {group.example} ({when})"


def _short(moment_utc: str) -> str:
    return moment_utc[5:16].replace("T", " ")
