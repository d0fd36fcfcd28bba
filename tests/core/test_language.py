"""One catalogue has all that people are told; figures and names are the same in both languages."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from string import Formatter
from typing import Any

import pytest
from babel.messages.catalog import Catalog, Message
from babel.messages.extract import extract_from_dir
from babel.messages.frontend import parse_keywords
from babel.messages.pofile import read_po

from opslib.core import language
from opslib.core.config import load_config
from opslib.core.errors import ConfigError, InputError, ParameterError
from opslib.core.language import (
    LOCALE,
    language_in_force,
    name_some,
    tr,
    tr_many,
    use_language,
)
from opslib.core.sections import BenchSection
from opslib.ops.bench.attribution import Moved, attribute
from opslib.ops.bench.compare import compare_records
from opslib.ops.bench.finding import sum_up
from opslib.ops.bench.record import BenchRecord
from opslib.ops.fleet.record import FleetHost
from opslib.ops.fleet.run import judge
from opslib.ops.quantize import finding as quantize
from opslib.ops.quantize.record import QuantizeRecord
from opslib.ops.release.record import Proof, ProofRecord, RotaRecord
from opslib.ops.sweep.record import SweepRecord
from opslib.ops.sweep.rows import UNTIMED, sum_up_sweep
from tests.korean import find_english, in_korean, list_figures
from tests.models import write_config
from tests.ops.drill.test_verdict import GOOD
from tests.ops.drill.test_verdict import judge as judge_drill
from tests.runs.makers import bench_row, make_bench, make_lineage

ROOT = Path(__file__).resolve().parents[2]
CITED = ROOT / "reports" / "cited"
CATALOGUE = LOCALE / "ko" / "LC_MESSAGES" / "pillops.po"
PARTICLES = re.compile(r"(?:은\(는|는\(은|이\(가|가\(이|을\(를|를\(을|와\(과|과\(와|\(으\)로)")
MessageId = str | tuple[str, ...]


def find_messages() -> set[MessageId]:
    """Every message in the sources, as `make catalogue` finds them."""
    options = re.search(r"pybabel .*extract .*-k '(.*?)'", (ROOT / "Makefile").read_text())
    assert options is not None
    mappings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["babel"]["mappings"]
    found = extract_from_dir(
        ROOT / "opslib",
        [(one["pattern"].removeprefix("opslib/"), one["method"]) for one in mappings],
        keywords=parse_keywords(options[1].split()),
    )
    return {message for _, _, message, _, _ in found}


@pytest.fixture(scope="module")
def catalogue() -> Catalog:
    with CATALOGUE.open("rb") as file:
        return read_po(file, "ko")


@pytest.fixture(scope="module")
def messages(catalogue: Catalog) -> list[Message]:
    return [one for one in catalogue if one.id]


def translation(message: Message) -> str:
    told = message.string or ""
    return told if isinstance(told, str) else told[0]


def test_every_message_of_the_sources_is_in_the_catalogue_and_no_other(
    messages: list[Message], catalogue: Catalog
) -> None:
    there, wanted = {one.id for one in messages}, find_messages()
    assert wanted - there == set(), "run `make catalogue` and translate what it adds"
    assert there - wanted == set(), "run `make catalogue`: no source says these any more"
    assert not catalogue.obsolete


def test_every_message_has_a_translation_that_somebody_meant(messages: list[Message]) -> None:
    bare = [one.id for one in messages if not translation(one).strip() or one.fuzzy]
    assert not bare


def fields(text: str) -> set[tuple[str, str, str | None]]:
    parts = Formatter().parse(text)
    return {(name, spec or "", turned) for _, name, spec, turned in parts if name is not None}


def test_what_is_put_into_a_message_is_put_into_its_translation(messages: list[Message]) -> None:
    for one in messages:
        english = one.id if isinstance(one.id, str) else one.id[1]
        assert fields(english) == fields(translation(one)), english


def test_commands_and_figures_of_a_message_are_those_of_its_translation(
    messages: list[Message],
) -> None:
    for one in messages:
        english = one.id if isinstance(one.id, str) else one.id[1]
        commands = re.findall(r"`([^`]+)`", english)
        assert sorted(re.findall(r"`([^`]+)`", translation(one))) == sorted(commands), english
        assert list_figures(translation(one)) == list_figures(english), english


def test_no_translation_has_english_words_or_leaves_a_particle_open(
    messages: list[Message],
) -> None:
    for one in messages:
        assert not find_english(translation(one)), translation(one)
        assert not PARTICLES.search(translation(one)), translation(one)


def find_calls(tree: ast.AST) -> list[ast.Call]:
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [one for one in calls if getattr(one.func, "id", "") in ("tr", "tr_many", "mark")]


def test_a_message_stands_where_it_is_found() -> None:
    """What an f-string or a sum makes is in no catalogue, nor what is said within an f-string."""
    for path in (ROOT / "opslib").rglob("*.py"):
        source = path.read_text()
        if "core.language import" not in source:
            continue
        tree = ast.parse(source)
        for call in find_calls(tree):
            made = isinstance(call.args[0], ast.JoinedStr | ast.BinOp)
            assert not made, f"{path}:{call.lineno}"
        for text in (node for node in ast.walk(tree) if isinstance(node, ast.FormattedValue)):
            inner = [one for one in find_calls(text) if isinstance(one.args[0], ast.Constant)]
            assert not inner, f"{path}:{text.lineno}"


def test_the_default_is_english(tmp_path: Path) -> None:
    use_language("ko")
    config = load_config(write_config(tmp_path), {})
    assert (config.language, language_in_force()) == ("en", "en")
    assert tr("{names} failed", names="A") == "A failed"


def test_the_configuration_and_its_variable_put_korean_in_force(tmp_path: Path) -> None:
    load_config(write_config(tmp_path, "language: ko\n"), {})
    assert tr("{names} failed", names="Disks") == "실패한 항목: Disks"
    load_config(write_config(tmp_path), {"PILLSNAP_LANGUAGE": "ko"})
    assert tr_many("{count:,} run", "{count:,} runs", 1) == "실행 1건"
    assert tr_many("{count:,} run", "{count:,} runs", 2000) == "실행 2,000건"
    load_config(write_config(tmp_path, "language: ko\n"), {"PILLSNAP_LANGUAGE": "en"})
    assert language_in_force() == "en"


@pytest.mark.parametrize("given", ["fr", "KO", "ko_KR", "../ko", "null"])
def test_another_language_is_refused_by_name(tmp_path: Path, given: str) -> None:
    with pytest.raises(ConfigError, match=r"language: got .*'en' or 'ko'"):
        load_config(write_config(tmp_path, f"language: {given}\n"), {})
    with pytest.raises(ConfigError, match=r"PILLSNAP_LANGUAGE \(language\): got .*'en' or 'ko'"):
        load_config(write_config(tmp_path), {"PILLSNAP_LANGUAGE": given})
    with pytest.raises(ParameterError, match="expected one of en, ko"):
        use_language(given)  # type: ignore[arg-type]


def test_english_loads_no_more_than_before_and_korean_only_babel(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    code = (
        "import sys; from opslib.core.config import load_config; import opslib.telling.doors;"
        f"load_config({str(config)!r}); print(*sys.modules)"
    )

    def loaded(language: str) -> set[str]:
        answer = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PILLSNAP_LANGUAGE": language},
            capture_output=True,
            text=True,
            check=True,
        )
        return {name.partition(".")[0] for name in answer.stdout.split()}

    english, korean = loaded("en"), loaded("ko")
    assert "babel" not in english
    assert "babel" in korean
    assert not (korean - english) & {"jinja2", "numpy", "pandas", "IPython"}


def test_a_terminal_without_korean_shows_the_figures_and_ends_as_it_should(tmp_path: Path) -> None:
    config = write_config(tmp_path, "language: ko\n")
    answer = subprocess.run(
        [sys.executable, "-m", "opslib.cli", "doctor", "--config", config],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=False,
    )
    assert b"Traceback" not in answer.stderr
    assert answer.returncode in (0, 3)
    assert b"?" in answer.stdout


def test_a_catalogue_that_is_no_text_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ko" / "LC_MESSAGES" / "pillops.po"
    path.parent.mkdir(parents=True)
    path.write_bytes("말".encode("euc-kr"))
    monkeypatch.setattr(language, "LOCALE", tmp_path)
    language._read_catalogue.cache_clear()
    with pytest.raises(InputError, match=r"pillops\.po: cannot be read: .*; install the package"):
        use_language("ko")


def test_a_text_that_is_no_message_stays_as_it_is() -> None:
    with in_korean():
        assert tr("a {brace} of somebody's own") == "a {brace} of somebody's own"
        assert tr("") == ""


def test_names_are_put_together_and_the_rest_counted() -> None:
    assert name_some(["a"]) == "a"
    assert name_some(["a", "b", "c"]) == "a, b and c"
    assert name_some(["a", "b", "c", "d"]) == "a, b and 2 more"
    with in_korean():
        assert name_some(["a", "b", "c", "d"]) == "a, b, 그 외 2개"


def read_bench() -> BenchRecord:
    return BenchRecord.read(sorted(CITED.glob("*-01_bench-*/bench_*.json"))[-1])


def tell_bench() -> str:
    one = read_bench()
    return sum_up(one.rows, one.comparisons, one.parity, one.verdict, BenchSection())


def tell_undecided_bench() -> str:
    one = read_bench()
    rows = [row.model_copy(update={"status": "inconclusive"}) for row in one.rows]
    rounds = one.comparisons[0].comparison.model_copy(
        update={"verdict": "inconclusive", "run_delay_pct": 50.0}
    )
    disturbed = one.comparisons[0].model_copy(update={"comparison": rounds})
    compared = [disturbed, *one.comparisons[1:]]
    told = [
        sum_up(rows, pairs, one.parity, verdict, BenchSection(), [UNTIMED])
        for pairs, verdict in ((compared, "inconclusive"), ([disturbed], "fail"))
    ]
    return " ".join(told)


def tell_broken_bench() -> str:
    rows = [bench_row(1.0, status="unavailable", latency_ms=None, reason="CUDA 12.1")]
    return sum_up(rows, [], None, "inconclusive", BenchSection())


def tell_change() -> str:
    old = make_bench([bench_row(2.0), bench_row(5.0, batch_size=8)])
    new = make_bench([bench_row(4.0), bench_row(2.0, batch_size=8)])
    return compare_records(old, new).summary


def tell_hosts() -> str:
    new = make_bench(lineage=make_lineage(name="A"))
    return compare_records(make_bench(lineage=make_lineage(name="B")), new).summary


def tell_attribution() -> str:
    moved = [Moved(engine, 3.1, True, -4.2, 0.5) for engine in ("onnx", "torch")]
    return str(attribute(moved)) + str(attribute([Moved("onnx", 0.0, False, 5.0, 9.0, 4.0)]))


def tell_quantize() -> str:
    one = QuantizeRecord.read(next(CITED.glob("*-03_quantize-*/quantize_*.json")))
    told = [quantize.sum_up(one.rows, one.gated_row, row) for row in one.rows]
    return " ".join([*told, *(quantize.explain(row, one.baseline) for row in one.rows)])


def tell_sweep(*, decided: bool = True) -> str:
    one = SweepRecord.read(next(CITED.glob("*-02_ort_sweep-*/ort_bench_*.json")))
    assert one.recommended is not None
    batch = next(b for b in one.batches if b.batch_size == one.recommended.batch_size)
    reason = {"reason": UNTIMED}  # what a library said is not ours to translate
    rows = [row.model_copy(update=reason) if row.reason else row for row in one.rows]
    return sum_up_sweep(one.recommended, batch, rows, 2.0, decided=decided)


def tell_drill(**changes: Any) -> str:
    return str(judge_drill(replace(GOOD, **changes))[2])


def tell_release() -> str:
    lineage = make_lineage()
    tests = [
        ProofRecord(
            lineage=lineage,
            release=f"release-{number}",
            size_bytes=1,
            steps=(),
            proof=Proof(
                release=f"release-{number}",
                content_id=None,
                proved_at_utc="",
                ok=number != 3,
                problem="4 KiB" if number == 3 else None,
                took_s=number + 0.25,
            ),
        )
        for number in (1, 2, 3)
    ]
    record = RotaRecord(
        lineage=lineage, releases=(), unproved_before=(), unproved_after=(), tests=tuple(tests)
    )
    return " ".join([record.finding, *(one.finding for one in tests)])


def tell_fleet() -> str:
    host = FleetHost(
        name="gpu1",
        hardware="one",
        runs=3,
        last_utc="2026-11-23T15:00:00+00:00",
        silent_days=9.0,
        is_silent=True,
        speed=None,
        why="",
        served=(),
        behind=("1 newer",),
    )
    hosts = [host, *(host.model_copy(update={"name": f"gpu{n}"}) for n in (2, 3, 4))]
    alike = host.model_copy(update={"name": "gpu5", "speed": "alike", "is_silent": False})
    return judge([*hosts, alike], ())[1]


TOLD: list[Callable[[], str]] = [
    tell_bench,
    tell_undecided_bench,
    tell_broken_bench,
    tell_change,
    tell_hosts,
    tell_attribution,
    tell_quantize,
    tell_sweep,
    lambda: tell_sweep(decided=False),
    tell_drill,
    lambda: tell_drill(failed=1, longest_stall_ms=1200.0, recovery_s=None, events=GOOD.events[:1]),
    lambda: tell_drill(windows=GOOD.windows[:1]),
    tell_release,
    tell_fleet,
]


@pytest.mark.parametrize("tell", TOLD)
def test_a_verdict_in_korean_has_the_same_figures_and_no_english(tell: Callable[[], str]) -> None:
    english = tell()
    with in_korean():
        korean = tell()
    assert list_figures(korean) == list_figures(english), (english, korean)
    left = set(find_english(korean)) - {"release"}
    assert not left, korean
    assert re.search("[가-힣]", korean)
