"""The runs of several hosts on one desk, with a real S3 server."""

import json
import random
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nbformat
import papermill
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from opslib.core.config import Config
from opslib.core.errors import ConfigError, ExitCode, InputError, StorageError
from opslib.core.store import open_store
from opslib.runs.catalogue import scan_runs
from opslib.runs.desk import Desk, build_desk_index, carry_out_runs, open_desk, read_runs
from opslib.runs.desk_adopt import adopt_at_desk, find_plain
from opslib.runs.index import build_index
from opslib.runs.publish import plan_publish, publish_new
from opslib.runs.pull import plan_pull
from opslib.runs.run_record import RUN_FILE, RunRecord
from tests.cutting import cutting
from tests.running import run_python
from tests.runs.makers import make_bench, make_project, make_run, publish_cell, write_run
from tests.s3 import S3
from tests.turns import looped, turns

INDEX = "desk/index.html"


@pytest.fixture
def bucket(s3: S3) -> str:
    return s3.make_bucket()


@pytest.fixture
def host(bucket: str, tmp_path: Path) -> Callable[[str], Desk]:
    """Return a host of a name with a report folder of its own, at the same desk."""
    return lambda name: Desk(open_store(f"s3://{bucket}/desk"), name, tmp_path / name)


def publish(desk: Desk, *names: str) -> list[str]:
    """Publish as the command does; return what was said."""
    said: list[str] = []
    plan, refused = plan_publish(desk, read_runs(desk).values(), names)
    carry_out_runs(plan, said.append)
    build_desk_index(desk)
    return said + refused


def pull(desk: Desk, *names: str) -> list[str]:
    said: list[str] = []
    plan, refused = plan_pull(desk, read_runs(desk).values(), names)
    carry_out_runs(plan, said.append)
    return said + refused


def tree(folder: Path) -> dict[str, bytes]:
    """The files below a folder that are not hidden, and their bytes."""
    paths = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    shown = [path for path in paths if not any(part.startswith(".") for part in path.parts)]
    return {str(path): (folder / path).read_bytes() for path in shown}


def test_a_run_is_published_with_all_its_files_and_listed_with_its_host(
    s3: S3, bucket: str, host: Callable[[str], Desk]
) -> None:
    one, two = host("gpu-1"), host("gpu-2")
    write_run(one.root, make_run(1, finding="Finding of one."), make_bench())
    write_run(two.root, make_run(2, finding="Finding of two."))
    before = tree(one.root)
    assert publish(one) == publish(two) == []
    assert tree(one.root) == before
    for name, data in {**before, **tree(two.root)}.items():
        assert s3.read(bucket, f"desk/{name}") == data
    page = s3.read(bucket, INDEX).decode()
    table = page[page.index('id="runs"') :]
    for number, name in ((1, "gpu-1"), (2, "gpu-2")):
        row = next(one for one in table.split("<tr>") if f"<td>{name}" in one)
        assert f"Finding of {'one' if number == 1 else 'two'}." in row
    for href in re.findall(r'href="([^"#]+)"', page):
        assert href == "data:," or f"desk/{href}" in s3.objects(bucket)


def test_the_page_of_one_host_says_no_host(tmp_path: Path) -> None:
    write_run(tmp_path, make_run(1))
    assert ">Host<" not in build_index(tmp_path).read_text()


def test_what_is_published_is_not_sent_again(
    s3: S3, bucket: str, host: Callable[[str], Desk]
) -> None:
    desk = host("gpu-1")
    write_run(desk.root, make_run(1))
    publish(desk)
    count = len(s3.requests(bucket))
    plan, refused = plan_publish(desk, read_runs(desk).values())
    assert plan.actions == ()
    assert refused == []
    assert [line.split("?")[0] for line in s3.requests(bucket)[count:]] == [f"GET /{bucket}"]


def test_one_more_run_is_indexed_in_few_requests_however_many_there_are(
    s3: S3, bucket: str, host: Callable[[str], Desk]
) -> None:
    desk = host("gpu-1")
    for number in range(turns(60, 1000)):
        write_run(desk.root, make_run(number))
    publish(desk)
    other = host("gpu-2")
    build_desk_index(other)
    write_run(desk.root, make_run(5000))
    plan, _ = plan_publish(desk, read_runs(desk).values())
    carry_out_runs(plan, print)
    count = len(s3.requests(bucket))
    assert len(build_desk_index(other)) == turns(61, 1001)
    assert len(s3.requests(bucket)) - count <= 10


