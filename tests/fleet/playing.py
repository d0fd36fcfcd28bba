"""Real services as a fleet, and `ansible-playbook` over it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from opslib.core.cards import card_path, read_card
from opslib.core.models import find_model_files
from opslib.serving.keys import make_key
from opslib.serving.staging import start_service
from tests.serving.conftest import Live, make_place, open_live

ROOT = Path(__file__).resolve().parents[2]
ANSIBLE = Path(sys.executable).with_name("ansible-playbook")
NAMES = ("one", "two", "three")
# Each of a roll's module processes compiles what it imports, anew, from an archive that it is sent.
# A host's interpreter that has imported the same files, compiled once, is twice as fast. The
# package itself must be the archive's, which has the modules of the playbook.
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

    def put_back(self) -> None:
        """Serve the older model everywhere, nothing delivered, the whole inventory written."""
        self.write_inventory()
        for live in self.hosts.values():
            live.reload(live.place.first)
            for path in live.place.export.glob("model-b*"):
                path.unlink()
        for note in self.notes:
            note.unlink()

    def command(self, *words: str) -> list[str]:
        """The command line of a roll."""
        playbook = str(ROOT / "fleet" / "roll.yml")
        model = ["-e", f"model={self.model}"]
        return [str(ANSIBLE), "-i", str(self.folder / "hosts.yml"), playbook, *model, *words]

    def roll(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Roll the model; no key may ever stand in what it prints. `variables`: of Ansible."""
        answer = subprocess.run(
            self.command(*words),
            capture_output=True,
            text=True,
            env=environment(self.folder) | variables,
            timeout=240,
            check=False,
        )
        for live in self.hosts.values():
            assert live.service.key not in answer.stdout + answer.stderr
        return answer

    def write_inventory(
        self, *names: str, plain: bool = False, **changes: Mapping[str, object]
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
            if name in (names or self.hosts)
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
        "ANSIBLE_SSH_CONTROL_PATH_DIR": str(folder / "ansible" / "cp"),
        "ANSIBLE_NOCOLOR": "1",
    }


def write_python(folder: Path) -> Path:
    """Write the interpreter of hosts of which many modules are run."""
    path = folder / "python"
    path.write_text(PREPARED)
    path.chmod(0o755)
    return path


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


@contextmanager
def open_fleet(
    folder: Path, names: tuple[str, ...] = NAMES, shared_key: str | None = None
) -> Iterator[Fleet]:
    """Start the services of a fleet in `folder`, each with its own key unless they share one."""
    write_python(folder)
    with ExitStack() as stack:
        hosts = {}
        for name in names:
            place = make_place(folder / name)
            key = shared_key or make_key()
            place.config_path.with_name(".env").write_text(f"API_KEY={key}\n")
            take_newer_away(folder / name, folder / "store")
            variables = {"API_KEY": key, "RATE_LIMIT_PER_MIN": "1000000"}
            service = stack.enter_context(start_service(place.config_path, variables=variables))
            hosts[name] = open_live(service, place)
            stack.callback(hosts[name].client.close)
        yield Fleet(folder, hosts, folder / "store" / "model-b.onnx")
