"""Running the service in this process until it is told to stop; what is in flight is finished."""

import gc
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from opslib.core.config import Config
from opslib.core.errors import StorageError
from opslib.serving.connections import Connections, find_room
from opslib.serving.live import join_address
from opslib.serving.logs import open_logs
from opslib.serving.settings import load_settings

BACKLOG = 2048
ACCEPTED_SHARE = 16  # one of so many places in one turn, or a new one makes room before it is read
END_WITH_STDIN_VARIABLE = "PILLOPS_END_WITH_STDIN"


def serve(
    config: Config,
    *,
    host: str | None = None,
    port: int | None = None,
    env_file: Path | None = None,
    on_ready: Callable[[str, str], None] | None = None,
) -> None:
    """Serve until SIGTERM or Ctrl-C; a staged service also until whoever started it is gone.

    Args:
        port: 0 takes a free one; the configured one by default, as `host`.
        on_ready: called with the address and the model's tag once a model is loaded.

    Raises:
        ConfigError: a variable is impossible, the key is missing or weak, or `ulimit -n` is far
            too low.
        ModelError: `MODEL_PATH` names a model that is refused.
        StorageError: the port is taken or the log folder cannot be written.
    """
    if os.environ.get(END_WITH_STDIN_VARIABLE):
        threading.Thread(target=_end_with_stdin, daemon=True).start()
    settings = load_settings(config, env_file)
    section = config.service
    places = find_room(section.max_connections)
    level, secrets = settings.environment.log_level, (settings.api_key.decode(),)
    open_logs(config.logs_dir, level, secrets, console=sys.stderr.isatty())
    wanted_port = section.port if port is None else port
    with ExitStack() as stack:
        bound = stack.enter_context(bind(host or section.host, wanted_port))
        address = bound.getsockname()[:2]
        import uvicorn

        from opslib.serving.app import create_app
        from opslib.serving.protocol import BoundedProtocol
        from opslib.serving.service import Service
        from opslib.serving.start import load_first_model
        from opslib.serving.tenant import Tenant

        service = Service(settings)
        tenant = Tenant(settings, service.generations, *address, lasting=wanted_port != 0)
        service.reloader.announce = tenant.announce
        stack.enter_context(tenant)
        load_first_model(service)
        bounds = {"body_timeout_s": section.body_timeout_s, "places": Connections(places)}
        protocol = type("Protocol", (BoundedProtocol,), bounds)
        server = uvicorn.Server(
            uvicorn.Config(
                create_app(service),
                loop="asyncio",
                http=protocol,
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=section.keep_alive_s,
                timeout_graceful_shutdown=section.shutdown_grace_s,
                backlog=max(1, places // ACCEPTED_SHARE),
            )
        )
        if on_ready is not None:
            url = f"http://{join_address(*address)}"
            current = service.generations.current
            model = current.model.candidate.version_tag if current else "no model"
            if current and current.model.unbatched:
                model += f" (each request by itself: {current.model.unbatched})"
            shortfall = service.standing.shortfall
            if shortfall is not None:
                wanted = shortfall.wanted.version_tag if shortfall.wanted else None
                model += f" (degraded: {wanted or 'another'} should be: {shortfall.reason})"
            on_ready(url, model)
        gc.collect()
        gc.freeze()  # what was loaded so far lives on; collecting must not stall on it
        server.run(sockets=[bound])


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket, or `StorageError` where the address is none, not this host's or
    taken; what connects before the model is loaded waits in its line."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with ExitStack() as stack:
        try:
            # Named as TCP, or asyncio leaves Nagle's delay on and each answer takes 40 ms.
            bound = stack.enter_context(_Listener(family, socket.SOCK_STREAM, socket.IPPROTO_TCP))
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind((host, port))
            bound.listen()
        except (OSError, OverflowError, TypeError, ValueError) as error:  # no name or no port
            why = getattr(error, "strerror", None) or error
            raise StorageError(f"cannot listen on {join_address(host, port)}: {why}") from error
        stack.pop_all()
    return bound


class _Listener(socket.socket):
    """Keeps the kernel's line long; the event loop asks for one as short as what it accepts."""

    def listen(self, _backlog: int = BACKLOG) -> None:
        super().listen(BACKLOG)


def _end_with_stdin() -> None:
    """Stop once nobody holds the other end of standard input any more."""
    while os.read(0, 1024):  # not sys.stdin, whose lock would hold up the end of the interpreter
        pass
    os.kill(os.getpid(), signal.SIGTERM)
