"""H-2: the rota covers every release over time, whatever is made, fails or stays broken."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from opslib.ops.release.record import Proof
from opslib.ops.release.rota import list_unproved, next_in_rota


def releases(count: int) -> list[str]:
    """Releases, the newest first."""
    return [f"release-{index:02d}" for index in reversed(range(count))]


def run_rota(
    store: list[str], history: list[Proof], turns: int, broken: frozenset[str] = frozenset()
) -> list[str]:
    """Run the rota and return whose turns it were."""
    taken = []
    for _ in range(turns):
        chosen = next_in_rota(store, history)
        assert chosen is not None
        ok = chosen not in broken
        history.append(Proof(release=chosen, content_id=None, proved_at_utc="", ok=ok, took_s=1.0))
        taken.append(chosen)
    return taken


@given(count=st.integers(1, 12), laps=st.integers(1, 4))
def test_as_many_runs_as_releases_prove_each_exactly_once(count: int, laps: int) -> None:
    store, history = releases(count), list[Proof]()
    for _ in range(laps):
        taken = run_rota(store, history, count)
        assert sorted(taken) == sorted(store)


@given(count=st.integers(1, 12), before=st.integers(0, 30))
def test_a_new_release_comes_first(count: int, before: int) -> None:
    store, history = releases(count), list[Proof]()
    run_rota(store, history, before)
    if list_unproved(store, history):
        run_rota(store, history, len(list_unproved(store, history)))
    new = "release-99"
    assert run_rota([new, *store], history, 1) == [new]


def test_of_several_never_tested_the_newest_comes_first() -> None:
    assert run_rota(releases(3), [], 3) == ["release-02", "release-01", "release-00"]


@given(count=st.integers(1, 12), at=st.integers(0, 11))
def test_a_failed_one_comes_back_first(count: int, at: int) -> None:
    store, history = releases(count), list[Proof]()
    bad = store[at % count]
    run_rota(store, history, count)
    while history[-1].release != bad:
        run_rota(store, history, 1)
    history[-1] = history[-1].model_copy(update={"ok": False})
    assert run_rota(["release-99", *store], history, 1) == [bad]


@given(count=st.integers(1, 10), data=st.data())
def test_releases_that_stay_broken_keep_no_other_from_being_tested(
    count: int, data: st.DataObject
) -> None:
    store, history = releases(count), list[Proof]()
    broken = frozenset(data.draw(st.sets(st.sampled_from(store))))
    taken = run_rota(store, history, 3 * count + 2, broken)
    assert set(taken) == set(store)
    again = run_rota(store, history, 3 * count + 2, broken)
    assert set(again) == set(store)
    assert set(list_unproved(store, history)) == broken


def test_a_repaired_release_takes_its_place_in_the_line() -> None:
    store, history = releases(3), list[Proof]()
    broken = frozenset({"release-01"})
    assert run_rota(store, history, 3, broken) == ["release-02", "release-01", "release-01"]
    assert run_rota(store, history, 4) == ["release-00", "release-01", "release-02", "release-00"]
    assert list_unproved(store, history) == ()


def test_without_releases_it_is_nobodys_turn() -> None:
    assert next_in_rota(list[str](), []) is None
