"""Our programs in processes of their own that have everything imported already.

A new interpreter takes a second of one core to import what a command needs. Here a server that has
imported it forks for each call: a process with an environment, a folder, an input, an output and an
exit code of its own. What our programs start themselves, services, loads and the trials of models,
starts so too. A test of what a program imports, or of how it starts, starts a new
interpreter; the fixture `plain_processes` lets our programs do so as well.

    python -m tests.running FD

is the server: it answers requests on the listening socket FD until its input ends.
"""

from __future__ import annotations

import functools
import gc
import importlib
import json
import multiprocessing
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import chdir, suppress
from multiprocessing import forkserver
from multiprocessing.util import get_temp_dir
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any, NoReturn

from opslib.timing import workers

ROOT = Path(__file__).resolve().parents[1]
PRELOADED = (
    "numpy",
    "httpx",
    "isal.igzip",
    "detect_secrets",
    "uvicorn",
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
    "opslib.serving.app",
    "opslib.serving.client",
    "opslib.serving.load_sending",
    "opslib.serving.protocol",
    "opslib.serving.staging",
    "opslib.serving.start",
    "opslib.serving.tenant",
    "opslib.upkeep.maintenance",
)
# They start our own programs.
STARTERS = ("opslib.inference.trial", "opslib.serving.load", "opslib.serving.staging")
WORKERS = ("tests.running", "onnx", "onnxruntime", "PIL.Image", "opslib.timing.station_process")


class PreparedProcess:
    """A process of the server's: `[sys.executable, "-m", module, *words]`, or a script instead of
    a module. To whoever started it, it is what `subprocess.Popen` would be."""

    def __init__(
        self,
        command: Sequence[object],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        stdin: int | None = subprocess.DEVNULL,
        stdout: IO[bytes] | int | None = None,
        stderr: IO[bytes] | int | None = None,
    ) -> None:
        self.args = [os.fspath(word) if isinstance(word, Path) else str(word) for word in command]
        if self.args[0] != sys.executable:
            raise ValueError(f"{self.args[0]}: only programs of {sys.executable} are called")
        variables = dict(os.environ if env is None else env)
        request = {"words": self.args[1:], "env": variables, "cwd": os.fspath(cwd or Path.cwd())}
        self.returncode: int | None = None
        self.stdin: IO[bytes] | None = None
        with Path(os.devnull).open("r+b", buffering=0) as nothing:
            given = nothing.fileno()
            if stdin == subprocess.PIPE:
                given, ours = os.pipe()
                self.stdin = os.fdopen(ours, "wb")
            files = {None: 1, subprocess.DEVNULL: nothing.fileno()}
            out = _number(stdout, files)
            err = _number(stderr, files | {None: 2, subprocess.STDOUT: out})
            self._server = socket.socket(socket.AF_UNIX)
            self._server.connect(_address or _start_server()[0])
            self._replies = self._server.makefile()
            data = json.dumps(request).encode()
            socket.send_fds(self._server, [len(data).to_bytes(8, "big")], [given, out, err])
            self._server.sendall(data)
            self.pid = int(self._replies.readline())
            if self.stdin is not None:
                os.close(given)

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended and return its exit code, negative for a signal."""
        if self.returncode is None:
            if not select.select([self._server], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self.returncode = int(self._replies.readline() or -signal.SIGKILL)
            self._replies.close()
            self._server.close()
        return self.returncode

    def poll(self) -> int | None:
        """Its exit code, None while it runs."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)


def _number(file: IO[bytes] | int | None, named: Mapping[int | None, int]) -> int:
    return named[file] if file is None or isinstance(file, int) else file.fileno()


