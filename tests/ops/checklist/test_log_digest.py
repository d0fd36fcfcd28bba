"""H-9: errors of logs of any size, grouped by what they say."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opslib.ops.checklist.log_digest import MAX_GROUPS, MAX_LINE_BYTES, OTHERS, LogDigest
from opslib.ops.checklist.log_lines import normalise_message, read_time
from tests.ops.checklist.conftest import json_line
from tests.turns import looped, turns

NOW = datetime(2026, 11, 25, 8, 0, tzinfo=UTC)
SINCE = NOW - timedelta(hours=24)


@pytest.fixture(scope="module", autouse=True)
def fixed_clock() -> Iterator[None]:
    """Lines of syslog have no year: which one is meant depends on the moment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("opslib.ops.checklist.log_lines.utc_now", lambda: NOW)
        yield


def digest(path: Path, text: str | bytes) -> LogDigest:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    found = LogDigest("API", SINCE)
    found.add_file(path)
    return found


def counts(found: LogDigest) -> dict[str, int]:
    return {group.message: group.count for group in found.groups()}


def test_lines_that_differ_in_ids_and_numbers_are_one_group_with_its_times(tmp_path: Path) -> None:
    lines = [
        json_line(f"request {n:08x} of 10.0.0.{n} failed after {n}.5 ms", at=NOW.replace(minute=n))
        for n in (5, 1, 3)
    ]
    (group,) = digest(tmp_path / "api.err", "".join(lines)).groups()
    assert group.message == "request # of # failed after # ms"
    assert group.count == 3
    assert group.first_utc == "2026-11-25T08:01:00+00:00"
    assert group.last_utc == "2026-11-25T08:05:00+00:00"
    assert group.example == "request 00000005 of 10.0.0.5 failed after 5.5 ms"


@pytest.mark.parametrize(
    ("line", "level", "message"),
    [
        ('{"level":"error","time":"2026-11-25T07:00:00Z","message":"lost","error":"EOF"}',
         "ERROR", "lost: EOF"),
        ('{"level":"fatal","time":"2026-11-25T07:00:00Z","message":"no config"}',
         "CRITICAL", "no config"),
        ("2026-11-25T07:00:00Z ERR Serve tunnel error error=\"timeout\" connIndex=2",
         "ERROR", 'Serve tunnel error error="timeout" connIndex=#'),
        ("2026-11-25T07:00:00Z FTL no more connections", "CRITICAL", "no more connections"),
        ("2026-11-25 07:00:00,123 ERROR src.api: boom", "ERROR", "src.api: boom"),
        ("2026-11-25 07:00:00,123 - api - ERROR - boom", "ERROR", "boom"),
        ("[2026-11-25 07:00:00 +0000] [812] [ERROR] boom", "ERROR", "boom"),
        ("ERROR:    Exception in ASGI application", "ERROR", "Exception in ASGI application"),
        ("CRITICAL: disk", "CRITICAL", "disk"),
    ],
)  # fmt: skip
def test_an_error_is_known_in_every_form_that_the_logs_have(
    tmp_path: Path, line: str, level: str, message: str
) -> None:
    (group,) = digest(tmp_path / "log", line + "\n").groups()
    assert (group.level, group.message) == (level, message)


@pytest.mark.parametrize(
    "line",
    [
        '{"level":"INFO","message":"the error rate is 0, no ERROR"}',
        '{"level":"warning","message":"ERR"}',
        "2026-11-25T07:00:00Z INF ERR is not what this says",
        "2026-11-25 07:00:00,123 INFO finished with 0 ERROR lines",
        "    raise ValueError('ERROR')",
        "everything is well",
        '{"level":',
        "",
    ],
)
def test_what_only_talks_of_errors_is_none(tmp_path: Path, line: str) -> None:
    assert digest(tmp_path / "log", line + "\n").groups() == []


def test_a_traceback_is_one_error_and_says_its_last_line(tmp_path: Path) -> None:
    text = """ERROR:    Exception in ASGI application
Traceback (most recent call last):
  File "a.py", line 1, in f
    g()
KeyError: 'x'

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "a.py", line 3, in h
ValueError: bad pill 17
INFO:     127.0.0.1 - "GET /health HTTP/1.1" 200 OK
Traceback (most recent call last):
  File "b.py", line 1
ImportError: no module
"""
    found = counts(digest(tmp_path / "api.err", text))
    assert found == {
        "Exception in ASGI application: KeyError: 'x': ValueError: bad pill #": 1,
        "ImportError: no module": 1,
    }


