"""Finding, reading, copying and writing notebook files (nbformat 4)."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from opslib.core.config import Config
from opslib.core.errors import InputError

ENDED_TAG = "pillops-ended"
_MALFORMED = (ValueError, TypeError, AttributeError, KeyError, RecursionError)


def notebook_folder(config: Config) -> Path:
    """Return the `notebooks` folder beside the configuration, else this checkout's own."""
    beside = config.root / "notebooks"
    return beside if beside.is_dir() else Path(__file__).resolve().parents[2] / "notebooks"


def find_notebook(name: Path | str, config: Config) -> Path:
    """Return the notebook at a path, or the one of that name in the `notebooks` folder.

    Raises:
        InputError: there is none, or several have that name.
    """
    folder = notebook_folder(config)
    for path in (Path(name), folder / name, folder / f"{name}.ipynb"):
        if path.is_file() and path.suffix == ".ipynb":
            return path.absolute()
    known = sorted(path.stem for path in folder.glob("*.ipynb"))
    matches = [stem for stem in known if stem.partition("_")[2] == str(name)]
    if len(matches) == 1:
        return (folder / f"{matches[0]}.ipynb").absolute()
    listed = ", ".join(known) or f"none in {folder}"
    raise InputError(f"{name}: no such notebook; there are: {listed}")


def read_notebook(path: Path) -> Any:
    """Return a notebook file as an nbformat 4 node.

    Raises:
        InputError: it cannot be read or is no notebook.
    """
    import nbformat

    try:
        document = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
        nbformat.validate(document)
    except (*_MALFORMED, OSError, nbformat.ValidationError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"{path}: not a notebook: {first}") from error
    return document


def salvage_notebook(path: Path) -> tuple[Any, tuple[int, ...]]:
    """Return an executed notebook without the outputs that no notebook may hold, and the code
    cells (counted from 1) that lost one.

    Raises:
        InputError: it is not readable without them either.
    """
    import nbformat
    from nbformat.v4 import nbbase

    try:
        document = nbformat.from_dict(json.loads(path.read_bytes()))  # type: ignore[no-untyped-call]
        lost = []
        for number, cell in enumerate(code_cells(document), 1):
            kept = [output for output in cell.outputs if _is_valid(output, nbbase.validate)]
            if len(kept) < len(cell.outputs):
                cell.outputs = kept
                lost.append(number)
        nbformat.validate(document)
    except (*_MALFORMED, OSError, nbformat.ValidationError) as error:
        raise InputError(f"{path}: not a notebook: {type(error).__name__}") from error
    return document, tuple(lost)


def _is_valid(output: Any, validate: Callable[..., None]) -> bool:
    import nbformat

    try:
        validate(output, output.output_type)
    except (AttributeError, nbformat.ValidationError):
        return False
    return True


def to_node(value: Any) -> Any:
    """Return a deep copy of a JSON value or notebook as nbformat's nodes."""
    import nbformat

    return nbformat.from_dict(json.loads(json.dumps(value)))  # type: ignore[no-untyped-call]


def new_markdown(text: str, *, tag: str) -> Any:
    """Return a markdown cell that carries `tag`, which is its id too."""
    from nbformat.v4 import new_markdown_cell

    cell = new_markdown_cell(text, metadata={"tags": [tag]})  # type: ignore[no-untyped-call]
    cell["id"] = tag
    return cell


def notebook_text(notebook: Any) -> str:
    """Return a notebook as the text of its file."""
    import nbformat

    return str(nbformat.writes(notebook)) + "\n"  # type: ignore[no-untyped-call]


def code_cells(notebook: Any) -> list[Any]:
    """Return the code cells, in order; a run counts them from 1."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def is_marker(cell: Any) -> bool:
    """Return whether a cell only says that a run did not finish, papermill's or ours."""
    return bool({ENDED_TAG, "papermill-error-cell-tag"} & set(cell.metadata.get("tags", [])))


def cell_outputs(notebook: Any) -> list[dict[str, Any]]:
    """Return the outputs of all cells, in order."""
    return [dict(output) for cell in notebook.cells for output in cell.get("outputs", [])]
