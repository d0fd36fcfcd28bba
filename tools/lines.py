"""Count the library's lines, room by room, now and at another commit.

    python tools/lines.py [COMMIT]

A line of code is one that is neither blank nor only a comment nor part of a docstring.
"""

from __future__ import annotations

import ast
import io
import subprocess
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}


def count_code(text: str) -> int:
    """Return how many lines of a module hold code."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in _NO_CODE and token.type != tokenize.ENDMARKER:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if first is not None and ast.get_docstring(node, clean=False) is not None:
                lines.difference_update(range(first.lineno, (first.end_lineno or 0) + 1))
    return len(lines)


def read_modules(commit: str | None) -> Iterator[tuple[str, str]]:
    """Yield each module's name within the library and its text, of this tree or of a commit."""
    if commit is None:
        for path in sorted((ROOT / "opslib").rglob("*.py")):
            yield path.relative_to(ROOT / "opslib").as_posix(), path.read_text()
        return
    names = _git("ls-tree", "-r", "--name-only", commit, "opslib").splitlines()
    for name in names:
        if name.endswith(".py"):
            yield name.removeprefix("opslib/"), _git("show", f"{commit}:{name}")


def count(commit: str | None) -> dict[str, Counter[str]]:
    """Return files, lines and lines of code of each room and of the whole."""
    found: dict[str, Counter[str]] = {}
    for name, text in read_modules(commit):
        parts = name.split("/")[:-1]
        for room in ("/".join(parts[: 2 if parts[:1] == ["ops"] else 1]) or "(root)", "whole"):
            one = found.setdefault(room, Counter())
            one.update(files=1, lines=len(text.splitlines()), code=count_code(text))
    return found


def _git(*words: str) -> str:
    return subprocess.run(
        ["git", *words], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout


def main() -> None:
    """Print the table, and the shares of the other commit if one is named."""
    now = count(None)
    for room, one in sorted(now.items()):
        print(f"{room:16} {one['files']:4} files {one['lines']:6} lines {one['code']:6} of code")
    if len(sys.argv) > 1:
        then = count(sys.argv[1])["whole"]
        whole = now["whole"]
        shares = ", ".join(f"{name} {whole[name] / then[name]:.3f}" for name in ("lines", "code"))
        print(f"against {sys.argv[1]} ({then['lines']} lines, {then['code']} of code): {shares}")


if __name__ == "__main__":
    main()
