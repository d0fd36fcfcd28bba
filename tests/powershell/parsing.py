"""PowerShell scripts as syntax trees, and the few ways in which the checks look at them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import tree_sitter_pwsh
from tree_sitter import Language, Node, Parser

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted((ROOT / "scripts").glob("*.ps1"))
PESTER = sorted((ROOT / "tests" / "pester").glob("*.ps1"))
_PARSER = Parser(Language(tree_sitter_pwsh.language()))


@dataclass(frozen=True)
class Script:
    """A script: its bytes as they are on disk, and its tree with plain line ends."""

    name: str
    raw: bytes
    root: Node

    @property
    def text(self) -> str:
        return self.raw.replace(b"\r\n", b"\n").decode("utf-8", "replace")

    def nodes(self, *kinds: str, under: Node | None = None) -> Iterator[Node]:
        """All nodes of these kinds, in the order of the text."""
        return find(under or self.root, *kinds)

    @property
    def functions(self) -> dict[str, Node]:
        return {name_of(node): node for node in self.nodes("function_statement")}

    @property
    def top_level(self) -> list[Node]:
        """The statements of the script itself, its functions among them; no parameters."""
        blocks = [node for node in self.root.children if node.type == "statement_list"]
        return [node for block in blocks for node in block.named_children if node.type != "comment"]

    @property
    def parameters(self) -> dict[str, tuple[str, str]]:
        """The script's own parameters: type and default as they are written."""
        block = next((n for n in self.root.children if n.type == "param_block"), None)
        return read_parameters(block) if block else {}


def read_script(path: Path) -> Script:
    return parse(path.name, path.read_bytes())


def parse(name: str, raw: bytes) -> Script:
    return Script(name, raw, _PARSER.parse(raw.replace(b"\r\n", b"\n")).root_node)


def text_of(node: Node) -> str:
    return (node.text or b"").decode("utf-8", "replace")


def find(node: Node, *kinds: str) -> Iterator[Node]:
    if node.type in kinds:
        yield node
    for child in node.children:
        yield from find(child, *kinds)


def name_of(function: Node) -> str:
    return text_of(next(find(function, "function_name")))


def read_parameters(block: Node) -> dict[str, tuple[str, str]]:
    found = {}
    for one in find(block, "script_parameter"):
        variable = next(child for child in one.children if child.type == "variable")
        types = [text_of(node) for node in find(one, "type_literal")]
        default = next((c for c in one.children if c.type == "script_parameter_default"), None)
        value = text_of(default).removeprefix("=").strip() if default else ""
        found[text_of(variable).removeprefix("$")] = (types[-1] if types else "", value)
    return found


def parameters_of(function: Node) -> dict[str, tuple[str, str]]:
    block = next(find(function, "param_block"), None)
    return read_parameters(block) if block else {}


def skip_single(node: Node) -> Node:
    """The node itself, past the layers of grammar that hold nothing but one other."""
    while len(node.children) == 1 and node.type not in ("command", "variable"):
        child = node.children[0]
        if child.start_byte != node.start_byte or child.end_byte != node.end_byte:
            break
        node = child
    return node
