"""Scraps: the values that a notebook publishes for readers who never open it.

A scrap is kept by scrapbook in the executed notebook and read back here without it, so that
reports outlive the library. Each carries its unit and whether lower or higher is better.
"""

import json
from hashlib import sha256
from math import isfinite
from pathlib import Path
from typing import Any, Literal

from opslib.core.errors import InputError
from opslib.core.records import Part
from opslib.core.verdicts import VERDICT_EXIT_CODES, Verdict
from opslib.telling.json_values import to_json

Better = Literal["lower", "higher"]
SCRAP_MIME_PREFIX = "application/scrapbook.scrap."
_OLD_MIME = "application/papermill.record+json"
_HEADLINE = ("verdict", "finding", "exit_code", "record")
# The cell that published a name, and in which execution.
_published: dict[str, tuple[str, int]] = {}


class Scrap(Part):
    """One published value with its unit, its better direction, the words people read, and where it
    is a figure with one, its 95 % interval."""

    name: str
    value: Any = None
    unit: str | None = None
    better: Better | None = None
    label: str | None = None
    interval: tuple[float, float] | None = None


def publish(
    name: str,
    value: Any,
    *,
    unit: str | None = None,
    better: Better | None = None,
    label: str | None = None,
    interval: tuple[float, float] | None = None,
) -> None:
    """Keep `value` under `name` in the executed notebook; nothing is shown. A cell that is run
    again replaces what it published; a second cell may not use the name. Raises InputError: the
    name is taken by another cell or by the headline, or the value's type cannot be kept."""
    if name in _HEADLINE:
        raise InputError(f"scrap {name!r}: the name is kept for publish_outcome")
    ends = None if interval is None or not all(map(isfinite, interval)) else interval
    _publish(Scrap(name=name, value=value, unit=unit, better=better, label=label, interval=ends))


def publish_outcome(
    verdict: Verdict,
    finding: str,
    *,
    exit_code: int | None = None,
    record_path: Path | str | None = None,
) -> None:
    """Keep the headline of the report: its verdict, its one-sentence finding, the exit code that
    the run ends with (the verdict's own unless given) and where the record lies. Raises InputError:
    the verdict is unknown or the finding is empty."""
    if verdict not in VERDICT_EXIT_CODES:
        known = ", ".join(VERDICT_EXIT_CODES)
        raise InputError(f"verdict {verdict!r} is unknown; expected one of {known}")
    sentence = " ".join(finding.split())
    if not sentence:
        raise InputError("the finding is empty; expected one sentence")
    code = VERDICT_EXIT_CODES[verdict] if exit_code is None else exit_code
    headline = {"verdict": verdict, "finding": sentence, "exit_code": int(code)}
    if record_path is not None:
        headline["record"] = str(record_path)
    for name, value in headline.items():
        _publish(Scrap(name=name, value=value))


def read_scraps(notebook: Path) -> dict[str, Scrap]:
    """Return the scraps of an executed notebook file, by name, in the order published. Raises
    InputError: the file is missing or is not a notebook."""
    try:
        cells = json.loads(notebook.read_bytes())["cells"]
        outputs = [output for cell in cells for output in cell.get("outputs", [])]
    except OSError as error:
        raise InputError(f"{notebook}: cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{notebook}: not a notebook: {error}") from error
    return collect_scraps(outputs)


def collect_scraps(outputs: list[dict[str, Any]]) -> dict[str, Scrap]:
    """Return the scraps among notebook outputs; those written by plain scrapbook count too."""
    scraps: dict[str, Scrap] = {}
    for output in outputs:
        for mime, payload in (output.get("data") or {}).items():
            scrap = _decode(mime, payload)
            if scrap is not None:
                scraps[scrap.name] = scrap
    return scraps


def _decode(mime: str, payload: Any) -> Scrap | None:
    if mime == _OLD_MIME and isinstance(payload, dict) and len(payload) == 1:
        name, value = next(iter(payload.items()))
        return Scrap(name=str(name), value=to_json(value, str(name)))
    kept = mime in (f"{SCRAP_MIME_PREFIX}json+json", f"{SCRAP_MIME_PREFIX}text+json")
    if not kept or not isinstance(payload, dict) or not isinstance(payload.get("name"), str):
        return None
    name, data = payload["name"], to_json(payload.get("data"), payload["name"])
    ours = isinstance(data, dict) and {*data, "interval"} == {*Scrap.model_fields} - {"name"}
    if not ours or data["better"] not in (None, "lower", "higher"):
        return Scrap(name=name, value=data)
    return Scrap(name=name, **data)


def _publish(scrap: Scrap) -> None:
    plain = scrap.model_copy(update={"value": to_json(scrap.value, f"scrap {scrap.name!r}")})
    _claim(scrap.name)
    if _shell() is not None:
        # Loaded first: in a kernel, scrapbook alone takes 2.5 s longer to load what this loads.
        import nbformat  # noqa: F401
        import scrapbook

        left_out = {"name"} if plain.interval else {"name", "interval"}
        payload = plain.model_dump(mode="json", exclude=left_out)
        scrapbook.glue(scrap.name, payload, encoder="json")


def _claim(name: str) -> None:
    here = _current_cell()
    if here is None:
        return
    holder = _published.get(name)
    if holder is not None and (holder[0] != here[0] or holder == here):
        which = "this" if holder[0] == here[0] else "another"
        raise InputError(f"scrap {name!r}: already published by {which} cell; give it another name")
    _published[name] = here


def _current_cell() -> tuple[str, int] | None:
    """The running cell: by the front end's cell id, or by its source where none is sent."""
    shell = _shell()
    if shell is None:
        return None
    cell_id = ((shell.get_parent() or {}).get("metadata") or {}).get("cellId")
    source = str(shell.history_manager.input_hist_raw[-1])
    return cell_id or sha256(source.encode()).hexdigest(), int(shell.execution_count)


def _shell() -> Any:
    """The notebook's shell, or None outside a kernel."""
    import sys

    if "IPython" not in sys.modules:
        return None
    from IPython import get_ipython

    shell = get_ipython()
    return shell if getattr(shell, "kernel", None) is not None else None