def test_our_own_traceback_counts_with_what_it_ends_with(tmp_path: Path) -> None:
    line = {"at_utc": NOW.isoformat(), "level": "ERROR", "message": "a request failed"}
    line["traceback"] = "Traceback (most recent call last):\n  File x\nRuntimeError: out of memory"
    found = counts(digest(tmp_path / "api.err", json.dumps(line) + "\n"))
    assert found == {"a request failed: RuntimeError: out of memory": 1}


def test_only_lines_since_the_window_began_count(tmp_path: Path) -> None:
    old = json_line("old", at=SINCE - timedelta(seconds=1))
    edge = json_line("edge", at=SINCE)
    assert counts(digest(tmp_path / "api.err", old + edge)) == {"edge": 1}


def test_lines_without_a_time_count_and_are_called_undated(tmp_path: Path) -> None:
    found = digest(tmp_path / "api.err", "ERROR: a\nERROR: b\n")
    assert found.undated == 2
    assert all(group.first_utc is None for group in found.groups())


def test_archives_are_read_and_a_truncated_one_is_named(tmp_path: Path) -> None:
    whole = gzip.compress("".join(json_line(f"lost {n}", at=NOW) for n in range(2000)).encode())
    found = LogDigest("API", SINCE)
    (tmp_path / "api.err.1.gz").write_bytes(whole)
    found.add_file(tmp_path / "api.err.1.gz")
    assert counts(found) == {"lost #": 2000}
    assert not found.problems
    (tmp_path / "api.err.2.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "api.err.3.gz").write_bytes(b"no gzip")
    found.add_file(tmp_path / "api.err.2.gz")
    found.add_file(tmp_path / "api.err.3.gz")
    assert [problem.split(":")[0] for problem in found.problems] == ["api.err.2.gz", "api.err.3.gz"]


def test_a_secret_in_a_log_is_not_repeated(tmp_path: Path) -> None:
    secret = "s3cret-value-of-a-key"
    found = digest(tmp_path / "log", json_line(f"refused {secret}", at=NOW))
    (group,) = found.groups([secret])
    assert secret not in group.model_dump_json()


def test_what_steers_a_terminal_is_not_repeated(tmp_path: Path) -> None:
    line = "2026-11-25T07:00:00Z ERR \x1b[31mred\x07 \u202eabc\n"
    (group,) = digest(tmp_path / "log", line).groups()
    assert group.example == "red abc"


def test_ignored_texts_are_counted_and_marked(tmp_path: Path) -> None:
    text = json_line("context canceled", at=NOW) + json_line("no route", at=NOW)
    groups = digest(tmp_path / "log", text).groups(ignore=["canceled"])
    assert {group.message: group.ignored for group in groups} == {
        "context canceled": True,
        "no route": False,
    }


def test_groups_lines_and_messages_are_bounded(tmp_path: Path) -> None:
    words = ["".join(chr(97 + int(d)) for d in f"{n:04d}") for n in range(MAX_GROUPS + 50)]
    text = "".join(json_line(word, at=NOW) for word in words)
    found = digest(tmp_path / "api.err", text)
    groups = found.groups()
    assert len(groups) == MAX_GROUPS + 1
    assert groups[0].message == OTHERS
    assert sum(group.count for group in groups) == len(words)
    endless = b"ERROR: " + b"x" * (3 * MAX_LINE_BYTES + (4 << 20)) + b"\nERROR: after\n"
    found = digest(tmp_path / "log", endless)
    assert sum(group.count for group in found.groups()) == 2
    assert all(len(group.example) <= 300 for group in found.groups())


@looped
@settings(max_examples=turns(5, 25), deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["ok", "ERROR: a", "ERROR: b 7"]), st.integers(0, 1500))))
def test_where_blocks_begin_and_end_changes_no_count(
    tmp_path_factory: pytest.TempPathFactory, parts: list[tuple[str, int]]
) -> None:
    path = tmp_path_factory.mktemp("blocks") / "log"
    lines = [f"{text} {'y' * length}" for text, length in parts]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("opslib.ops.checklist.log_digest.BLOCK_BYTES", 1000)
        found = digest(path, "\n".join(lines))
    expected = sum(text.startswith("ERROR") for text, _ in parts)
    assert sum(group.count for group in found.groups()) == expected


