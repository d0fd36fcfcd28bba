"""H-7: a host is made out of nothing, and a second run changes nothing.

As root in a namespace with an `/etc`, a `/home` and a crontab of its own, so that the user, the
unit and the jobs are real and this machine keeps none of them. No systemd runs there: its unit is
verified, and what it would start is started; a `systemctl` that only notes what it is told stands
for it where the order of restarts matters. The lock of the test brings one package, which lends
what the project's would install.
"""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from opslib.serving.keys import make_key
from tests.fleet.playing import ANSIBLE, ROOT, environment
from tests.fleet.sshd import SPACES, can_split
from tests.ops.release.signing import allow, revoke
from tests.ops.release.signing import make_key as make_signing_key
from tests.serving.conftest import make_place
from tests.turns import LONG, looped

PYTHON = "/usr/bin/python3"
KEYS = (make_key(), make_key())
# One folder of the test each, so that what was made is there in the next namespace.
INSIDE = """
mount -t overlay overlay -o "lowerdir=/etc,upperdir=$1/etc,workdir=$1/work" /etc
mount --bind "$1/home" /home
mount --bind "$1/cron" /var/spool/cron
mkdir -p /etc/systemd/system
if [ -e "$1/systemctl" ]; then
  mount -t tmpfs none /run
  mkdir -p /run/systemd/system
  mount --bind "$1/systemctl" /usr/bin/systemctl
fi
shift
exec "$@"
"""


SYSTEMCTL = """#!/bin/sh
echo "$*" >> /home/systemctl.log
case "$*" in
  *show*) printf 'LoadState=loaded\\nActiveState=active\\nUnitFileState=enabled\\n' ;;
esac
"""


def _can_make_one() -> bool:
    if not can_split() or not Path(PYTHON).exists() or not shutil.which("crontab"):
        return False
    here = Path(sysconfig.get_path("purelib"))  # which its user imports from
    if not all(folder.stat().st_mode & 0o001 for folder in here.parents):
        return False
    same = subprocess.run(
        [PYTHON, "-c", "import sys; print(sys.version_info[:2])"], capture_output=True, text=True
    )
    return same.stdout.strip() == str(tuple(sys.version_info[:2]))


pytestmark = pytest.mark.skipif(
    not _can_make_one(),
    reason="needs root, namespaces, crontab, a system Python of this version, and a checkout that "
    "others may enter",
)


