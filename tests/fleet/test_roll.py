"""H-7: a model is rolled over real services, one after the other, and taken back as a whole."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from opslib.core.cards import card_path, read_card
from opslib.core.models import find_model_files
from opslib.serving.keys import make_key
from opslib.serving.staging import start_service
from tests.serving.conftest import Live, make_place, open_live, write_carded
from tests.two_stage import make_two_stage
from tests.waiting import await_that

ROOT = Path(__file__).resolve().parents[2]
ANSIBLE = Path(sys.executable).with_name("ansible-playbook")
NAMES = ("one", "two", "three")
# Each of a roll's module processes compiles what it imports, anew, from an archive that it is sent. A
# host's interpreter that has imported the same files, compiled once, is twice as fast. The package
# itself must be the archive's, which has the modules of the playbook.
PREPARED = f"""#!{sys.executable} -I
import sys
import ansible.module_utils.basic
del sys.modules["ansible"]
exec(compile(sys.stdin.read(), "<stdin>", "exec"), {{"__name__": "__main__"}})
"""


@dataclass(frozen=True)
class Fleet:
    """Three services with the older model, the newer one on the controller, an inventory."""

    folder: Path
    hosts: dict[str, Live]
    model: Path

    @property
    def wanted(self) -> str:
        """The digest of the model that is rolled."""
        return find_model_files(self.model).digest()

    @property
    def served(self) -> dict[str, object]:
        """The digest that each host serves."""
        return {name: live.version["model_sha256"] for name, live in self.hosts.items()}

    @property
    def generations(self) -> list[object]:
        """How often each host was switched."""
        return [live.version["generation"] for live in self.hosts.values()]

    @property
    def notes(self) -> list[Path]:
        """Notes that a roll left on the hosts."""
        return list(self.folder.glob("*/.roll-*.json"))

    def command(self, *words: str) -> list[str]:
        """The command line of a roll."""
        playbook = str(ROOT / "fleet" / "roll.yml")
        model = ["-e", f"model={self.model}"]
        return [str(ANSIBLE), "-i", str(self.folder / "hosts.yml"), playbook, *model, *words]

    def roll(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Roll the model; no key may ever stand in what it prints."""
        answer = subprocess.run(
            self.command(*words),
            capture_output=True,
            text=True,
            env=environment(self.folder),
            timeout=240,
            check=False,
        )
        for live in self.hosts.values():
            assert live.service.key not in answer.stdout + answer.stderr
        return answer

    def write_inventory(
        self, *names: str, plain: bool = False, **changes: dict[str, object]
    ) -> None:
        """Write the inventory: the example's variables, these hosts (or all), changes by host;
        `plain` for modules that run as a host without Ansible runs them."""
        example = yaml.safe_load((ROOT / "fleet" / "hosts.example.yml").read_text())["services"]
        hosts = {
            name: {
                "service_url": live.service.url,
                "env_file": str(live.place.config_path.with_name(".env")),
                "model_dir": str(live.place.export),
                **changes.get(name, {}),
            }
            for name, live in self.hosts.items()
            if name in (names or NAMES)
        }
        interpreter = sys.executable if plain else str(self.folder / "python")
        local = {"ansible_connection": "local", "ansible_python_interpreter": interpreter}
        content = {"services": {"hosts": hosts, "vars": {**example["vars"], **local}}}
        (self.folder / "hosts.yml").write_text(yaml.safe_dump(content, sort_keys=False))


def environment(folder: Path) -> dict[str, str]:
    return {
        **os.environ,
        "ANSIBLE_HOME": str(folder / "ansible"),
        "ANSIBLE_LOCAL_TEMP": str(folder / "ansible" / "tmp"),
        "ANSIBLE_REMOTE_TEMP": str(folder / "ansible" / "tmp"),
        "ANSIBLE_PIPELINING": "1",
        "ANSIBLE_NOCOLOR": "1",
    }


def take_newer_away(live_place: Path, store: Path) -> None:
    """Move the newer model, with all that belongs to it, from a host to the controller."""
    export = live_place / "exp" / "export"
    newer = export / "model-b.onnx"
    store.mkdir(exist_ok=True)
    shutil.copytree(export / "golden", store / "golden", dirs_exist_ok=True)
    (export / "latest.onnx").unlink()
    for path in (*find_model_files(newer).all, card_path(newer)):
        shutil.move(path, store / path.name)
    card = read_card(store / newer.name)
    assert card is not None
    card.model_copy(update={"golden": card.golden[:1]}).write(card_path(store / newer.name))


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("fleet")
    (folder / "python").write_text(PREPARED)
    (folder / "python").chmod(0o755)
    with ExitStack() as stack:
        hosts = {}
        for name in NAMES:
            place = make_place(folder / name)
            key = make_key()
            place.config_path.with_name(".env").write_text(f"API_KEY={key}\n")
            take_newer_away(folder / name, folder / "store")
            variables = {"API_KEY": key, "RATE_LIMIT_PER_MIN": "1000000"}
            service = stack.enter_context(start_service(place.config_path, variables=variables))
            hosts[name] = open_live(service, place)
            stack.callback(hosts[name].client.close)
        yield Fleet(folder, hosts, folder / "store" / "model-b.onnx")


@pytest.fixture(autouse=True)
def _as_before(fleet: Fleet) -> None:
    """Each test finds every host with the older model and nothing delivered."""
    fleet.write_inventory()
    for live in fleet.hosts.values():
        live.reload(live.place.first)
        for path in live.place.export.glob("model-b*"):
            path.unlink()
    for note in fleet.notes:
        note.unlink()


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