def test_what_one_host_read_of_many_records_the_next_one_need_not_read(
    s3: S3, bucket: str, host: Callable[[str], Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("opslib.runs.desk.MANY", 3)
    one = host("gpu-1")
    for number in range(6):
        write_run(one.root, make_run(number))
    publish(one)
    assert len(build_desk_index(host("gpu-2"))) == 6
    (record, *_) = one.store.list(".runs/")
    changed = json.loads(one.store.read(record)) | {"finding": "Said anew."}
    one.store.write(record, json.dumps(changed).encode())
    count = len(s3.requests(bucket))
    runs = build_desk_index(host("gpu-3"))
    assert len(runs) == 6
    assert runs[record].row.sentence == "Said anew."
    assert len(s3.requests(bucket)) - count <= 8
    shared, (*_, last) = one.store.read(".desk.json").decode(), one.store.list(".runs/")
    elsewhere = shared.replace(f'"{last.removeprefix(".runs/gpu-1/")}"', '"../../evil.json"')
    for number, false in enumerate((shared[:99], elsewhere)):
        one.store.write(".desk.json", false.encode())
        assert build_desk_index(host(f"other-{number}")) == runs


HAMMER = """
import sys
from pathlib import Path
from opslib.core.store import open_store
from opslib.runs.desk import Desk, build_desk_index, carry_out_runs, read_runs
from opslib.runs.publish import plan_publish
url, name, root, count = sys.argv[1:]
desk = Desk(open_store(url), name, Path(root))
print("ready", flush=True)
sys.stdin.readline()
for number in range(int(count)):
    plan, _ = plan_publish(desk, read_runs(desk).values(), [f"{number:06x}"])
    carry_out_runs(plan, print)
    build_desk_index(desk)
"""


@looped
@pytest.mark.parametrize("kind", ["s3", "sftp"])
def test_two_hosts_that_publish_at_the_same_time_lose_no_run(
    kind: str, make_store: Callable[[str], str], tmp_path: Path
) -> None:
    each = turns(8 if kind == "s3" else 3, 50)
    url = f"{make_store(kind)}/desk"
    hosts = [Desk(open_store(url), name, tmp_path / name) for name in ("gpu-1", "gpu-2")]
    for offset, desk in enumerate(hosts):
        for number in range(each):
            run = make_run(2 * number + offset)
            tail = f"{number:06x}"
            write_run(desk.root, run.model_copy(update={"id": run.id[:-6] + tail}))
    programs = [
        subprocess.Popen(
            [sys.executable, "-c", HAMMER, desk.store.url, desk.host, str(desk.root), str(each)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for desk in hosts
    ]
    for one in programs:
        assert one.stdout is not None
        assert one.stdout.readline() == "ready\n"
    for one in programs:
        assert one.stdin is not None
        one.stdin.write("go\n")
        one.stdin.flush()
    for one in programs:
        one.communicate()
        assert one.returncode == 0
    page = hosts[0].store.read("index.html").decode()
    assert f"{2 * each} runs" in page
    for desk in hosts:
        for row in scan_runs(desk.root):
            assert row.href in page


class Slow:
    """A store whose owner is overtaken, once, between reading the records and writing the page."""

    def __init__(self, store: Any, overtake: Callable[[], object]) -> None:
        self._store, self._overtake = store, [overtake]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def write(self, name: str, data: bytes) -> None:
        if name == "index.html" and self._overtake:
            self._overtake.pop()()
        self._store.write(name, data)


def test_a_host_that_was_overtaken_does_not_leave_its_old_page(
    s3: S3, bucket: str, host: Callable[[str], Desk]
) -> None:
    one, two = host("gpu-1"), host("gpu-2")
    for number, desk in enumerate((one, two)):
        write_run(desk.root, make_run(number, finding=f"Finding of {desk.host}."))
    slow: Any = Slow(one.store, lambda: publish(two))
    publish(replace(one, store=slow))
    page = s3.read(bucket, INDEX).decode()
    assert "Finding of gpu-1." in page
    assert "Finding of gpu-2." in page


def check_only_whole_runs(s3: S3, bucket: str) -> int:
    """Hold everything that each record at the desk lists against what is there."""
    there = s3.objects(bucket)
    records = [name for name in there if name.startswith("desk/.runs/")]
    for name in records:
        run = RunRecord.model_validate_json(s3.read(bucket, name))
        folder = "desk/" + name.split("/", 3)[3].removesuffix(RUN_FILE)
        assert f"{folder}{RUN_FILE}" in there
        for entry in run.files:
            assert there[folder + entry.path] == entry.size
    return len(records)


@looped
def test_a_connection_cut_at_any_moment_leaves_no_half_run_and_the_next_publish_finishes(
    s3: S3, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = random.Random(7)
    root = tmp_path / "reports"
    for number in range(4):
        folder = write_run(root, make_run(number), make_bench())
        assert folder.is_dir()
    before = tree(root)
    with cutting(s3.port) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.address)
        publish(Desk(open_store(f"s3://{bucket}/desk"), "gpu-1", root))
        needed = proxy.passed
        for _ in range(turns(3, 20)):
            own = s3.make_bucket()
            desk = Desk(open_store(f"s3://{own}/desk"), "gpu-1", root)
            proxy.limit(moments.randrange(1, needed - 200))
            with pytest.raises(StorageError) as caught:
                publish(desk)
            assert str(caught.value).isprintable()
            assert check_only_whole_runs(s3, own) <= 4
            assert tree(root) == before
            proxy.limit(None)
            publish(desk)
            assert check_only_whole_runs(s3, own) == 4
            page = s3.read(own, INDEX).decode()
            assert all(row.href in page for row in scan_runs(root))


def test_a_run_whose_files_are_not_what_it_lists_is_not_published(
    s3: S3, bucket: str, host: Callable[[str], Desk]
) -> None:
    desk = host("gpu-1")
    damaged = write_run(desk.root, make_run(1))
    write_run(desk.root, make_run(2))
    (damaged / "01_bench.html").write_text("something else")
    (said,) = publish(desk)
    assert "01_bench.html: is not the file that its record lists" in said
    assert [run.row.id for run in read_runs(desk).values()] == [make_run(2).id]


def test_a_place_that_another_host_has_is_not_taken(
    s3: S3, bucket: str, host: Callable[[str], Desk]
) -> None:
    one, two = host("gpu-1"), host("gpu-2")
    for number, desk in enumerate((one, two)):
        write_run(desk.root, make_run(number)).rename(desk.root / "mine")
    assert publish(one) == []
    assert publish(two) == ["mine/run.json: a run of gpu-1 has this place at the desk"]
    assert s3.read(bucket, "desk/mine/run.json") == (one.root / "mine/run.json").read_bytes()


def test_the_runs_of_other_hosts_are_pulled_whole_and_are_not_published_again(
    host: Callable[[str], Desk],
) -> None:
    one, two = host("gpu-1"), host("gpu-2")
    for number in (1, 2):
        write_run(one.root, make_run(number), make_bench())
    write_run(two.root, make_run(3))
    publish(one)
    publish(two)
    assert pull(two) == []
    assert {**tree(one.root)}.items() <= tree(two.root).items()
    assert {row.id for row in scan_runs(two.root)} == {make_run(n).id for n in (1, 2, 3)}
    assert plan_pull(two, read_runs(two).values())[0].actions == ()
    one.store.delete(one.store.list(".runs/gpu-1/"))
    assert plan_publish(two, read_runs(two).values())[0].actions == ()


def test_a_run_is_pulled_by_the_end_of_its_name_whose_ever_it_is(
    host: Callable[[str], Desk],
) -> None:
    one, two = host("gpu-1"), host("gpu-2")
    for number in (1, 2):
        write_run(one.root, make_run(number))
    publish(one)
    assert pull(two, "000002") == []
    assert [row.id for row in scan_runs(two.root)] == [make_run(2).id]
    with pytest.raises(InputError, match=r"nothing: no run is called that at s3://"):
        plan_pull(two, read_runs(two).values(), ["nothing"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data.replace(b"<title>", b"<TITLE>"), "is not the file that its record"),
        (None, "there is no such object"),
    ],
)
def test_what_the_desk_damaged_or_lost_is_not_pulled(
    s3: S3,
    bucket: str,
    host: Callable[[str], Desk],
    change: Callable[[bytes], bytes] | None,
    said: str,
) -> None:
    one, two = host("gpu-1"), host("gpu-2")
    folder = write_run(one.root, make_run(1)).relative_to(one.root)
    publish(one)
    name = f"{folder}/01_bench.html"
    if change is None:
        one.store.delete([name])
        with pytest.raises(StorageError, match=said):
            pull(two)
    else:
        one.store.write(name, change(one.store.read(name)))
        assert said in pull(two)[0]
    assert tree(two.root) == {}
    assert not list((two.root / folder).parent.iterdir())


@pytest.mark.parametrize("name", ["../../evil", "/etc/evil", "a/b", ".hidden", "run.json", ""])
def test_a_record_that_names_a_file_elsewhere_is_refused(
    host: Callable[[str], Desk], name: str
) -> None:
    one, two = host("gpu-1"), host("gpu-2")
    write_run(one.root, make_run(1))
    publish(one)
    (record,) = one.store.list(".runs/")
    content = json.loads(one.store.read(record))
    content["files"][0]["path"] = name
    one.store.write(record, json.dumps(content).encode())
    assert "expected plain names" in pull(two)[0]
    assert tree(two.root) == {}


def test_records_at_places_that_no_host_has_are_not_read(host: Callable[[str], Desk]) -> None:
    desk = host("gpu-1")
    data = make_run(1).to_json().encode()
    for place in ("../run.json", "gpu-2/.hidden/run.json", "run.json", "gpu-2/a/notes.txt"):
        path = f"desk/.runs/{place}"
        desk.store._files.pipe_file(f"{desk.store.url.split('/')[2]}/{path}", data)
    assert read_runs(desk) == {}


def test_a_record_that_cannot_be_read_is_listed_as_broken_and_hides_no_other(
    s3: S3, bucket: str, host: Callable[[str], Desk]
) -> None:
    desk = host("gpu-1")
    write_run(desk.root, make_run(1, finding="Finding of one."))
    desk.store.write(".runs/gpu-2/2026-11-30/101500-01_bench-1a2b3c/run.json", b'{"schema": "x"}')
    publish(desk)
    page = s3.read(bucket, INDEX).decode()
    assert "Finding of one." in page
    assert "Its record cannot be read" in page
    assert plan_pull(host("gpu-3"), read_runs(desk).values())[0].actions[0].target.startswith("202")


def execute_to(address: str, tmp_path: Path, cell: str) -> None:
    """Execute a notebook with plain papermill, which writes it with its own handler."""
    source = tmp_path / "plain.ipynb"
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook = new_notebook(cells=[new_code_cell(cell)], metadata={"kernelspec": kernel})
    nbformat.write(notebook, source)
    papermill.execute_notebook(str(source), address, progress_bar=False)


def test_a_notebook_that_plain_papermill_wrote_to_the_desk_is_adopted(
    s3: S3, bucket: str, tmp_path: Path, host: Callable[[str], Desk]
) -> None:
    desk = host("gpu-1")
    write_run(desk.root, make_run(1))
    publish(desk)
    execute_to(f"s3://{bucket}/desk/monthly/bench.ipynb", tmp_path, "1 + 1")
    runs = read_runs(desk)
    assert find_plain(desk, runs) == ["monthly/bench.ipynb"]
    record = adopt_at_desk(desk, "monthly/bench.ipynb", runs, frozenset())
    assert (record.notebook, record.status) == ("bench", "finished")
    runs = build_desk_index(desk)
    assert find_plain(desk, runs) == []
    page = s3.read(bucket, INDEX).decode()
    assert "monthly/bench.html" in page
    assert "<td>unknown" in page
    assert b'href="../index.html"' in s3.read(bucket, "desk/monthly/bench.html")
    other = host("gpu-2")
    assert pull(other) == []
    assert {"monthly/bench.ipynb", "monthly/bench.html"} <= tree(other.root).keys()
    before = tree(other.root)
    build_index(other.root)
    assert {k: v for k, v in tree(other.root).items() if k in before} == before
    with pytest.raises(InputError, match=f"s3://{bucket}/desk/none.ipynb: there is no such"):
        adopt_at_desk(desk, "none.ipynb", runs, frozenset())


def test_a_notebook_that_was_never_executed_is_not_adopted(host: Callable[[str], Desk]) -> None:
    desk = host("gpu-1")
    text = nbformat.writes(new_notebook(cells=[new_code_cell("1")]))
    desk.store.write("plain.ipynb", text.encode())
    with pytest.raises(InputError, match=r"desk/plain.ipynb: was never executed"):
        adopt_at_desk(desk, "plain.ipynb", {}, frozenset())
    assert list(desk.store.list()) == ["plain.ipynb"]


def desk_project(tmp_path: Path, *cells: str, monkeypatch: Any, url: str) -> Config:
    monkeypatch.setenv("PILLSNAP_DESK__URL", url)
    monkeypatch.setenv("PILLSNAP_DESK__HOST", "gpu-1")
    return make_project(tmp_path / "project", *cells)


def pillops(config: Config, *words: str) -> Any:
    command = [sys.executable, "-m", "opslib.cli", *words, "--config", str(config.source)]
    return run_python(command)


def test_a_run_is_published_at_its_end_and_what_failed_by_the_next(
    s3: S3, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"s3://{bucket}/desk"
    config = desk_project(tmp_path, publish_cell(), monkeypatch=monkeypatch, url=url)
    with cutting(s3.port) as proxy:
        closed = proxy.address
    monkeypatch.setenv("AWS_ENDPOINT_URL", closed)
    answer = pillops(config, "run", "01_toy")
    assert answer.returncode == 0
    (line,) = [line for line in answer.stderr.splitlines() if "not published" in line]
    assert line == (
        "not published, `pillops report publish` will do it: "
        f"cannot list {url}/.runs: cannot be reached"
    )
    (run,) = scan_runs(config.report_dir)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.address)
    answer = pillops(config, "run", "01_toy")
    assert answer.returncode == 0
    assert f"published 2 runs: {url}/index.html" in answer.stderr
    assert run.href in s3.read(bucket, INDEX).decode()


def test_the_commands_say_what_they_would_do_and_do_it(
    s3: S3, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"s3://{bucket}/desk"
    config = desk_project(tmp_path, monkeypatch=monkeypatch, url=url)
    write_run(config.report_dir, make_run(1))
    answer = pillops(config, "report", "publish", "--dry-run")
    assert answer.returncode == 0
    assert "publish 2026-01-01/" in answer.stdout
    assert answer.stdout.endswith("dry run: nothing was changed\n")
    assert s3.objects(bucket) == {}
    answer = pillops(config, "report", "publish")
    assert answer.stdout.endswith(f"1 run of 1 host: {url}/index.html\n")
    monkeypatch.setenv("PILLSNAP_DESK__HOST", "gpu-2")
    other = make_project(tmp_path / "other")
    answer = pillops(other, "report", "pull", "--dry-run")
    assert "of gpu-1: Pass" in answer.stdout
    assert not other.report_dir.exists() or tree(other.report_dir) == {}
    assert pillops(other, "report", "pull").returncode == 0
    assert make_run(1).id in {row.id for row in scan_runs(other.report_dir)}
    answer = pillops(other, "report", "adopt", "s3://elsewhere/x.ipynb")
    assert answer.returncode == ExitCode.USAGE
    assert answer.stderr == f"error: s3://elsewhere/x.ipynb: lies outside the common desk {url}\n"


@pytest.mark.parametrize("words", [("report", "publish"), ("report", "pull"), ("report", "index")])
def test_a_desk_that_refuses_is_one_line_and_leaves_the_reports(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    url = "s3://no-such-bucket/desk"
    config = desk_project(tmp_path, monkeypatch=monkeypatch, url=url)
    write_run(config.report_dir, make_run(1))
    before = tree(config.report_dir)
    answer = pillops(config, *words)
    assert answer.returncode == ExitCode.USAGE
    said = answer.stderr + answer.stdout
    assert said.count("there is no such bucket") == 1
    assert "Traceback" not in said
    assert before.items() <= tree(config.report_dir).items()


def test_without_a_desk_nothing_is_said_and_the_commands_name_the_key(tmp_path: Path) -> None:
    config = make_project(tmp_path)
    assert publish_new(config, pytest.fail)
    with pytest.raises(ConfigError, match=r"desk.url: is not set; expected s3://bucket/prefix"):
        open_desk(config)


def test_the_report_folder_is_no_desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = make_project(tmp_path / "project").report_dir.as_uri()
    config = desk_project(tmp_path, monkeypatch=monkeypatch, url=url)
    with pytest.raises(ConfigError, match="own report folder"):
        open_desk(config)
