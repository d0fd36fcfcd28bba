"""A small interpreter for the part of PowerShell that the scripts' decisions are written in.

There is no PowerShell engine among the packages that the tests may use. This one knows the
statements, operators and calls that occur in the decisions, with PowerShell's own rules where they
surprise (a function's output is unrolled, text compares without case, a missing variable or key is
an error under strict mode), and refuses everything else. It shows that the decisions in the
scripts are those of the case tables; it is no proof that a real engine reads them the same way.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from tree_sitter import Node

from tests.powershell.parsing import Script, find, parameters_of, skip_single, text_of


class Nothing:
    """What a function without output leaves in a variable; equal to $null, but no element."""


NOTHING = Nothing()
Value = Any
Scope = dict[str, Value]
Builtin = Callable[..., Value]


class ScriptError(Exception):
    """The script did what strict mode, or this interpreter, does not allow."""


class _Return(Exception):  # noqa: N818 (no error: how `return` leaves a function)
    def __init__(self, stream: list[Value]) -> None:
        self.stream = stream


class _Break(Exception):  # noqa: N818
    pass


class _Continue(Exception):  # noqa: N818
    pass


class Interpreter:
    """Runs a script's own functions; `stubs` take the place of functions of their names.

    A stub gets its arguments by their names in lower case.
    """

    def __init__(self, script: Script, stubs: dict[str, Builtin] | None = None) -> None:
        self._functions = {name.lower(): node for name, node in script.functions.items()}
        self._stubs = {name.lower(): stub for name, stub in (stubs or {}).items()}

    def call(self, name: str, **arguments: Value) -> Value:
        """Call a function as `$x = Name -A a` does."""
        given = {key.lower(): value for key, value in arguments.items()}
        return _collapse(self._call(name, given))

    def _call(self, name: str, arguments: Scope) -> list[Value]:
        key = name.lower()
        if key in self._stubs:
            return _unroll(self._stubs[key](**arguments))
        function = self._functions.get(key)
        if function is None:
            raise ScriptError(f"{name}: no such function")
        scope: Scope = {}
        declared = parameters_of(function)
        unknown = arguments.keys() - {one.lower() for one in declared}
        if unknown:
            raise ScriptError(f"{name}: no parameter {unknown}")
        for parameter, (type_name, _) in declared.items():
            value = arguments.get(parameter.lower())
            scope[parameter.lower()] = _convert(value, type_name)
        body = next(find(function, "script_block_body"), None)
        try:
            return self._block(body, scope) if body else []
        except _Return as done:
            return done.stream

    # --- statements ---------------------------------------------------------------------------

    def _block(self, node: Node, scope: Scope) -> list[Value]:
        stream: list[Value] = []
        for child in node.named_children:
            if child.type == "statement_list":
                stream += self._block(child, scope)
            elif child.type not in ("comment", "empty_statement"):
                stream += self._statement(child, scope)
        return stream

    def _statement(self, node: Node, scope: Scope) -> list[Value]:
        kind = node.type
        if kind == "pipeline":
            inner = skip_single(node)
            if inner.type == "assignment_expression":
                self._assign(inner, scope)
                return []
            if inner.type == "post_increment_expression":
                name = text_of(inner.children[0])[1:].lower()
                scope[name] = scope[name] + 1
                return []
            return self._stream(node, scope)
        if kind == "if_statement":
            return self._if(node, scope)
        if kind in ("foreach_statement", "while_statement", "for_statement"):
            return self._loop(node, scope)
        if kind == "flow_control_statement":
            word = text_of(node.children[0]).lower()
            if word == "break":
                raise _Break
            if word == "continue":
                raise _Continue
            if word == "return":
                rest = node.named_children[-1] if node.named_children else None
                raise _Return(self._stream(rest, scope) if rest is not None else [])
            raise ScriptError(f"{word}: {text_of(node)}")
        raise ScriptError(f"statement not known here: {kind}: {text_of(node)[:80]}")

    def _if(self, node: Node, scope: Scope) -> list[Value]:
        branches = [node, *find_children(node, "elseif_clauses", "elseif_clause")]
        for branch in branches:
            condition = branch.child_by_field_name("condition")
            if condition is None:
                raise ScriptError("if without a condition")
            if _truth(self._value(condition, scope)):
                return self._block(_body(branch), scope)
        other = node.child_by_field_name("else_clause")
        return self._block(_body(other), scope) if other else []

    def _loop(self, node: Node, scope: Scope) -> list[Value]:
        stream: list[Value] = []
        for _ in self._turns(node, scope):
            try:
                stream += self._block(_body(node), scope)
            except _Continue:
                continue
            except _Break:
                break
        return stream

    def _turns(self, node: Node, scope: Scope) -> Iterator[None]:
        if node.type == "foreach_statement":
            name = text_of(next(c for c in node.children if c.type == "variable"))[1:].lower()
            source = next(c for c in node.children if c.type == "pipeline")
            for one in _enumerate(self._value(source, scope)):
                scope[name] = one
                yield
            return
        if node.type == "for_statement":
            start = node.child_by_field_name("for_initializer")
            condition = node.child_by_field_name("for_condition")
            step = node.child_by_field_name("for_iterator")
            if start is None or condition is None or step is None:
                raise ScriptError("for without all its parts")
            self._statement(start.named_children[0], scope)
            for _ in range(100_000):
                if not _truth(self._value(condition, scope)):
                    return
                yield
                self._statement(step.named_children[0], scope)
        condition = node.child_by_field_name("condition")
        for _ in range(100_000):
            if condition is None or not _truth(self._value(condition, scope)):
                return
            yield
        raise ScriptError("a loop without an end")

    def _assign(self, node: Node, scope: Scope) -> None:
        left, operator, right = (c for c in node.named_children if c.type != "comment")
        value = self._value(right, scope)
        target = skip_single(left)
        if text_of(operator) == "+=":
            value = _add(self._value(left, scope), value)
        elif text_of(operator) != "=":
            raise ScriptError(f"assignment {text_of(operator)}")
        if target.type == "variable":
            name = text_of(target)[1:].lower()
            if name != "null":
                scope[name] = value
        elif target.type == "member_access":
            owner = self._value(target.named_children[0], scope)
            owner[text_of(target.named_children[1])] = value
        elif target.type == "element_access":
            owner = self._value(target.named_children[0], scope)
            owner[self._value(target.named_children[1], scope)] = value
        else:
            raise ScriptError(f"assignment to {target.type}")

    # --- values -------------------------------------------------------------------------------

    def _stream(self, node: Node, scope: Scope) -> list[Value]:
        """What a pipeline writes: each element of an array on its own."""
        inner = skip_single(node)
        if inner.type == "command":
            return self._command(inner, scope, None)
        if inner.type == "pipeline_chain":
            parts = [child for child in inner.named_children if child.type != "comment"]
            stream = _unroll(self._value(parts[0], scope))
            for part in parts[1:]:
                stream = self._command(skip_single(part), scope, stream)
            return stream
        return _unroll(self._value(inner, scope))

    def _value(self, node: Node, scope: Scope) -> Value:
        node = skip_single(node)
        handler = getattr(self, f"_value_{node.type}", None)
        if handler is not None:
            return handler(node, scope)
        if node.type in ("command", "pipeline_chain"):
            return _collapse(self._stream(node, scope))
        if node.type.endswith(("_expression", "_argument_expression")) and len(node.children) == 3:
            left, operator, right = node.children
            return self._binary(left, text_of(operator).lower(), right, scope)
        raise ScriptError(f"expression not known here: {node.type}: {text_of(node)[:80]}")

    def _value_variable(self, node: Node, scope: Scope) -> Value:
        name = text_of(node)[1:].strip("{}").lower()
        if name in ("true", "false", "null"):
            return {"true": True, "false": False, "null": None}[name]
        if name == "env:computername":
            return "HOST"
        if name not in scope:
            raise ScriptError(f"${name} is not set")
        return scope[name]

    def _value_decimal_integer_literal(self, node: Node, _scope: Scope) -> Value:
        return int(text_of(node))

    def _value_verbatim_string_characters(self, node: Node, _scope: Scope) -> Value:
        return text_of(node)[1:-1].replace("''", "'")

    def _value_expandable_string_literal(self, node: Node, scope: Scope) -> Value:
        parts, at = [], node.start_byte + 1
        source = node.text or b""
        for child in node.children:
            if child.type in ("variable", "sub_expression"):
                parts.append(source[at - node.start_byte : child.start_byte - node.start_byte])
                parts.append(_text(self._value(child, scope)).encode())
                at = child.end_byte
        parts.append(source[at - node.start_byte : -1])
        return re.sub(r"`(.)", r"\1", b"".join(parts).decode())

    def _value_sub_expression(self, node: Node, scope: Scope) -> Value:
        inner = node.child_by_field_name("statements")
        return _collapse(self._block(inner, scope)) if inner else NOTHING

    def _value_array_expression(self, node: Node, scope: Scope) -> Value:
        inner = node.child_by_field_name("statements")
        return self._block(inner, scope) if inner else []

    def _value_array_literal_expression(self, node: Node, scope: Scope) -> Value:
        return [self._value(child, scope) for child in node.named_children]

    def _value_parenthesized_expression(self, node: Node, scope: Scope) -> Value:
        return self._value(node.named_children[0], scope)

    def _value_hash_literal_expression(self, node: Node, scope: Scope) -> Value:
        found = {}
        for entry in find_children(node, "hash_literal_body", "hash_entry"):
            key, value = entry.named_children[:2]
            found[text_of(key).strip("'")] = self._value(value, scope)
        return found

    def _value_member_access(self, node: Node, scope: Scope) -> Value:
        owner = self._value(node.named_children[0], scope)
        name = text_of(node.named_children[1])
        if isinstance(owner, list) and name == "Count":
            return len(owner)
        if isinstance(owner, str) and name == "Length":
            return len(owner)
        if isinstance(owner, dict) and name in owner:
            return owner[name]
        raise ScriptError(f"no member {name} in {text_of(node)}")

    def _value_element_access(self, node: Node, scope: Scope) -> Value:
        owner = self._value(node.named_children[0], scope)
        key = self._value(node.named_children[1], scope)
        if isinstance(owner, dict):
            return owner.get(key)
        return owner[key]

    def _value_expression_with_unary_operator(self, node: Node, scope: Scope) -> Value:
        operator = text_of(node.children[0]).lower()
        if operator == "-not":
            return not _truth(self._value(node.children[1], scope))
        raise ScriptError(f"operator {operator}")

    def _value_cast_expression(self, node: Node, scope: Scope) -> Value:
        type_name, value = node.named_children
        return _convert(self._value(value, scope), text_of(type_name))

    def _value_invocation_expression(self, node: Node, scope: Scope) -> Value:
        owner, name, given = (child for child in node.named_children)
        arguments = []
        for one in find_children(given, "argument_expression_list", "argument_expression"):
            arguments.append(self._value(one, scope))
        method = text_of(name)
        if owner.type == "type_literal":
            return _call_static(text_of(owner), method, arguments)
        return _call_method(self._value(owner, scope), method, arguments)

    def _binary(self, left: Node, operator: str, right: Node, scope: Scope) -> Value:
        first = self._value(left, scope)
        if operator == "-and":
            return _truth(first) and _truth(self._value(right, scope))
        if operator == "-or":
            return _truth(first) or _truth(self._value(right, scope))
        return _operate(first, operator, self._value(right, scope))

    # --- commands -----------------------------------------------------------------------------

    def _command(self, node: Node, scope: Scope, source: list[Value] | None) -> list[Value]:
        name = text_of(node.child_by_field_name("command_name") or node)
        elements = node.child_by_field_name("command_elements")
        words = (
            [c for c in elements.children if c.type != "command_argument_sep"] if elements else []
        )
        if name == "ForEach-Object" and source is not None:
            block = next(find(words[0], "script_block_body"))
            return [v for one in source for v in self._block(block, scope | {"_": one})]
        if name == "Sort-Object" and source is not None and not words:
            return sorted(source)
        arguments: Scope = {}
        flag = None
        for word in words:
            if word.type == "command_parameter":
                if flag is not None:
                    arguments[flag] = True
                flag = text_of(word)[1:].lower()
            elif flag is None:
                raise ScriptError(f"{name}: an argument without its name: {text_of(word)}")
            else:
                arguments[flag], flag = self._value(word, scope), None
        if flag is not None:
            arguments[flag] = True
        if name == "Select-Object" and source is not None:
            if "last" in arguments:
                return source[-arguments["last"] :]
            return source[arguments["skip"] :]
        if source is not None:
            raise ScriptError(f"{name}: not known in a pipeline")
        return self._call(name, arguments)


def find_children(node: Node, *kinds: str) -> Iterator[Node]:
    """Descendants reached through nodes of the first kinds only, the last kind yielded."""
    kind, *rest = kinds
    for child in node.children:
        if child.type == kind and not rest:
            yield child
        elif child.type == kind:
            yield from find_children(child, *rest)


def _body(node: Node | None) -> Node:
    if node is not None:
        for child in node.children:
            if child.type == "statement_block":
                return child
    raise ScriptError("a statement without a block")


def _unroll(value: Value) -> list[Value]:
    if value is NOTHING:
        return []
    return list(value) if isinstance(value, list) else [value]


def _collapse(stream: list[Value]) -> Value:
    if not stream:
        return NOTHING
    return stream[0] if len(stream) == 1 else stream


def _enumerate(value: Value) -> list[Value]:
    return [] if value is None else _unroll(value)


def _is_null(value: Value) -> bool:
    return value is None or value is NOTHING


def _truth(value: Value) -> bool:
    if _is_null(value):
        return False
    if isinstance(value, list):
        return len(value) > 1 or (len(value) == 1 and _truth(value[0]))
    return True if isinstance(value, dict) else bool(value)


def _text(value: Value) -> str:
    if _is_null(value):
        return ""
    if isinstance(value, list):
        return " ".join(map(_text, value))
    return str(value)


def _convert(value: Value, type_name: str) -> Value:
    name = type_name.strip("[]").lower().removesuffix("[")
    if type_name.endswith("[]]"):
        items = [] if _is_null(value) else _unroll(value)
        return [_convert(one, f"[{name}]") for one in items]
    if name == "string":
        return _text(value)
    if name in ("int", "long"):
        return 0 if _is_null(value) else round(float(value))
    if name == "double":
        return float(value)
    if name in ("bool", "switch"):
        return _truth(value)
    if name == "hashtable":
        if not _is_null(value) and not isinstance(value, dict):
            raise ScriptError(f"{value!r} is no hashtable")
        return None if _is_null(value) else value
    if name in ("object", ""):
        return value
    raise ScriptError(f"type {type_name}")


def _fold(value: Value) -> Value:
    return value.lower() if isinstance(value, str) else value


def _equal(left: Value, right: Value) -> bool:
    if _is_null(left) or _is_null(right):
        return _is_null(left) and _is_null(right)
    if isinstance(left, str):
        return left.lower() == _text(right).lower()
    if isinstance(left, bool) != isinstance(right, bool):
        raise ScriptError("a truth compared with something else")
    return bool(left == right)


def _operate(left: Value, operator: str, right: Value) -> Value:
    if operator == "-contains":
        return any(_equal(one, right) for one in left)
    if isinstance(left, list) and operator.startswith("-") and operator not in ("-join", "-"):
        raise ScriptError(f"{operator} filters an array; not meant in a decision")
    if operator in ("-eq", "-ne"):
        return _equal(left, right) == (operator == "-eq")
    if operator in ("-lt", "-le", "-gt", "-ge"):
        if _is_null(left) or _is_null(right):
            raise ScriptError(f"$null {operator}")
        left, right = _fold(left), _fold(right)
        answers = {"-lt": left < right, "-le": left <= right}
        answers |= {"-gt": left > right, "-ge": left >= right}
        return answers[operator]
    if operator == "+":
        return _add(left, right)
    if operator == "-join":
        return right.join(map(_text, _unroll(left)))
    if operator == "-f":
        return re.sub(r"\{(\d+)\}", lambda m: _text(right[int(m[1])]), left)
    if operator in ("-", "*", "/"):
        return {"-": left - right, "*": left * right, "/": left / (right or 1)}[operator]
    raise ScriptError(f"operator {operator}")


def _add(left: Value, right: Value) -> Value:
    if isinstance(left, list):
        return left + (list(right) if isinstance(right, list) else [right])
    if _is_null(left):
        return right
    if isinstance(left, dict):
        raise ScriptError("a hashtable is added to")
    return left + (_text(right) if isinstance(left, str) else right)


def _call_static(owner: str, method: str, arguments: list[Value]) -> Value:
    if owner.lower() == "[math]":
        known = {"Abs": abs, "Max": max, "Min": min, "Round": round}
        return known[method](*arguments)
    if owner.lower() == "[regex]" and method == "Escape":
        return re.escape(arguments[0])
    if owner.lower() == "[regex]" and method == "Match":
        found = re.search(arguments[1], arguments[0])
        groups = (found[0], *found.groups()) if found else ()
        return {
            "Success": found is not None,
            "Groups": [{"Success": one is not None, "Value": one or ""} for one in groups],
        }
    raise ScriptError(f"{owner}::{method} is not known here")


def _call_method(owner: Value, method: str, arguments: list[Value]) -> Value:
    if isinstance(owner, dict) and method == "Clone":
        return dict(owner)
    if isinstance(owner, str):
        if method == "Substring":
            start, *length = arguments
            if start > len(owner):
                raise ScriptError("Substring past the end")
            return owner[start : start + length[0]] if length else owner[start:]
        if method == "PadLeft":
            return owner.rjust(arguments[0], arguments[1])
    raise ScriptError(f".{method}() of {type(owner).__name__} is not known here")
