#!/usr/bin/env bash
# papermill 2.7.0: `-p NAME VALUE` takes for a number whatever Python's int() and float() take:
# underscores between digits go, and the words nan and infinity become floats.
# Guess before the run: a tag such as 2026_11 arrives as the text that was typed, as `1e3x` does.
# Seen: `-p tag 2026_11` is the number 202611, `-p label nan` a NaN; `--parameters_raw` (-r) keeps both.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q --disable-pip-version-check papermill==2.7.0
cd "$place"
venv/bin/python - <<'P'
import nbformat

book = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "python3", "language": "python", "display_name": "Python"}})
book.cells.append(nbformat.v4.new_code_cell("tag, label, raw = '', '', ''", metadata={"tags": ["parameters"]}))
nbformat.write(book, "in.ipynb")
P
venv/bin/papermill --prepare-only -p tag 2026_11 -p label nan -r raw 2026_11 in.ipynb out.ipynb 2>/dev/null
venv/bin/python - <<'P'
import sys
import nbformat

seen = nbformat.read("out.ipynb", 4).metadata.papermill.parameters
print(dict(seen))
sys.exit(0 if seen["tag"] == 202611 and seen["label"] != seen["label"] and seen["raw"] == "2026_11" else 1)
P
