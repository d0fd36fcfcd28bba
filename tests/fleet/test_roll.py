"""H-7: a model is rolled over real services, one after the other, and taken back as a whole."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from opslib.core.cards import read_card
from tests.fleet.playing import Fleet, environment, open_fleet
from tests.serving.conftest import write_carded
from tests.two_stage import make_two_stage
from tests.waiting import await_that


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with open_fleet(tmp_path_factory.mktemp("fleet")) as fleet:
        yield fleet


@pytest.fixture(autouse=True)
def _as_before(fleet: Fleet) -> None:
    """Each test finds every host with the older model and nothing delivered."""
    fleet.put_back()


# A host whose service does not know the field refuses every switch.
REFUSES = {"request_field": "classification_path"}


def test_every_host_is_switched_and_a_second_roll_touches_none(fleet: Fleet) -> None:
    card = read_card(fleet.model)
    assert card is not None
    assert len(card.files) == 2, "the model has a weights file beside it"
    fleet.write_inventory("one", "two")
    rolled = fleet.roll()
    assert rolled.returncode == 0, rolled.stdout
    assert (fleet.served["one"], fleet.served["two"]) == (fleet.wanted, fleet.wanted)
    assert fleet.notes == []
    before = fleet.generations
    again = fleet.roll()
    assert again.returncode == 0, again.stdout
    assert again.stdout.count("serves it already: skipped") == 2
    assert fleet.generations == before


def test_a_host_that_fails_takes_those_before_it_back(fleet: Fleet) -> None:
    before = fleet.served
    fleet.write_inventory(three=REFUSES)
    rolled = fleet.roll()
    assert rolled.returncode == 2
    assert "three was not switched: /reload answered 422" in " ".join(rolled.stdout.split())
    assert "Every host serves what it served before: one, two, three" in rolled.stdout
    assert fleet.served == before
    assert fleet.notes == []


def test_a_wrong_golden_answer_is_enough_to_take_the_host_back(fleet: Fleet) -> None:
    before = fleet.served
    fleet.write_inventory("one")
    card = read_card(fleet.model)
    assert card is not None
    golden = card.golden[0].model_copy(update={"class_id": (card.golden[0].class_id + 1) % 3})
    rolled = fleet.roll("-e", json.dumps({"golden": golden.model_dump()}))
    assert rolled.returncode == 2
    assert f"/version says {fleet.wanted[:12]}, wanted {fleet.wanted[:12]}" in rolled.stdout
    assert fleet.served == before


def test_a_roll_that_was_cut_off_goes_on_and_can_still_be_taken_back(fleet: Fleet) -> None:
    before = fleet.served
    fleet.write_inventory("one", "two")
    process = subprocess.Popen(
        fleet.command(),
        env=environment(fleet.folder),
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    await_that(
        lambda: fleet.hosts["one"].version["model_sha256"] == fleet.wanted, "the first switch", 120
    )
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert fleet.served["two"] == before["two"]
    assert ".roll-one.json" in [note.name for note in fleet.notes]

    generation = fleet.hosts["one"].version["generation"]
    fleet.write_inventory("one", "two", two=REFUSES)
    failed = fleet.roll()
    assert failed.returncode == 2
    assert "serves it already: skipped" in failed.stdout
    assert fleet.served == before
    assert fleet.hosts["one"].version["generation"] == generation + 1  # type: ignore[operator]
    assert fleet.notes == []


def test_a_check_shows_what_would_happen_and_changes_nothing(fleet: Fleet) -> None:
    before, generations = fleet.served, fleet.generations
    fleet.write_inventory("one", "two", plain=True)
    checked = fleet.roll("--check")
    assert checked.returncode == 0, checked.stdout
    assert checked.stdout.count("would switch from") == 2
    assert (fleet.served, fleet.generations, fleet.notes) == (before, generations, [])
    assert not list(fleet.folder.glob("*/exp/export/model-b*"))


def test_a_host_that_does_not_answer_stops_the_roll_before_the_first_switch(fleet: Fleet) -> None:
    before, generations = fleet.served, fleet.generations
    fleet.write_inventory("one", "two", two={"service_url": "http://127.0.0.1:9"})
    rolled = fleet.roll()
    assert rolled.returncode == 2
    assert "no host was changed" in rolled.stdout
    assert (fleet.served, fleet.generations) == (before, generations)


def test_a_file_that_is_not_the_cards_stops_the_roll_before_the_first_switch(
    fleet: Fleet,
) -> None:
    damaged = fleet.folder / "damaged" / fleet.model.name
    shutil.copytree(fleet.model.parent, damaged.parent, dirs_exist_ok=True)
    weights = damaged.with_name("model-b.onnx.data")
    weights.write_bytes(bytes([weights.read_bytes()[0] ^ 1]) + weights.read_bytes()[1:])
    generations = fleet.generations
    fleet.write_inventory("one")
    rolled = Fleet(fleet.folder, fleet.hosts, damaged).roll("-e", "shared=true")
    assert rolled.returncode == 2
    assert "model-b.onnx.data: missing there, or another file" in rolled.stdout
    assert fleet.generations == generations


def test_a_two_stage_host_without_digests_is_gated_by_path_and_golden_answer(
    fleet: Fleet, tmp_path: Path
) -> None:
    """The first passes the gate; the second says ok and does nothing, so both are as before."""
    model = fleet.model.with_name("classification-20261109-000000-abc1234.onnx")
    write_carded(model, sorted((fleet.model.parent / "golden").iterdir())[:1], seed=9)
    fields = {
        "request_field": "classification_path",
        "path_field": "classification_model_path",
        "digest_field": "classification_model_sha256",
    }
    places = {name: make_two_stage(tmp_path / name) for name in ("two", "three")}
    with places["two"].serve() as honest, places["three"].serve(lies=True) as liar:
        hosts = {
            name: {
                "service_url": service.url,
                "env_file": str(service.root / ".env"),
                "model_dir": str(places[name].export),
                **fields,
            }
            for name, service in (("two", honest), ("three", liar))
        }
        fleet.write_inventory("two", "three", **hosts)
        before, delivered = honest.live, places["two"].export / model.name
        rolled = Fleet(fleet.folder, fleet.hosts, model).roll()
        assert rolled.returncode == 2
        said = " ".join(rolled.stdout.split())
        serves = f"/version says {liar.live['classification']}, wanted"
        assert f"three was not switched: /reload answered 200 ; {serves}" in said
        assert "Every host serves what it served before: two, three" in said
        asked = [delivered, before["classification"]]
        assert honest.asked == [{"classification_path": str(path)} for path in asked]
        assert honest.live == before
        assert not list(tmp_path.glob("*/.roll-*"))
