"""H-7: a release rolled over hosts, the maintenance and the benchmark on every host."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from opslib.core.models import find_model_files
from tests.docs.commands import make_doors
from tests.fleet.playing import ANSIBLE, ROOT, Fleet, environment, open_fleet
from tests.running import run_python
from tests.serving.conftest import make_place

# In place of a benchmark of minutes: says when it began and ended, and ends as the host wants.
MEASURES = """#!/bin/sh
for word; do case "$word" in *.yaml) place="${word%/*}";; esac; done
echo "begin $place" >> "$0.log"
mkdir -p "$place/reports/run"; echo "{}" > "$place/reports/run/run.json"
echo "end $place" >> "$0.log"
echo "report: $place/reports/run/run.html"
exit "$(cat "$place/code")"
"""


@dataclass(frozen=True)
class Playing:
    """Two hosts with real services, and a checkout that both have."""

    fleet: Fleet
    release: Path

    @property
    def code_root(self) -> Path:
        return self.fleet.folder / "code"

    def play(self, playbook: str, *words: str) -> tuple[int, str]:
        """Run a playbook of the fleet; return the exit status and what was said, in one line."""
        answer = subprocess.run(
            [
                *(str(ANSIBLE), "-i", str(self.fleet.folder / "hosts.yml")),
                *(str(ROOT / "fleet" / f"{playbook}.yml"), *words),
            ],
            env=environment(self.fleet.folder) | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        return answer.returncode, " ".join((answer.stdout + answer.stderr).split())

    def write_inventory(self, **changes: dict[str, object]) -> None:
        """Write the inventory of `one` and `two`, which are on one machine."""
        hosts = {}
        for name in ("one", "two"):
            place = self.fleet.hosts[name].place
            hosts[name] = {
                "machine": "box",
                "code_root": str(self.code_root),
                "config_file": str(place.config_path),
                "exp_dir": str(place.config.exp_dir),
                **changes.get(name, {}),
            }
        self.fleet.write_inventory("one", "two", **hosts)


@pytest.fixture(scope="module")
def _playing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Playing]:
    folder = tmp_path_factory.mktemp("fleet")
    with open_fleet(folder) as fleet:
        (folder / "code").mkdir()
        make_doors(folder / "code")
        (folder / "code" / "scripts").unlink()  # a link of it would be another checkout's
        shutil.copytree(ROOT / "scripts", folder / "code" / "scripts")
        maker = make_place(folder / "maker")
        words = ["-m", "opslib.cli", "release", "create", "--only", "--allow-missing-metrics"]
        given = ["--onnx", str(maker.second), "--config", str(maker.config_path)]
        made = run_python([sys.executable, *words, *given], cwd=ROOT, check=True)
        yield Playing(fleet, Path(made.stdout.strip()))


@pytest.fixture
def playing(_playing: Playing) -> Playing:
    _playing.fleet.put_back()
    _playing.write_inventory()
    return _playing


def test_a_release_that_is_only_shown_or_arrives_damaged_changes_no_host(playing: Playing) -> None:
    fleet = playing.fleet
    before = fleet.served
    code, said = playing.play("release", "-e", f"release={playing.release}", "--check")
    assert code == 0, said
    assert said.count("would switch from") == 2
    assert fleet.served == before
    stores = [fleet.hosts[name].place.config.exp_dir / "releases" for name in ("one", "two")]
    assert not any(store.exists() for store in stores)

    damaged = fleet.folder / "damaged" / playing.release.name
    damaged.parent.mkdir()
    damaged.write_bytes(playing.release.read_bytes() + b"\0")
    checksum = playing.release.with_name(f"{playing.release.name}.sha256").read_text()
    damaged.with_name(f"{damaged.name}.sha256").write_text(checksum)
    code, said = playing.play("release", "-e", f"release={damaged}")
    assert code == 2
    assert f"one: {fleet.hosts['one'].place.config.exp_dir}/releases/{damaged.name} is not" in said
    assert fleet.served == before


def test_a_release_is_verified_and_restored_on_each_host_and_its_model_rolled(
    playing: Playing,
) -> None:
    fleet = playing.fleet
    code, said = playing.play("release", "-e", f"release={playing.release}")
    assert code == 0, said
    restored = fleet.hosts["two"].place.config.exp_dir / "releases" / "restored"
    model = restored / playing.release.name.removesuffix(".tar.gz") / "export" / "model-b.onnx"
    assert fleet.hosts["two"].version["model_path"] == str(model)
    assert fleet.served["one"] == fleet.served["two"] == find_model_files(model).digest()


def test_the_maintenance_cleans_each_host_and_shows_it_first(playing: Playing) -> None:
    logs = [playing.fleet.hosts[name].place.config.exp_dir / "logs" for name in ("one", "two")]
    old = []
    for folder in logs:
        (folder / "archive").mkdir(exist_ok=True)
        old.append(folder / "archive" / "train.out.gz")
        old[-1].write_bytes(b"")
        subprocess.run(["touch", "-d", "40 days ago", str(old[-1])], check=True)
    code, said = playing.play("maintain", "--check")
    assert code == 0, said
    assert said.count("dry run: nothing was changed") == 2
    assert "changed=0" in said
    assert all(path.exists() for path in old)

    playing.write_inventory(two={"config_file": "/nowhere/config.yaml"})
    code, said = playing.play("maintain")
    assert code == 2
    assert "two: the maintenance ended with 2: error: /nowhere/config.yaml" in said
    assert [path.exists() for path in old] == [False, True]


def test_services_of_one_machine_take_turns_and_a_verdict_that_is_open_is_no_failure(
    playing: Playing,
) -> None:
    door = playing.fleet.folder / "stub" / ".venv" / "bin" / "python"
    door.parent.mkdir(parents=True)
    door.write_text(MEASURES)
    door.chmod(0o755)
    for name, verdict in (("one", 4), ("two", 3)):
        place = playing.fleet.hosts[name].place.config_path.parent
        (place / "code").write_text(str(verdict))
    stub = {"code_root": str(playing.fleet.folder / "stub")}
    playing.write_inventory(one=stub, two=stub)
    records = playing.fleet.folder / "records"
    code, said = playing.play("bench", "-e", f"records_dir={records}")
    assert code == 2
    assert "two: ended with 3" in said
    assert "one: ended with" not in said
    places = [playing.fleet.hosts[name].place.config_path.parent for name in ("one", "two")]
    wanted = [f"{word} {place}" for place in places for word in ("begin", "end")]
    assert door.with_name("python.log").read_text().splitlines() == wanted
    assert sorted(records.glob("*/run/run.json")) == [
        records / name / "run" / "run.json" for name in ("one", "two")
    ]


def test_every_variable_of_a_playbook_is_in_the_example() -> None:
    example = (ROOT / "fleet" / "hosts.example.yml").read_text()
    for name in ("api_key", "batch", "max_failed", "machine", "service_port", "base_config"):
        assert f"{name}:" in example
    assert yaml.safe_load(example)["services"]["vars"]["max_failed"] == 0
