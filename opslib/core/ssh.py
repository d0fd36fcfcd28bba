"""How a host is connected to by `asyncssh`, and what it means when that fails.

Keys, agents, `~/.ssh/config` and what is known of a host's key are as OpenSSH has them. Here a host
whose key is not known, or is another, is always refused, and nobody is asked for a password.
"""

import asyncio
import errno
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncssh

from opslib.core.store_address import SshHost
from opslib.core.store_errors import CONNECT_TIMEOUT_S, READ_TIMEOUT_S, explain_refusal

ANSWER_S = 60  # of a host that is there and gives none
_BROKEN = (
    asyncssh.ConnectionLost,
    asyncssh.SFTPConnectionLost,
    asyncssh.SFTPNoConnection,
    ConnectionAbortedError,
)
_CONFIGS = ("~/.ssh/config", "/etc/ssh/ssh_config")
_KNOWN_HOSTS = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2", "/etc/ssh/ssh_known_hosts")
_UNKNOWN = "its host key is not known here; log in once with ssh, compare the key and accept it"
_CHANGED = (
    "its host key is not the one that is known here: it is another machine, or was set up anew"
)
_NO_LOGIN = (
    "the connection was cut before the login; is its host key of another kind than the known one?"
)


class Channel:
    """Where each request of `sshfs` gets its channel to a host: all share one."""

    def __init__(self, host: SshHost) -> None:
        self._host = host
        self._connecting = asyncio.Lock()
        self._open: list[tuple[asyncssh.SSHClientConnection, asyncssh.SFTPClient]] = []

    @asynccontextmanager
    async def get(self) -> AsyncIterator[asyncssh.SFTPClient]:
        """Lend the channel for one request. Raises `ConnectionAbortedError` where there is none."""
        async with self._connecting:
            if not self._open or self._open[0][0].is_closed():
                self._open[:] = [await _connect(self._host)]
        connection, sftp = self._open[0]
        async with self.within(ANSWER_S):
            try:
                yield sftp
            except _BROKEN:
                connection.abort()  # the host may have ended SFTP alone
                raise

    @asynccontextmanager
    async def within(self, seconds: float) -> AsyncIterator[None]:
        """End the connection where what is asked takes longer; the next request makes another."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        # Not by cancelling: asyncssh would leave requests behind.
        timer = loop.call_at(until, self._open[0][0].abort)
        try:
            yield
        except _BROKEN:
            if loop.time() >= until:
                raise _refusal(f"gave no answer within {seconds:g} s") from None
            raise
        finally:
            timer.cancel()

    async def close(self) -> None:
        """End the connection, if there is one."""
        for connection, _ in self._open:
            connection.abort()


async def _connect(host: SshHost) -> tuple[asyncssh.SSHClientConnection, asyncssh.SFTPClient]:
    logging.getLogger("asyncio").addFilter(_is_no_rest)
    is_known = False

    def match(name: str, _: str, port: int | None) -> Any:
        """What is known of a host by its name: by its address it might be another's."""
        nonlocal is_known
        found = known.match(name, "", port)
        is_known = any(found)
        return found

    try:
        settings = _settings(host)
        known = await asyncio.to_thread(_read_known_hosts, host, settings)
        connection = await asyncssh.connect(host.name, known_hosts=match, **settings)
        try:
            sftp = await asyncio.wait_for(
                connection.start_sftp_client(path_errors="surrogateescape"), READ_TIMEOUT_S
            )
        except BaseException:
            connection.abort()
            raise
    except asyncssh.HostKeyNotVerifiable:
        raise _refusal(_CHANGED if is_known else _UNKNOWN) from None
    except (asyncssh.ConnectionLost, asyncssh.KeyExchangeFailed, ConnectionResetError):
        raise _refusal(_NO_LOGIN) from None
    except TimeoutError:
        raise _refusal(f"cannot be reached within {READ_TIMEOUT_S} s") from None
    except (OSError, ValueError, asyncssh.Error) as error:
        raise _refusal(_explain(error)) from error
    return connection, sftp


def _is_no_rest(record: logging.LogRecord) -> bool:
    """asyncssh forgets requests of a connection that broke: asyncio would show a traceback each."""
    return not (record.exc_info and isinstance(record.exc_info[1], asyncssh.Error))


def _explain(error: Exception) -> str:
    number = error.errno if isinstance(error, OSError) else None
    if not number or number < 0:  # as for a name that nobody has
        return explain_refusal(error)
    name = getattr(error, "filename", None)
    return f"{name}: {os.strerror(number)}" if name else os.strerror(number)


def _refusal(text: str) -> ConnectionAbortedError:
    return ConnectionAbortedError(errno.ECONNABORTED, text)


def _settings(host: SshHost) -> dict[str, Any]:
    """What this account's configuration says of a host, and ours, which goes before it."""
    told = {"port": host.port, "username": host.user}
    return {
        "config": _those_there(_CONFIGS),
        "agent_forwarding": False,
        "command": None,
        "request_pty": False,
        "connect_timeout": READ_TIMEOUT_S,
        "login_timeout": READ_TIMEOUT_S,
        "keepalive_interval": CONNECT_TIMEOUT_S,
        "keepalive_count_max": READ_TIMEOUT_S // CONNECT_TIMEOUT_S,
        **{name: value for name, value in told.items() if value},
    }


def _read_known_hosts(host: SshHost, settings: dict[str, Any]) -> asyncssh.SSHKnownHosts:
    """What is known of all hosts, in the files that the configuration names, or the usual ones."""
    files: Any = asyncssh.SSHClientConnectionOptions(host=host.name, **settings).known_hosts
    if files is None:  # it says `none`, by which asyncssh trusts everybody
        return asyncssh.import_known_hosts("")
    return asyncssh.read_known_hosts(_those_there(files or _KNOWN_HOSTS))


def _those_there(paths: Any) -> list[str]:
    full = [str(Path(path).expanduser()) for path in paths]
    return [path for path in full if os.access(path, os.R_OK)]
