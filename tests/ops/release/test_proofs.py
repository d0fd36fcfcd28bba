"""H-2: the history of restore tests is kept whole, and says of each release when it was proved."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from opslib.core.config import Config, load_config
from opslib.core.errors import InputError
from opslib.ops.release.record import (
    Proof,
    add_proof,
    describe_last,
    proofs_of,
    proofs_path,
    read_proofs,
)
from opslib.ops.release.rota import list_unproved
from tests.models import write_config


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return load_config(write_config(tmp_path), {})


def proof(release: str, *, ok: bool = True, content_id: str | None = None, at: int = 1) -> Proof:
    return Proof(
        release=release,
        content_id=content_id,
        proved_at_utc=f"2026-11-{at:02d}T02:00:00+00:00",
        ok=ok,
        problem=None if ok else "verify: a byte differs",
        took_s=1.5,
    )


def test_nothing_was_proved_before_the_first_test(config: Config) -> None:
    assert read_proofs(config) == ()


def test_proofs_are_kept_in_the_order_in_which_they_ended(config: Config) -> None:
    for name in ("a", "b", "a"):
        add_proof(config, proof(name))
    assert [one.release for one in read_proofs(config)] == ["a", "b", "a"]


def test_two_tests_that_end_at_once_are_both_kept(config: Config) -> None:
    names = [f"release-{index}" for index in range(12)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda name: add_proof(config, proof(name)), names))
    assert sorted(one.release for one in read_proofs(config)) == sorted(names)


def test_a_damaged_history_is_named_and_never_overwritten(config: Config) -> None:
    path = proofs_path(config)
    path.parent.mkdir(parents=True)
    path.write_text("{")
    with pytest.raises(InputError, match=r"proofs\.json.*move it away"):
        read_proofs(config)
    with pytest.raises(InputError):
        add_proof(config, proof("a"))
    assert path.read_text() == "{"


def test_a_proof_of_other_content_is_no_proof_of_this_release() -> None:
    history = (proof("a", content_id="1" * 64), proof("a", content_id="2" * 64), proof("a"))
    assert proofs_of(history, "a", "2" * 64) == history[1:]
    assert proofs_of(history, "b") == ()


def test_a_release_that_could_not_be_asked_is_neither_passed_nor_failed() -> None:
    assert proof("a").verdict == "pass"
    assert proof("a", ok=False).verdict == "fail"
    asked_nothing = proof("a").model_copy(update={"note": "no golden images"})
    assert asked_nothing.verdict == "inconclusive"


def test_the_last_test_of_a_release_is_told_in_a_word() -> None:
    history = (proof("a", at=1), proof("b", ok=False, at=2), proof("a", at=3), proof("c"))
    assert describe_last(history, "a") == "2026-11-03"
    assert describe_last(history, "b") == "FAILED 2026-11-02"
    assert describe_last(history, "d") == "never"


def test_a_release_that_could_not_be_asked_is_not_proved_wherever_that_is_said() -> None:
    silent = proof("a", at=4).model_copy(update={"note": "no golden images"})
    assert silent.standing == "not asked"
    assert describe_last((silent,), "a") == "not asked 2026-11-04"
    assert list_unproved(["a"], (silent,)) == ("a",)
    assert list_unproved(["a"], (silent, proof("a", at=5))) == ()
