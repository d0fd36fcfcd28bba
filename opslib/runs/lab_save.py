"""Saving from JupyterLab: notebooks stay as they are kept in git, without outputs.

The notebook is the operation's source; what a run found belongs into a dated report.
"""

from __future__ import annotations

from typing import Any

_METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
_PASSING = ("execution", "collapsed", "scrolled", "trusted", "editable", "slideshow")


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
