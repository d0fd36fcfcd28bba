"""How `ssh` is called, and what it means when it gives up.

Keys, agents, `~/.ssh/config` and what is known of a host's key are OpenSSH's matter. Here a host
whose key is not known, or is another, is always refused, and nobody is asked for a password.
"""

import re

from opslib.core.formatting import shorten
from opslib.core.store_address import SshHost
from opslib.core.store_errors import CONNECT_TIMEOUT_S, READ_TIMEOUT_S

# What it writes, and what that means to somebody who did not start it.
_REASONS = (
    (
        r"Host key for \S+ has changed|IDENTIFICATION HAS CHANGED",
        "its host key is not the one that is known here: it is another machine, or was set up anew",
    ),
    (
        r"host key is known for|Host key verification failed",
        "its host key is not known here; log in once with ssh, compare the key and accept it",
    ),
    (r"Permission denied \(", "it takes no key of this account, of ~/.ssh or an ssh agent"),
    (r"subsystem request failed", "it lets this account in, and offers no SFTP"),
    (r"Broken pipe|Connection reset|Connection closed", "the connection was cut"),
)


def command_for(host: SshHost) -> list[str]:
    """Return the command that speaks SFTP with a host: as OpenSSH's own `sftp` has it, and
    stricter."""
    options = {
        "BatchMode": "yes",
        "StrictHostKeyChecking": "yes",
        "NoHostAuthenticationForLocalhost": "no",
        "VerifyHostKeyDNS": "no",
        "ControlMaster": "no",
        "ControlPath": "none",  # nobody else's connection, who may have been less strict
        "ForwardAgent": "no",
        "ForwardX11": "no",
        "PermitLocalCommand": "no",
        "RemoteCommand": "none",
        "RequestTTY": "no",
        "ClearAllForwardings": "yes",
        "LogLevel": "ERROR",
        "ConnectTimeout": str(CONNECT_TIMEOUT_S),
        "ServerAliveInterval": str(CONNECT_TIMEOUT_S),
        "ServerAliveCountMax": str(READ_TIMEOUT_S // CONNECT_TIMEOUT_S),
    }
    if host.port:
        options["Port"] = str(host.port)
    if host.user:
        options["User"] = host.user
    settings = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    return ["ssh", *settings, "-s", "--", host.name, "sftp"]


def explain_end(said: str) -> str:
    """Return what ended `ssh`, in one line, from all that it wrote."""
    for pattern, meaning in _REASONS:
        if re.search(pattern, said):
            return meaning
    lines = [line for line in said.splitlines() if line.strip()]
    return shorten(lines[-1].removeprefix("ssh: ")) if lines else "the connection was cut"