@looped
@settings(max_examples=turns(20, 100), deadline=None)
@given(st.binary(max_size=400))
def test_whatever_a_log_holds_it_is_read(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.mktemp("any") / "log"
    digest(path, b"ERROR: " + data + b'\n{"level":"ERROR"' + data + b"\n")


@pytest.mark.parametrize("kind", ["lines", "one endless line"])
def test_memory_does_not_grow_with_the_log(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "api.err"
    good = json_line("CORS preflight allowed", at=NOW, level="INFO") * 4000
    with path.open("w") as file:
        for n in range(200):
            line = good + json_line(f"request {n} failed", at=NOW)
            file.write(line if kind == "lines" else line.replace("\n", " "))
    code = (
        "import sys\n"
        "from datetime import datetime, UTC\n"
        "from pathlib import Path\n"
        "from opslib.ops.checklist.log_digest import LogDigest\n"
        "digest = LogDigest('API', datetime(2026, 1, 1, tzinfo=UTC))\n"
        "def peak():\n"
        "    lines = Path('/proc/self/status').read_text().splitlines()\n"
        "    return next(int(line.split()[1]) for line in lines if line.startswith('VmHWM'))\n"
        "before = peak()\n"
        "digest.add_file(Path(sys.argv[1]))\n"
        "after = peak()\n"
        "print(sum(g.count for g in digest.groups()), after, after - before)\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    count, peak_kib, grown_kib = map(int, answer.stdout.split())
    assert path.stat().st_size > 70e6
    assert count == (200 if kind == "lines" else 0)
    assert peak_kib < 100 * 1024
    assert grown_kib < 16 * 1024


def test_times_are_read_with_and_without_a_zone() -> None:
    assert read_time("2026-11-25T07:00:00Z") == datetime(2026, 11, 25, 7, tzinfo=UTC)
    assert read_time("2026-11-25T09:00:00.5+02:00") == datetime(
        2026, 11, 25, 7, 0, 0, 500000, tzinfo=UTC
    )
    local = datetime(2026, 11, 25, 7).astimezone()
    assert read_time("[2026-11-25 07:00:00,000]") == local
    assert read_time("2026-99-25 07:00:00") is None
    assert read_time(12) is None


def test_a_digest_in_a_message_does_not_split_a_group() -> None:
    first = normalise_message("model-20261125-071051-476b1bb.onnx: sha256 2f0c, expected 9a1e")
    assert first == "model-#-#-#.onnx: # #, expected #"


LINES = (
    "2026-11-25T07:00:00Z INF Starting tunnel\n"
    '2026-11-25T07:00:01Z ERR Serve tunnel error error="timeout"\n'
)
LAST = LINES.splitlines(keepends=True)[1]
TOLD = {'Serve tunnel error error="timeout"': 1}


def in_docker(text: str) -> str:
    moment = {"stream": "stderr", "time": "2026-11-25T07:00:02.5Z"}
    return "".join(f"{json.dumps({'log': line} | moment)}\n" for line in text.splitlines(True))


def behind(prefix: str) -> bytes:
    return "".join(f"{prefix}{line}" for line in LINES.splitlines(True)).encode()


@pytest.mark.parametrize(
    "written",
    [
        LINES.encode("utf-16"),
        b"\xfe\xff" + LINES.encode("utf-16-be"),
        LINES.encode("utf-16-le"),  # a part that was rotated away has no mark
        LINES.encode("utf-8-sig"),
        LINES.replace("ERR", "\x1b[31mERR\x1b[0m").encode(),
        in_docker(LINES).encode(),
        "".join(
            f"Nov 25 07:00:01 host cloudflared[9]: {one}\n" for one in LINES.splitlines()
        ).encode(),
        "".join(
            f"2026-11-25T07:00:01+00:00 host tunnel: {one}\n" for one in LINES.splitlines()
        ).encode(),
    ],
    ids=["utf-16", "utf-16-be", "no mark", "utf-8 mark", "colours", "docker", "syslog", "rsyslog"],
)
def test_what_a_log_comes_wrapped_in_hides_no_error(tmp_path: Path, written: bytes) -> None:
    found = digest(tmp_path / "cloudflared.log", written)
    assert (counts(found), found.undated, found.puzzling) == (TOLD, 0, [])


@pytest.mark.parametrize("block_bytes", [1 << 20, 100, 64, 7])
@pytest.mark.parametrize(
    "written",
    [
        [LAST.encode("utf-8-sig")],
        [LINES.encode("utf-16"), LINES.encode()],
        [LINES.encode("utf-16"), LAST.encode("utf-8-sig")],
        [b"\xfe\xff", LINES.encode("utf-16-be"), LINES.encode()],
        [LINES.encode(), LINES.encode("utf-16")],
        [LINES.encode(), LINES.encode("utf-16-le"), LINES.encode(), LINES.encode("utf-16-be")],
        [LINES.replace("\n", "\r").encode()],
        [LINES.replace("\n", "\r").encode("utf-16"), LINES.encode()],
        [LINES.replace("\n", "\r\n").encode()],
    ],
    ids=["mark", "16-8", "16-8 mark", "be-8", "8-16 mark", "8-16-8-be", "cr", "16 cr-8", "crlf"],
)
def test_an_encoding_or_line_end_that_changes_midway_hides_no_error(
    tmp_path: Path, written: list[bytes], block_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("opslib.ops.checklist.log_digest.BLOCK_BYTES", block_bytes)
    found = digest(tmp_path / "cloudflared.log", b"".join(written))
    errors = sum(len(one) > 2 for one in written)
    assert (counts(found), found.undated, found.puzzling) == (dict.fromkeys(TOLD, errors), 0, [])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            'time="2026-11-25T07:00:00Z" level=error msg="no route" error="EOF here"',
            "no route: EOF here",
        ),
        ("level=fatal ts=2026-11-25T07:00:00Z msg=gone", "gone"),
        ('Nov 25 07:00:00 h cloudflared[1]: {"level":"error","message":"lost"}', "lost"),
        (
            '{"log":"{\\"level\\":\\"error\\",\\"message\\":\\"lost\\"}\\n","time":"2026-11-25T07:00:00Z"}',
            "lost",
        ),
    ],
)
def test_fields_are_read_wherever_they_stand(tmp_path: Path, line: str, message: str) -> None:
    found = digest(tmp_path / "api.err", f"{line}\n")
    assert counts(found) == {message: 1}
    assert found.undated == 0


@pytest.mark.parametrize(
    ("now", "told"),
    [
        (datetime(2027, 11, 25, 8).astimezone(), datetime(2027, 11, 25, 7).astimezone()),
        (datetime(2027, 1, 1, 0, 30).astimezone(), datetime(2026, 12, 31, 23, 59, 58).astimezone()),
        (datetime(2029, 1, 1).astimezone(), datetime(2028, 2, 29, 12).astimezone()),
    ],
)
def test_a_time_without_a_year_is_the_latest_that_is_past(
    tmp_path: Path, now: datetime, told: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("opslib.ops.checklist.log_lines.utc_now", lambda: now)
    line = f"{told:%b %d %H:%M:%S} host tunnel[1]: ERR lost\n"
    (group,) = digest(tmp_path / "a.log", line).groups()
    assert group.last_utc == told.astimezone(UTC).isoformat()


def test_a_log_of_which_no_line_is_understood_is_named_and_an_empty_one_is_not(
    tmp_path: Path,
) -> None:
    strange = digest(tmp_path / "strange.log", "\n".join(f"step {n}: fine" for n in range(999)))
    assert strange.puzzling == ["strange.log"]
    assert digest(tmp_path / "empty.log", " \n\n").puzzling == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"log":"2026-11-25T07:00:00Z ERR bad \\ud800 name\\n","time":"x"}', "bad ? name"),
        ('{ "log": "ERROR boom\\n", "time": "2026-11-25T07:00:00Z"}', "boom"),
        ('{"log":"api","level":"ERROR","message":"boom","time":"2026-11-25T07:00:00Z"}', "boom"),
        ('{"log":{"a":1},"level":"ERROR","message":"boom","time":"2026-11-25T07:00:00Z"}', "boom"),
    ],
)
def test_only_text_that_docker_wrote_is_unwrapped(tmp_path: Path, line: str, message: str) -> None:
    assert counts(digest(tmp_path / "api.err", f"{line}\n")) == {message: 1}


@pytest.mark.parametrize(
    "line", ["ERROR app.x: failed", "ERR Link: failed", "CRITICAL root[1]: failed"]
)
def test_a_level_behind_the_time_is_no_host(tmp_path: Path, line: str) -> None:
    hole = b"\0" * 600 + b"\n"  # left by a truncation under a writer
    found = digest(tmp_path / "a.log", hole + f"2026-11-25T07:00:00Z {line}\n".encode())
    assert sum(counts(found).values()) == 1
