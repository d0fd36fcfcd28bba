"""`pillops demo`: build the embedded demo experiment."""

from typing import Annotated

import typer

from opslib.core.config import load_config
from opslib.telling.doors import ConfigOption, make_console


def demo(
    force: Annotated[bool, typer.Option(help="Build it anew; reports and logs stay.")] = False,
    config: ConfigOption = None,
) -> None:
    """Build the demo experiment: pill images, a trained network, two exported models."""
    from opslib.demo.build import build_demo

    build_demo(load_config(config), force=force, console=make_console())
