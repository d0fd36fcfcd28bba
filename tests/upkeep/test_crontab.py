"""H-8: the crontab keeps every byte that is not ours."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opslib.core.errors import BusyError, InputError, OpsError, StorageError, UnavailableError
from opslib.upkeep.crontab import (
    escape_command,
    make_block,
    plan_backups,
    read_crontab,
    replace_crontab,
    take_apart,
)
from tests.upkeep.crontabs import Host

OURS, OTHERS = "/a/config.yaml", "/b/config.yaml"
BLOCK = make_block(OURS, ["0 2 * * * true"])
OTHER = make_block(OTHERS, ["0 3 * * * false"])
FOREIGN = "# mine\nMAILTO=me\n\n5 4 * * * /usr/bin/backup --to 'a b' \\% > /dev/null\t\n"


def spoil(host: Host, argument: str, script: str) -> None:
    """Let the host's `crontab` do `script` first when it is called with `argument`."""
    program = host.folder / "bin" / "crontab"
    head = 'table="$(dirname "$0")/table"\n'
    body = program.read_text().replace(head, f'{head}if [ "$1" = {argument} ]; then {script}; fi\n')
    program.write_text(body)


LINES = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=20).filter(
    lambda line: "pillops schedule" not in line
)


@given(before=st.lists(LINES, max_size=6), after=st.lists(LINES, max_size=6))
def test_a_block_comes_and_goes_without_a_trace(before: list[str], after: list[str]) -> None:
    head = "".join(f"{line}\n" for line in before)
    tail = "".join(f"{line}\n" for line in after)
    fresh = take_apart(head, OURS).with_block(BLOCK)
    assert take_apart(fresh, OURS).without_block() == head
    parts = take_apart(head + BLOCK + tail, OURS)
    assert (parts.before, parts.block, parts.after) == (head, BLOCK, tail)
    assert parts.with_block(BLOCK) == head + BLOCK + tail


def test_a_table_without_a_last_line_end_gets_one_before_the_block() -> None:
    assert take_apart("5 4 * * * true", OURS).with_block(BLOCK) == "5 4 * * * true\n" + BLOCK