def inside(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command where the host is."""
    variables = environment(folder) | {"ANSIBLE_BECOME_METHOD": "su", "TMPDIR": f"{folder}/tmp"}
    for name in [name for name in variables if name.startswith(("PILL", "PYTHON"))]:
        del variables[name]  # what was delivered is run, as there
    return subprocess.run(
        [*SPACES, "bash", "-euc", INSIDE, "bash", str(folder), *words],
        env=variables,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def write_wheel(folder: Path) -> Path:
    """Write a wheel that lends this environment's packages to the one it is installed into."""
    path = folder / "lender-1-py3-none-any.whl"
    info = "lender-1.dist-info"
    files = {
        "lender.pth": f"import sys; sys.path.insert(0, {sysconfig.get_path('purelib')!r})\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: lender\nVersion: 1\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest())
            record += f"{name},sha256={digest.decode().rstrip('=')},{len(text)}\n"
        wheel.writestr(f"{info}/RECORD", record + f"{info}/RECORD,,\n")
    return path


@contextmanager
def bare_host() -> Iterator[Path]:
    """A host that has nothing as yet."""
    folder = Path(tempfile.mkdtemp(prefix="pillops-host-", dir="/tmp"))  # its user must get there
    try:
        prepare(folder)
        yield folder
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def host() -> Iterator[Path]:
    """A host that was made, once."""
    with bare_host() as folder:
        code, said = play(folder, "--diff")
        assert code == 0, said
        yield folder


def prepare(folder: Path) -> None:
    """Write what a host keeps, nothing as yet, and the inventory of its two services."""
    folder.chmod(0o755)
    for name in ("etc", "work", "home", "cron/crontabs", "tmp"):
        (folder / name).mkdir(parents=True)
    (folder / "tmp").chmod(0o1777)
    (folder / "cron" / "crontabs").chmod(0o1730)
    shutil.chown(folder / "cron" / "crontabs", group="crontab")
    (folder / "base.yaml").write_text("paths: {data_root: /home/pillsnap/images}\n")
    (folder / "lock.txt").write_text(f"lender @ file://{write_wheel(folder)}\n")
    key = make_signing_key(folder / "keys" / "release")
    services = {
        f"card{card}": {
            "machine": "one",
            "service_port": 8100 + card,
            "card": card,
            "api_key": KEYS[card],
            "exp_dir": f"/home/pillsnap/exp{card}",
        }
        for card in (0, 1)
    }
    example = yaml.safe_load((ROOT / "fleet" / "hosts.example.yml").read_text())["services"]
    variables = {
        **example["vars"],
        "ansible_connection": "local",
        "ansible_python_interpreter": PYTHON,
        "python": PYTHON,
        "service_user": "pillsnap",
        "service_home": "/home/pillsnap",
        "code_root": "/home/pillsnap/pillops",
        "instances_dir": "/home/pillsnap/instances",
        "base_config": str(folder / "base.yaml"),
        "lock_file": str(folder / "lock.txt"),
        "pip_arguments": "--no-index",
        "allowed_signers": str(allow(folder / "keys" / "allowed", key)),
        "revoked_keys": str(revoke(folder / "keys" / "revoked", key)),
    }
    content = {"services": {"hosts": services, "vars": variables}}
    (folder / "hosts.yml").write_text(yaml.safe_dump(content))


def play(host: Path, *words: str) -> tuple[int, str]:
    playbook = str(ROOT / "fleet" / "host.yml")
    answer = inside(host, str(ANSIBLE), "-i", str(host / "hosts.yml"), playbook, *words)
    said = answer.stdout + answer.stderr
    assert not any(key in said for key in KEYS)
    return answer.returncode, said


def test_a_check_of_a_host_that_has_nothing_says_what_would_come_and_changes_nothing() -> None:
    tasks = (
        "Make the user",
        "Say which commit it is",
        "Say what it was made from",
        "Install the unit",
    )
    with bare_host() as folder:
        places = [folder / name for name in ("etc", "home", "cron")]
        before = [sorted(place.rglob("*")) for place in places]
        code, said = play(folder, "--check", "--limit", "card0")
        assert code == 0, said
        for task in tasks:
            assert "changed: [card0]" in said.partition(f"[{task}")[2].partition("TASK")[0], task
        assert "cron's jobs, and pillops@8100.service" in said
        assert [sorted(place.rglob("*")) for place in places] == before


def test_the_key_the_code_and_the_jobs_are_there(host: Path) -> None:
    home = host / "home" / "pillsnap"
    key = home / "instances" / "8101" / ".env"
    assert key.read_text() == f"API_KEY={KEYS[1]}\n"
    assert key.stat().st_mode & 0o777 == 0o600
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    assert (home / "pillops" / ".commit").read_text() == head.stdout
    jobs = (host / "cron" / "crontabs" / "pillsnap").read_text()
    for port in ("8100", "8101"):
        assert f"/home/pillsnap/instances/{port}/config.yaml" in jobs


def test_the_lists_of_keys_are_there_and_the_service_cannot_write_them(host: Path) -> None:
    config = (host / "home" / "pillsnap" / "instances" / "8101" / "config.yaml").read_text()
    release = yaml.safe_load(config)["release"]
    for key, name in (("allowed_signers", "allowed"), ("revoked_keys", "revoked")):
        there = host / release[key].lstrip("/")
        assert there.read_bytes() == (host / "keys" / name).read_bytes()
        for path in (there, there.parent):
            assert (path.stat().st_uid, path.stat().st_mode & 0o022) == (0, 0)


def test_a_second_run_changes_nothing(host: Path) -> None:
    code, said = play(host)
    assert code == 0, said
    assert said.count("changed=0") == 2, said


def test_a_check_of_a_host_that_is_made_would_change_nothing(host: Path) -> None:
    code, said = play(host, "--check")
    assert code == 0, said
    assert said.count("changed=0") == 2, said


def test_the_unit_is_sound_and_starts_a_service_of_its_card(host: Path) -> None:
    unit = "/etc/systemd/system/pillops@.service"
    if shutil.which("systemd-analyze"):
        verified = inside(host, "systemd-analyze", "verify", unit)
        assert verified.returncode == 0, verified.stderr
        assert "pillops@" not in verified.stderr, verified.stderr
    text = (host / "etc" / "systemd" / "system" / "pillops@.service").read_text()
    start = next(line for line in text.splitlines() if line.startswith("ExecStart="))
    home = host / "home" / "pillsnap"
    place = make_place(host / "made")
    shutil.copytree(place.export, home / "exp1" / "export", dirs_exist_ok=True)
    serve = start.removeprefix("ExecStart=").replace("%i", "8101")
    script = f"""
    chown -R pillsnap /home/pillsnap/exp1
    cd /home/pillsnap/instances/8101
    set -a; . ./card.env; set +a
    test "$CUDA_VISIBLE_DEVICES" = 1
    su pillsnap -c "exec {serve}" 2>/home/served &
    until curl --silent --fail --max-time 2 http://127.0.0.1:8101/health
    do kill -0 $! || {{ cat /home/served; exit 1; }}; sleep 0.2; done
    """
    served = inside(host, "bash", "-euc", script)
    assert served.returncode == 0, served.stdout + served.stderr
    assert '"model_loaded":true' in served.stdout.replace(" ", "")
    assert (home / "exp1" / "logs" / "api.err").exists()


@looped
@pytest.mark.skipif(not LONG, reason="three more runs of the playbook: in make soak")
@pytest.mark.skipif(not Path("/usr/bin/systemctl").exists(), reason="no systemctl to stand for")
def test_a_run_that_ended_before_the_services_were_restarted_is_finished_by_the_next(
    host: Path,
) -> None:
    told = host / "home" / "systemctl.log"
    (host / "systemctl").write_text(SYSTEMCTL)
    (host / "systemctl").chmod(0o755)
    there = host / "home" / "pillsnap" / "pillops"
    gone_in, removed = gone_last()
    mine = there / "notebooks" / "11_mine.ipynb"
    for path in (there / removed, mine):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    (there / ".commit").write_text(f"{git('rev-parse', f'{gone_in}^')}\n")
    with answering() as server:
        address = f"service_url=http://127.0.0.1:{server.server_port}"
        words = ("-e", address, "-e", "health_tries=2")
        server.status = 503
        code, said = play(host, *words)
        assert code == 2, said
        assert restarts(told) == ["pillops@8100.service"]
        assert mine.exists()
        assert not (there / removed).exists()
        server.status = 200
        code, said = play(host, *words)
        assert code == 0, said
        assert restarts(told) == ["pillops@8100.service", "pillops@8101.service"]
        code, said = play(host, *words)
        assert (code, restarts(told)) == (0, []), said
        assert said.count("changed=0") == 2, said
    (host / "systemctl").unlink()


def git(*words: str) -> str:
    told = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True)
    return told.stdout.strip()


def gone_last() -> tuple[str, str]:
    """The newest commit that removed code, and a file that it removed."""
    words = ("--diff-filter=D", "--no-renames", "--format=%H", "--name-only", "--", "opslib")
    commit, *names = git("log", "-1", *words).split()
    return commit, names[0]


def restarts(told: Path) -> list[str]:
    """The services that were restarted since this was asked last."""
    lines = told.read_text().splitlines()
    told.write_text("")
    return [line.split()[-1] for line in lines if line.startswith("restart ")]


class Answering(ThreadingHTTPServer):
    """Answers whatever is asked with `status`."""

    status = 200


@contextmanager
def answering() -> Iterator[Answering]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(server.status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with Answering(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()
