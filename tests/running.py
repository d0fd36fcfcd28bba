"""Runs of our programs in processes of their own that have everything imported already.

A new interpreter takes a second of one core to import what a command needs. Here a server that has
imported it forks for each call: a process with an environment, a folder, an output and an exit code
of its own. A test of what a program imports, or of how it starts, starts a new interpreter.

    python -m tests.running FD

is the server: it answers requests on the socket FD until the other side closes it.
"""

from __future__ import annotations

import functools
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn

ROOT = Path(__file__).resolve().parents[1]
PRELOADED = (
    "numpy",
    "httpx",
    "isal.igzip",
    "detect_secrets",
    "PIL.Image",
    "onnx",
    "onnxruntime",
    "papermill.cli",
    "scrapbook",
    "opslib.cli",
    "opslib.inference.opening",
    "opslib.ops.release.build",
    "opslib.ops.release.restore",
    "opslib.ops.release.rota",
    "opslib.ops.drill.run",
    "opslib.ops.checklist.run",
    "opslib.runs.runner",
    "opslib.serving.client",
    "opslib.serving.staging",
    "opslib.upkeep.maintenance",
)
_one_at_a_time = threading.Lock()


def run_python(
    command: Sequence[object],
    *,
    env: Mapping[str, str] | None = None,
    cwd: str | Path | None = None,
    timeout: float = 180,
    check: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Run `[sys.executable, "-m", module, *words]`, or a script instead of a module, as a process
    of its own; return how it ended and what it said.

    Raises:
        TimeoutExpired: it ran longer than `timeout` seconds, and was killed.
        CalledProcessError: it failed, and `check` was said.
    """
    words = [os.fspath(word) if isinstance(word, Path) else str(word) for word in command]
    if words[0] != sys.executable:
        raise ValueError(f"{words[0]}: only programs of {sys.executable} are called")
    variables = dict(os.environ if env is None else env)
    request = {"words": words[1:], "env": variables, "cwd": os.fspath(cwd or Path.cwd())}
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, _one_at_a_time:
        server, replies = _start_server()
        data = json.dumps(request).encode()
        socket.send_fds(server, [len(data).to_bytes(8, "big")], [out.fileno(), err.fileno()])
        server.sendall(data)
        pid, expired = int(replies.readline()), threading.Event()

        def end() -> None:
            expired.set()
            os.kill(pid, signal.SIGKILL)

        late = threading.Timer(timeout, end)
        late.start()
        code = int(replies.readline())
        late.cancel()
        said = [_read(one) for one in (out, err)]
        if expired.is_set():
            raise subprocess.TimeoutExpired(words, timeout, *said)
        done = subprocess.CompletedProcess(words, code, *said)
        if check:
            done.check_returncode()
        return done


def _read(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()


@functools.cache
def _start_server() -> tuple[socket.socket, IO[str]]:
    """Start the server of this test run; it ends with it, since its socket does."""
    ours, theirs = socket.socketpair()
    with theirs:
        subprocess.Popen(
            [sys.executable, "-m", "tests.running", str(theirs.fileno())],
            cwd=ROOT,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
        )
    return ours, ours.makefile()


def serve(connection: socket.socket) -> None:
    """Answer requests until the other side is gone: the process's id, then its exit code."""
    for name in PRELOADED:
        importlib.import_module(name)
    gc.freeze()
    while True:
        head, descriptors, _, _ = socket.recv_fds(connection, 8, 2)
        if not head:
            return
        data = b""
        while len(data) < int.from_bytes(head, "big"):
            data += connection.recv(1 << 16)
        child = os.fork()
        if child == 0:
            connection.close()
            _become(json.loads(data), descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        connection.sendall(f"{child}\n".encode())
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        connection.sendall(f"{code}\n".encode())


def _become(request: dict[str, Any], descriptors: list[int]) -> NoReturn:
    """Go on as the program of a request, and end with its exit code."""
    code = 1
    try:
        for descriptor, number in zip(descriptors, (1, 2), strict=True):
            os.dup2(descriptor, number)
            os.close(descriptor)
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(request["env"])
        time.tzset()
        code = _run(request["words"])
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _run(words: list[str]) -> int:
    """Run a module or a script as the interpreter does; return the exit code."""
    module = words[0] == "-m"
    sys.argv = words[1:] if module else words
    for name in ("__main__", "opslib.cli") if module else ("__main__",):
        sys.modules.pop(name, None)
    try:
        if module:
            sys.path[0] = str(Path.cwd())
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            sys.path[0] = str(Path(words[0]).parent)
            runpy.run_path(words[0], run_name="__main__")
    except SystemExit as ending:
        if isinstance(ending.code, str):
            sys.stderr.write(f"{ending.code}\n")
            return 1
        return int(ending.code or 0)
    return 0


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
