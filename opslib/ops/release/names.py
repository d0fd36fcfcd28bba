"""Which names a release may hold, and how one is shown."""

from __future__ import annotations

MAX_NAME_BYTES = 1024
MAX_DEPTH = 16


def find_name_problem(name: str) -> str | None:
    """Return why a member may not have this name, or None."""
    parts = name.split("/")
    if not name or name.startswith("/"):
        return "an absolute path"
    if ".." in parts:
        return "it leads out of its folder"
    if "" in parts or "." in parts:
        return "not a plain relative path"
    if any(ord(sign) < 32 or sign in "\\\x7f" or "\ud800" <= sign <= "\udfff" for sign in name):
        return "a character that no release's file has"
    if len(name.encode()) > MAX_NAME_BYTES or any(len(part.encode()) > 255 for part in parts):
        return "a name that is too long"
    if len(parts) > MAX_DEPTH:
        return f"more than {MAX_DEPTH} folders deep"
    if parts[-1] == ".env":
        return "a release never holds one"
    return None


def show_name(name: str) -> str:
    """Return a member's name fit for one line, however it was meant."""
    shown = ascii(name)[1:-1] if not name.isprintable() else name
    return shown if len(shown) <= 120 else f"{shown[:117]}..."