class PreparedStarts:
    """The module `subprocess` to those of our modules that start our own programs."""

    Popen = PreparedProcess

    def __getattr__(self, name: str) -> Any:
        return getattr(subprocess, name)

    def run(
        self, command: Sequence[object], *, timeout: float, check: bool, **given: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run it to its end; one that takes longer than `timeout` seconds is killed."""
        process = PreparedProcess(command, **given)
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        done = subprocess.CompletedProcess(process.args, code, "", "")
        if check:
            done.check_returncode()
        return done


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
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        done = PreparedStarts().run(
            command, env=env, cwd=cwd, stdout=out, stderr=err, timeout=timeout, check=False
        )
        done.stdout, done.stderr = (_read(one) for one in (out, err))
    if check:
        done.check_returncode()
    return done


def _read(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()


_address = ""  # of the server, in a process that it forked


@functools.cache
def _start_server() -> tuple[str, subprocess.Popen[bytes]]:
    """Start the server of this test run and return its address; it ends when its input does, with
    this process."""
    folder = tempfile.mkdtemp(prefix="pillops-tests-", dir="/tmp")  # an address has 107 letters
    address = f"{folder}/server"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen(64)
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.running", str(listener.fileno())],
            cwd=ROOT,
            pass_fds=[listener.fileno()],
            stdin=subprocess.PIPE,
        )
    return address, server


def prepare_starts(patch: Any) -> None:
    """Let our modules that start programs of ours start them prepared, and workers too."""
    for name in STARTERS:
        patch.setattr(importlib.import_module(name), "subprocess", PreparedStarts())
    multiprocessing.set_forkserver_preload(list(WORKERS))
    get_temp_dir()  # of its socket: chosen before a test chooses another
    patch.setattr(workers, "multiprocessing", PreparedWorkers())
    patch.setattr(workers, "_prepare_child", StartOfWorker())


class PreparedWorkers:
    """The module `multiprocessing` to workers: they are forked where they would be spawned."""

    def __getattr__(self, name: str) -> Any:
        return getattr(multiprocessing, name)

    def get_context(self, _method: str) -> Any:
        """A context whose processes have imported what a worker needs."""
        with chdir(ROOT):
            forkserver.ensure_running()
        return multiprocessing.get_context("forkserver")


class StartOfWorker:
    """What a forked worker does first: it takes over the environment of whoever started it."""

    environment: Mapping[str, str]

    def __getstate__(self) -> dict[str, object]:
        return {"environment": dict(os.environ)}

    def __call__(self, variables: Mapping[str, str]) -> None:
        os.environ.clear()
        os.environ.update(self.environment)
        workers._prepare_child(variables)


def serve(listener: socket.socket) -> None:
    """Answer each request with the process's id, then with its exit code."""
    global _address
    _address = listener.getsockname()
    for name in PRELOADED:
        importlib.import_module(name)
    prepare_starts(SimpleNamespace(setattr=setattr))
    gc.freeze()
    while True:
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:  # those that have said their exit code
                pass
        if 0 in select.select([0, listener], [], [])[0]:
            Path(_address).unlink()
            Path(_address).parent.rmdir()
            return
        connection, _ = listener.accept()
        with connection:
            if os.fork() == 0:
                listener.close()
                _answer(connection)


def _answer(connection: socket.socket) -> NoReturn:
    """Start what is asked for, say its id, wait for its end, say its exit code."""
    head, descriptors, _, _ = socket.recv_fds(connection, 8, 3)
    data = b""
    while len(data) < int.from_bytes(head, "big"):
        data += connection.recv(1 << 16)
    child = os.fork()
    if child == 0:
        connection.close()
        _become(json.loads(data), descriptors)
    for descriptor in (0, *descriptors):
        os.close(descriptor)
    with suppress(OSError):  # nobody waits for it
        connection.sendall(f"{child}\n".encode())
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        connection.sendall(f"{code}\n".encode())
    os._exit(0)


def _become(request: dict[str, Any], descriptors: list[int]) -> NoReturn:
    """Go on as the program of a request, and end with its exit code."""
    code = 1
    try:
        for descriptor, number in zip(descriptors, (0, 1, 2), strict=True):
            os.dup2(descriptor, number)
            os.close(descriptor)
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(request["env"])
        tempfile.tempdir = None  # it was chosen by another environment
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
    words = [word for word in words if word != "-P"]  # a script's folder is its path
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
    from tests import running  # whom the processes import

    running.serve(socket.socket(fileno=int(sys.argv[1])))
