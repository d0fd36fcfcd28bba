from pathlib import Path

import pytest

from opslib.core.errors import InputError
from opslib.ops.bench.find_runs import check_newest, compare_runs, find_record
from tests.runs.makers import bench_row, make_bench, make_lineage, make_run, write_run


@pytest.fixture
def two_runs(tmp_path: Path) -> tuple[Path, Path, Path]:
    first = write_run(tmp_path, make_run(1), make_bench([bench_row(2.0)]))
    second = write_run(tmp_path, make_run(2), make_bench([bench_row(2.5)]))
    return tmp_path, first, second


def test_runs_are_named_by_id_by_its_end_by_folder_or_by_record(
    two_runs: tuple[Path, Path, Path],
) -> None:
    root, first, _ = two_runs
    record = next(first.glob("bench*.json"))
    names = (make_run(1).id, "000001", str(first), str(first / "run.json"), str(record))
    for name in names:
        assert find_record(name, root) == record


def test_two_runs_are_compared_row_by_row(two_runs: tuple[Path, Path, Path]) -> None:
    root, _, _ = two_runs
    assert compare_runs("000001", "000002", root).count("worse") == 1
    assert compare_runs("000002", "000001", root).count("better") == 1


def test_an_unknown_or_ambiguous_name_is_refused(two_runs: tuple[Path, Path, Path]) -> None:
    root, _, _ = two_runs
    with pytest.raises(InputError, match="no run is called"):
        find_record("nothing", root)
    write_run(root, make_run(3, id=f"{make_run(3).id[:-6]}000001"))
    with pytest.raises(InputError, match="several runs"):
        find_record("000001", root)
    bare = write_run(root, make_run(5))
    with pytest.raises(InputError, match="no bench record"):
        find_record(str(bare), root)


def test_the_check_takes_the_newest_run_and_the_last_one_of_its_host(
    two_runs: tuple[Path, Path, Path],
) -> None:
    root, first, second = two_runs
    other = make_run(3, lineage=make_lineage("ffffffffffff"))
    third = write_run(root, other, make_bench())
    with pytest.raises(InputError, match="no earlier benchmark on this host"):
        check_newest(root)
    write_run(root, make_run(4, status="timeout", exit_code=5), make_bench())
    (third / "run.json").unlink()
    what, comparison = check_newest(root)
    assert what == f"{second.name} against 1 run before it"
    assert comparison.count("worse") == 1
    assert check_newest(root, "000002")[0] == f"{second.name} against {second.name}"
    assert check_newest(root, "000001")[0] == f"{second.name} against {first.name}"


def test_a_run_dated_after_now_is_not_the_one_that_is_checked(
    two_runs: tuple[Path, Path, Path],
) -> None:
    root, _, second = two_runs
    write_run(root, make_run(3, started="2090-01-01T10:00:00Z"), make_bench([bench_row(2.0)]))
    assert check_newest(root)[0] == f"{second.name} against 1 run before it"


def test_a_run_that_cannot_be_read_is_left_out_and_named(
    two_runs: tuple[Path, Path, Path],
) -> None:
    root, first, second = two_runs
    third = write_run(root, make_run(3), make_bench([bench_row(2.5)]))
    next(second.glob("bench*.json")).write_text('{"schema": "bench", "version": 99}')
    what, comparison = check_newest(root)
    assert what == f"{third.name} against 1 run before it"
    assert comparison.notes == (f"left out, as it cannot be read: {make_run(2).id}",)
    next(first.glob("bench*.json")).write_text("{")
    with pytest.raises(InputError, match=r"no earlier benchmark on this host; .* cannot be read"):
        check_newest(root)


def test_a_check_without_a_benchmark_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="pillops run bench"):
        check_newest(tmp_path)
