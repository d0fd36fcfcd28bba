"""JupyterLab on the landing notebook, with a kernel that is this interpreter.

Notebooks are saved as they are kept in git, without outputs: a notebook is the operation's source,
and what a run found belongs into a dated report.
"""

import os
import sys
from typing import Any, NoReturn

from opslib.core.config import Config
from opslib.core.errors import InputError
from opslib.core.overrides import CONFIG_VARIABLE

LANDING = "notebooks/00_start.ipynb"
_METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
_PASSING = ("execution", "collapsed", "scrolled", "trusted", "editable", "slideshow")


def lab_command(config: Config, *, port: int, browser: bool) -> list[str]:
    """Return the command that opens JupyterLab in the configuration's folder.

    It runs on this interpreter, whose own kernel JupyterLab then offers without installation, and
    as root too (containers, WSL): it listens on the loopback address alone and asks for a token.

    Raises:
        InputError: there is no landing notebook.
    """
    if not (config.root / LANDING).is_file():
        raise InputError(f"{config.root / LANDING}: no such notebook to open JupyterLab on")
    return [
        sys.executable,
        "-m",
        "jupyterlab",
        f"--LabApp.default_url=/lab/tree/{LANDING}",
        f"--ServerApp.root_dir={config.root}",
        f"--ServerApp.port={port}",
        "--FileContentsManager.pre_save_hook=opslib.runs.lab.strip_outputs",
        *([] if browser else ["--no-browser"]),
        *(["--allow-root"] if os.geteuid() == 0 else []),
    ]


def open_lab(config: Config, *, port: int = 8888, browser: bool = True) -> NoReturn:
    """Replace this process by JupyterLab; its notebooks read this configuration."""
    command = lab_command(config, port=port, browser=browser)
    environment = {**os.environ, CONFIG_VARIABLE: str(config.source)}
    os.chdir(config.root)
    sys.stdout.flush()
    os.execve(command[0], command, environment)  # noqa: S606


def strip_outputs(model: dict[str, Any], **_where: Any) -> None:
    """Take outputs, counts and the front end's notes out of a notebook about to be saved.

    Jupyter's `pre_save_hook`; it changes `model` in place.
    """
    content = model.get("content")
    if model.get("type") != "notebook" or not isinstance(content, dict):
        return
    if content.get("metadata", {}).get("kernelspec", {}).get("name") == "python3":
        content["metadata"] |= _METADATA
    for cell in content.get("cells", []):
        for name in _PASSING:
            cell.get("metadata", {}).pop(name, None)
        if cell.get("cell_type") == "code":
            cell["outputs"] = []
            cell["execution_count"] = None