def test_two_checkouts_stand_side_by_side() -> None:
    both = FOREIGN + OTHER + BLOCK
    new = make_block(OURS, ["0 9 * * * true"])
    assert take_apart(both, OURS).with_block(new) == FOREIGN + OTHER + new
    assert take_apart(both, OTHERS).without_block() == FOREIGN + BLOCK


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (FOREIGN + BLOCK.rsplit("\n", 2)[0] + "\n", "line 5: .* has no end"),
        (BLOCK.split("\n", 1)[1], "line 2: the end of a block .* does not begin"),
        (BLOCK + BLOCK, "line 4: a second block"),
        (BLOCK.splitlines(keepends=True)[0] + OTHER, "line 2: .* has no end before this begins"),
        (BLOCK.replace("<<< pillops schedule of /a", "<<< pillops schedule of /c"), "line 3"),
    ],
)
def test_damaged_markers_are_named_by_their_line(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        take_apart(text, OURS)


def test_a_percent_sign_reaches_the_shell() -> None:
    assert escape_command("date +%F >> 'a%b'") == r"date +\%F >> 'a\%b'"


def test_bytes_that_are_no_text_survive(host: Host) -> None:
    raw = b"# caf\xe9 \xff\n0 1 * * * true\n"
    host.table.write_bytes(raw)
    text = read_crontab()
    replace_crontab(text, text + "0 2 * * * true\n", host.folder)
    assert host.table.read_bytes() == raw + b"0 2 * * * true\n"


def test_no_table_is_an_empty_one(host: Host) -> None:
    assert read_crontab() == ""


@pytest.mark.parametrize(
    "dies",
    [
        "kill -9 $$",
        "exit 1",
        "exit 127",
        "echo 'no crontab for you' >&2; kill -9 $$",
        "echo 'no crontab for you' >&2; exit 3",
        "echo 'no crontab for you: cannot read /var/spool' >&2; exit 1",
        'head -n 1 "$table"; kill -9 $$',
    ],
)
def test_a_program_that_dies_is_no_empty_table(host: Host, dies: str) -> None:
    host.table.write_text(FOREIGN)
    spoil(host, "-l", dies)
    with pytest.raises(OpsError, match=r"crontab -l: (ended with|was ended by signal) \d+: "):
        read_crontab()


@pytest.mark.parametrize("word", ["install", "remove", "show"])
def test_where_the_table_cannot_be_read_nothing_is_written(host: Host, word: str) -> None:
    host.table.write_text(FOREIGN)
    spoil(host, "-l", "exit 1")
    answer = host.call(word)
    assert answer.returncode == 1
    assert answer.stderr == "error: crontab -l: ended with 1: it said nothing\n"
    assert host.table.read_text() == FOREIGN
    assert not list(host.folder.rglob("*.bak"))


def test_no_table_is_known_in_any_language(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(host, "-l", '[ "$LC_ALL" = C ] || { echo "keine Tabelle" >&2; exit 1; }')
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    assert read_crontab() == ""


def test_a_table_that_does_not_read_back_is_told_with_where_the_old_one_is(host: Host) -> None:
    host.table.write_text(FOREIGN)
    spoil(host, "-", 'head -n 1 > "$table"; exit 0')
    with pytest.raises(OpsError, match=r"does not read back as it was written; .*crontab-.*\.bak"):
        replace_crontab(FOREIGN, FOREIGN + BLOCK, host.folder)
    (backup,) = host.folder.glob("crontab-*.bak")
    assert backup.read_text() == FOREIGN


def test_a_table_that_somebody_else_changed_meanwhile_stays_theirs(host: Host) -> None:
    host.table.write_text(FOREIGN + OTHER)
    with pytest.raises(BusyError, match="changed by somebody else just now"):
        replace_crontab(FOREIGN, FOREIGN + BLOCK, host.folder)
    assert host.table.read_text() == FOREIGN + OTHER


def test_without_room_for_a_backup_nothing_is_written(host: Host) -> None:
    host.table.write_text(FOREIGN)
    (host.folder / "file").touch()
    with pytest.raises(StorageError):
        replace_crontab(FOREIGN, FOREIGN + BLOCK, host.folder / "file" / "logs")
    assert host.table.read_text() == FOREIGN


def test_the_newest_backups_are_kept_and_one_from_the_future_counts_for_nothing(
    tmp_path: Path,
) -> None:
    now = datetime(2026, 11, 28, tzinfo=UTC)
    past = [f"crontab-202611{day:02d}-120000.bak" for day in range(1, 13)]
    others = ["crontab-20300101-000000.bak", "crontab-mine.bak", "crontab-20261101-120000.bak.old"]
    for name in (*past, *others):
        (tmp_path / name).touch()
    for action in plan_backups(tmp_path, now):
        action.run()
    assert {path.name for path in tmp_path.iterdir()} == {*past[2:], *others}


def test_old_backups_go_with_the_next_change_and_the_plan_says_so(host: Host) -> None:
    host.table.write_text(FOREIGN)
    logs = host.config.logs_dir
    logs.mkdir()
    for day in range(1, 13):
        (logs / f"crontab-202501{day:02d}-120000.bak").touch()
    shown = host.call("install", "--dry-run").stdout
    assert "delete crontab-20250102-120000.bak" in shown
    assert len(list(logs.iterdir())) == 12
    assert host.call("install").returncode == 0
    assert len(list(logs.glob("crontab-*.bak"))) == 11


def test_what_cron_refuses_changes_nothing(host: Host) -> None:
    host.table.write_text(FOREIGN)
    with pytest.raises(InputError, match=r"crontab refuses the new table: .*bad minute"):
        replace_crontab(FOREIGN, "99 * * * * true\n", host.folder)
    assert host.table.read_text() == FOREIGN


def test_a_host_without_the_program_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnavailableError, match="install cron"):
        read_crontab()
