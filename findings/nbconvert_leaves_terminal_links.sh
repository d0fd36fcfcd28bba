#!/usr/bin/env bash
# nbconvert 7.17.2: colours that a cell printed become styles in the page, but a terminal hyperlink
# (OSC 8, as rich and pytest print them) and a backspace stay in it as raw control characters.
# Guess before the run: what is no colour is stripped, and the text of the link is left.
# Seen: the page holds U+001B and U+0008, which HTML does not allow, and the address is shown as text.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q --disable-pip-version-check nbconvert==7.17.2
cd "$place"
venv/bin/python - <<'P'
import sys
import nbformat
from nbconvert import HTMLExporter

printed = "\x1b[31mred\x1b[0m \x1b]8;;https://example.org\x1b\\link\x1b]8;;\x1b\\ 10 %\b\b\b\b20 %\n"
cell = nbformat.v4.new_code_cell("", outputs=[nbformat.v4.new_output("stream", text=printed)])
book = nbformat.v4.new_notebook(cells=[cell])
page, _ = HTMLExporter(template_name="basic").from_notebook_node(book)
shown = page[page.index("ansi-red") - 20 :].split("</pre>")[0]
print(repr(shown))
sys.exit(0 if "\x1b]8;;https://example.org" in shown and "\b" in shown and "ansi-red" in shown else 1)
P
