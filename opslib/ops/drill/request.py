"""What a drill is asked to do, checked before anything is started."""

import ipaddress
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from typer import Option

from opslib.core.config_edit import show_value
from opslib.core.errors import ParameterError
from opslib.ops.bench.request import InputsOption
from opslib.serving.command import KindOption
from opslib.serving.live import normalise_url
from opslib.telling.operation import OperationRequest

ShareOption = Annotated[bool, Option("--share-gpu", help="Load a card that is serving.")]
BadModelsOption = Annotated[
    bool, Option("--allow-bad-models", help="Offer them to a service not ours.")
]


@dataclass(frozen=True)
class DrillRequest(OperationRequest):
    """What of a drill is not in the configuration: without `model` it begins with the one in
    service, without `other` it swaps to the one that a rollback would choose. Raises
    ParameterError: a share or count is impossible, or the address cannot be used."""

    url: Annotated[str | None, Option(help="A running service; default: staging.")] = None
    confirm: Annotated[bool, Option("--confirm", help="Another host is meant.")] = False
    share_gpu: ShareOption = False
    model: Annotated[Path | None, Option(help="Begin and end with it.")] = None
    other: Annotated[Path | None, Option(help="Swap to it and back.")] = None
    inputs: InputsOption = None
    load_share: Annotated[float | None, Option(help="Of the capacity, 0.01 to 0.9.")] = None
    swaps: Annotated[int | None, Option(help="Swaps, there and back.")] = None
    long: Annotated[bool, Option("--long", help="The soak: 20 swaps, 200 for leaks.")] = False
    kind: KindOption = None
    allow_bad_models: BadModelsOption = False

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
    """Return the address of a service that may be loaded. Raises ParameterError: it is no address
    of a service, its host is unknown, or it lies on another host and nobody agreed."""
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
