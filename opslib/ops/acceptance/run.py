"""The acceptance walk: every operation once, by the commands an operator types, with evidence.

    1 local /health   2 external /health   3 release   4 benchmark   5 sweep   6 quantization
    7 rollback rehearsal   8 schedules   9 maintenance and rotation

The walk starts a service of the experiment on a free loopback port; a relay on a second loopback
address stands in for the public one. The crontab and which model is served are put back, however
the walk ends; the release, the records and the report stay.
"""

import socket
import socketserver
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from opslib.core.config import Config
from opslib.core.errors import OpsError, UsageError
from opslib.core.formatting import stamp
from opslib.core.lineage import record_lineage
from opslib.core.secrets import mask
from opslib.inference.find_model import find_onnx
from opslib.ops.acceptance.record import AcceptanceRecord, AcceptanceStep, StepState
from opslib.ops.acceptance.steps import STEPS, NotRunError, Step, Walk
from opslib.serving.staging import start_service

ADDRESS = "127.0.0.2"
_CHUNK_BYTES = 1 << 16


def walk_acceptance(config: Config, *, budget_s: float = 20.0) -> AcceptanceRecord:
    """Take the nine steps on the configured experiment and return what came of each.

    A step that fails does not stop the walk. `budget_s`: seconds for each of the measured steps
    (benchmark, sweep, quantization). Raises UsageError: the experiment is not the demo: the walk
    switches models and installs schedules, and rehearses for no live service; OpsError: its service
    does not start.
    """
    if not config.is_demo:
        raise UsageError(
            f"{config.exp_dir}: the acceptance walk rehearses on the demo alone; make it with "
            "`make demo`; for a live one use `pillops check monthly` and `pillops drill`"
        )
    find_onnx(config)
    variables = {"RATE_LIMIT_PER_MIN": "100000"}
    with (
        start_service(config.source, variables=variables) as service,
        open_stand_in(int(service.url.rpartition(":")[2])) as outside,
    ):
        walk = Walk(config, service, outside, budget_s)
        taken = [_take(walk, number, step) for number, step in enumerate(STEPS, start=1)]
    return AcceptanceRecord(
        experiment=f"the embedded demo experiment at {config.exp_dir}",
        external=f"simulated: a relay at {outside} stands in for the public address",
        steps=tuple(taken),
        lineage=record_lineage(),
    )


def keep_acceptance(record: AcceptanceRecord, config: Config) -> Path:
    """Write the record to `{exp_dir}/reports/acceptance_<UTC>.json` and return the path."""
    return record.write(config.records_dir / f"acceptance_{stamp()}.json")


@contextmanager
def open_stand_in(port: int, *, address: str = ADDRESS) -> Iterator[str]:
    """Relay `http://127.0.0.2:<free port>` to `127.0.0.1:port` for the block; yield its URL. It
    shows that the service answers through another address and another connection. It shows nothing
    of Cloudflare, DNS or certificates, and whatever uses it says so."""

    def relay(outside: socket.socket, *_: object) -> None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 10) as inside:
            back = threading.Thread(target=_pass_on, args=(inside, outside), daemon=True)
            back.start()
            _pass_on(outside, inside)
            back.join()

    with socketserver.ThreadingTCPServer((address, 0), relay) as server:  # type: ignore[arg-type]
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield f"http://{address}:{server.server_address[1]}"
        finally:
            server.shutdown()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(_CHUNK_BYTES):
            target.sendall(data)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def _take(walk: Walk, number: int, step: Step) -> AcceptanceStep:
    started = time.perf_counter()
    state: StepState = "pass"
    try:
        evidence = step.run(walk)
    except NotRunError as error:
        state, evidence = "not run", str(error)
    except (OpsError, OSError, subprocess.SubprocessError, ValueError) as error:
        state, evidence = "fail", " ".join(str(error).split())
    return AcceptanceStep(
        number=number,
        title=step.title,
        command=step.command,
        state=state,
        took_s=round(time.perf_counter() - started, 2),
        evidence=mask(evidence, [walk.service.key]),
    )
