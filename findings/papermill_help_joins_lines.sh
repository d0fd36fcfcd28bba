#!/usr/bin/env bash
# papermill 2.7.0: --help-notebook reads the parameters cell line by line with a pattern of its own,
# and a value that is followed by an indented block swallows the block's head.
# Guess before the run: the default shown is the text behind the equals sign, `2 * rounds`.
# Seen: the default of `limit` is shown as `2 * roundsif rounds > 3:`, and a name that is assigned
# inside the block is listed as a parameter of its own.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q --disable-pip-version-check papermill==2.7.0
cd "$place"
venv/bin/python - <<'P'
import sys
import nbformat, papermill

book = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "python3", "language": "python", "display_name": "Python"}})
cell = nbformat.v4.new_code_cell("rounds = 5\nlimit = 2 * rounds\nif rounds > 3:\n    quick = True\n")
cell.metadata["tags"] = ["parameters"]
book.cells.append(cell)
nbformat.write(book, "in.ipynb")
seen = {name: one["default"] for name, one in papermill.inspect_notebook("in.ipynb").items()}
print(seen)
sys.exit(0 if seen == {"rounds": "5", "limit": "2 * roundsif rounds > 3:", "quick": "True"} else 1)
P
