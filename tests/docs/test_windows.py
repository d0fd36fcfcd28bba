"""H-9: docs/WINDOWS.md holds the Windows service reference, quoted as each shell needs."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "WINDOWS.md").read_text()
BIN_PATH = (
    r'config Cloudflared binPath= "C:\ProgramData\chocolatey\lib\cloudflared\tools'
    r"\cloudflared.exe --config C:\ProgramData\Cloudflare\cloudflared\config.yml "
    r'tunnel run <TUNNEL_ID>"'
)
ICACLS = (
    r'icacls "C:\ProgramData\Cloudflare\cloudflared" /inheritance:r /grant:r '
    r'"BUILTIN\Administrators:(OI)(CI)(F)" "NT AUTHORITY\SYSTEM:(OI)(CI)(F)" /T /C'
)
REST = ["sc.exe config Cloudflared start= auto", "sc.exe start Cloudflared"]


def blocks(language: str) -> list[list[str]]:
    found = re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)
    return [block.splitlines() for block in found]


def test_the_service_is_set_up_alike_in_each_shell() -> None:
    (block,) = blocks("powershell")
    assert block == ["cloudflared service install", f"sc.exe {BIN_PATH}", *REST]
    hardening, _ = blocks("bat")
    assert hardening == [ICACLS]
    assert "--%" not in TEXT
    assert r"\"" not in TEXT


def test_the_files_are_named_with_their_folder() -> None:
    assert r"`C:\ProgramData\Cloudflare\cloudflared\`" in TEXT
    for name in ("config.yml", "<TUNNEL_ID>.json", "cloudflared.log"):
        assert f"| `{name}` |" in TEXT


def test_it_says_that_it_was_not_executed_here() -> None:
    words = " ".join(TEXT.split())
    assert "on Windows itself they have not been executed" in words
    assert "as administrator" in words
