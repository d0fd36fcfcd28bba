"""Whether a configuration is whole: one that was cut off may be valid YAML and mean defaults.

A file whose first line promises a last line is whole if that is there; those that we ship promise
it, and every copy of them does. One without the promise (of an earlier build, or a person's own)
is taken as it is, but for its last line, which must have an end.
"""

from opslib.core.errors import ConfigError

END = "# End of configuration"
BEGIN = "# Configuration, cut off unless its last line is"
_BOM = "\ufeff"


def check_end(text: str, name: str) -> None:
    """Refuse a configuration that does not end as its first line says. Raises `ConfigError` where
    the promised last line is missing, or is not the last one."""
    lines = text.rstrip().splitlines()
    if not has_promise(text) or lines[-1] == END:
        return
    if END in lines:
        raise ConfigError(
            f"{name}: line {lines.index(END) + 2} stands below `{END}`, which must be the last line"
        )
    raise ConfigError(
        f"{name}: cut off: its last line is not `{END}`, as its first line says; bring it back "
        "from a copy, or, if it is whole, end it with that line"
    )


def check_last_line(text: str, name: str) -> None:
    """Refuse a configuration without that promise whose last line has no end, although all that it
    says is in order. Raises `ConfigError` where it may be cut off within a value."""
    if not has_promise(text) and not text.endswith(("\n", "\r")):
        raise ConfigError(
            f"{name}: its last line has no line end: was it cut off? If it is whole, end it with "
            f"one: `echo >> {name}`"
        )


def has_promise(text: str) -> bool:
    """Return whether the first line says what the last one is."""
    return text.removeprefix(_BOM).startswith(BEGIN)


def without_end(text: str) -> str:
    """Return the text without its promised last line, which must stay the last one."""
    return text.rstrip().removesuffix(END) if has_promise(text) else text
