"""H-8: the crontab keeps every byte that is not ours."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opslib.core.errors import InputError, UnavailableError
from opslib.upkeep.crontab import (
    escape_command,
    make_block,
    read_crontab,
    replace_crontab,
    take_apart,
)
from tests.upkeep.crontabs import Host

OURS, OTHERS = "/a/config.yaml", "/b/config.yaml"
BLOCK = make_block(OURS, ["0 2 * * * true"])
OTHER = make_block(OTHERS, ["0 3 * * * false"])
FOREIGN = "# mine\nMAILTO=me\n\n5 4 * * * /usr/bin/backup --to 'a b' \\% > /dev/null\t\n"

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
