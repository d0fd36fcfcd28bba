"""Every command in docs/SECURITY.md is executed."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from opslib.ops.release.store import list_releases
from opslib.serving.keys import make_key
from opslib.serving.staging import start_service
from tests.docs.commands import clean_environment, make_doors, run_script, serve_until_ready
from tests.ops.release.restoring import make_releasable
from tests.serving.conftest import Live, open_live

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "SECURITY.md").read_text()
STARTERS = ("curl", "tail", "grep", "openssl", "chmod", "git", "set", ".venv/bin/pillops", "CORS_")


def find_commands() -> list[str]:
    """The commands of the document: lines of `sh` blocks and inline code that begins like one."""
    blocks = re.findall(r"```sh\n(.*?)```", TEXT, flags=re.DOTALL)
    lines = [line.strip() for block in blocks for line in block.splitlines() if line.strip()]
    inline = [code for code in re.findall(r"`([^`\n]+)`", TEXT) if code.startswith(STARTERS)]
    found = [one for one in [*lines, *inline] if " " in one or "=" in one]
    return list(dict.fromkeys(found))


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A folder laid out like a checkout, with a running service and its `.env`."""
    folder = tmp_path_factory.mktemp("checkout")
    key = make_key()
    variables = {"RATE_LIMIT_PER_MIN": "100000", "API_KEY": key}
    draft = make_releasable(folder)
    (folder / "keys").mkdir()
    with start_service(draft.config_path, variables=variables) as service:
        draft.config_path.write_text(
            draft.config_path.read_text() + f"client: {{url: '{service.url}'}}\n"
        )
        (folder / ".env").write_text(f"API_KEY={key}\n")
        make_doors(folder)
        shutil.copy(ROOT / ".gitignore", folder)
        subprocess.run(["git", "init", "-q", folder], check=True)
        running = open_live(service, draft)
        running.client.get("/health", headers={"Origin": "https://evil.example"})
        yield running
        running.client.close()


def execute(checkout: Live, command: str) -> subprocess.CompletedProcess[str]:
    environment = clean_environment(
        URL=checkout.service.url,
        EXP_DIR=str(checkout.place.config.exp_dir),
        KEYS=str(checkout.place.config_path.with_name("keys")),
        RELEASE=next((one.name for one in list_releases(checkout.place.config)), ""),
    )
    folder = checkout.place.config_path.parent
    if "serve" in command:
        return serve_until_ready(f"{command} --port 0", folder, environment)
    return run_script(command, folder, environment)


@pytest.mark.parametrize("command", find_commands())
def test_a_command_of_the_document_works(checkout: Live, command: str) -> None:
    env = checkout.place.config_path.with_name(".env")
    kept = env.read_text()
    answer = execute(checkout, command)
    env.write_text(kept)
    if "serve" in command:
        assert "serving model-" in answer.stderr
    elif "ssh-keygen -Q -f" in command:
        assert answer.returncode == 1, answer.stderr
        assert "REVOKED" in answer.stdout
    elif 'grep -c \'"status"' in command:
        assert answer.stdout.strip().isdigit()
    else:
        assert answer.returncode == 0, answer.stderr
    assert checkout.service.key not in answer.stdout + answer.stderr


def test_the_commands_are_all_found() -> None:
    found = "\n".join(find_commands())
    for word in (
        "openssl rand -hex 32",
        "key rotate",
        "chmod 600",
        "rollback --dry-run",
        "/version",
        "release create --sign",
        "ssh-keygen -Y verify",
        "ssh-keygen -q -k -u",
    ):
        assert word in found


def test_the_list_and_the_revoked_keys_of_the_document_do_what_it_says(checkout: Live) -> None:
    """Run after its commands: what the first key signed is refused once that is revoked."""
    lists = 'PILLSNAP_RELEASE__ALLOWED_SIGNERS="$KEYS/allowed_signers"'
    verify = f"{lists} .venv/bin/pillops release verify --no-load"
    accepted = execute(checkout, verify)
    assert accepted.returncode == 0, accepted.stderr
    assert "signed by ops@pillsnap.co.kr, ED25519 key SHA256:" in accepted.stdout
    refused = execute(checkout, f'PILLSNAP_RELEASE__REVOKED_KEYS="$KEYS/revoked" {verify}')
    assert refused.returncode == 3
    assert "which is revoked (release.revoked_keys)" in refused.stderr


def test_strangers_are_turned_away_as_the_document_says(checkout: Live) -> None:
    command = next(one for one in find_commands() if "http_code" in one)
    assert execute(checkout, command).stdout.strip() == "401"


@pytest.mark.parametrize(
    "topic",
    [
        "Rotating",
        "Monthly",
        "Storage",
        "CORS",
        "Uploads",
        "Cloudflare Access",
        "icacls",
        "Service Token",
        "release.allowed_signers",
        "release.revoked_keys",
        "date a release back",
    ],
)
def test_the_document_covers_what_an_operator_looks_for(topic: str) -> None:
    assert topic in TEXT
