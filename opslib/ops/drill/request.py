"""What a drill is asked to do, checked before anything is started."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from opslib.core.config_edit import show_value
from opslib.core.errors import ParameterError
from opslib.serving.live import normalise_url
from opslib.telling.operation import OperationRequest


@dataclass(frozen=True)
class DrillRequest(OperationRequest):
    """What of a drill is not in the configuration.

    Args:
        url: a running service; None starts a staging service from a copy of the experiment.
        confirm: agreed that a service on another host is loaded and switched.
        share_gpu: agreed that a card which is serving already is loaded.
        model: the model to begin and end with; None: the one in service.
        other: the model to swap to and back from; None: the one a rollback would choose.
        inputs: a glob of images; None: the validation images.
        load_share: overrides the configuration's.
        swaps: overrides the configuration's.
        long: many more swaps, then those that look for leaks.
        kind: which kind of models is swapped; None: the only one.
        allow_bad_models: agreed that a running service which is not ours is offered models that it
            ought to refuse, and may not.

    Raises:
        ParameterError: a share or count is impossible, or the address cannot be used.
    """

    url: str | None = None
    confirm: bool = False
    share_gpu: bool = False
    model: Path | None = None
    other: Path | None = None
    inputs: str | None = None
    load_share: float | None = None
    swaps: int | None = None
    long: bool = False
    kind: str | None = None
    allow_bad_models: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.load_share is not None and not 0.01 <= self.load_share <= 0.9:
            raise ParameterError(
                f"load_share: got {self.load_share}; expected a share of the capacity in 0.01..0.9"
            )
        if self.swaps is not None and not 1 <= self.swaps <= 10_000:
            raise ParameterError(f"swaps: got {self.swaps}; expected a whole number in 1..10000")
        if self.url is not None:
            object.__setattr__(self, "url", check_url(self.url, confirm=self.confirm))
            if self.long:
                raise ParameterError(
                    "long: loads a service for minutes; only a staging one (no url)"
                )


def check_url(url: str, *, confirm: bool) -> str:
    """Return the address of a service that may be loaded.

    Raises:
        ParameterError: it is no address of a service, its host is unknown, or it lies on another
            host and nobody agreed.
    """
    whole = normalise_url(url)
    try:
        parts = urlsplit(whole)
        port = parts.port
    except ValueError as error:
        raise ParameterError(f"url: got {show_value(url)}; expected http://HOST:PORT") from error
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
        raise ParameterError(f"url: got {show_value(url)}; expected http://HOST:PORT")
    if parts.username or parts.password:
        raise ParameterError("url: holds a user or password; the key comes from .env")
    try:
        found = socket.getaddrinfo(parts.hostname, port or 80, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ParameterError(f"url: {parts.hostname}: no such host") from error
    addresses = {str(one[4][0]) for one in found}
    if not confirm and not all(ipaddress.ip_address(one).is_loopback for one in addresses):
        raise ParameterError(
            f"url: {parts.hostname} is not this host: a drill loads and switches a service that "
            "others may use; say confirm: true (--confirm) if that is meant"
        )
    return whole
