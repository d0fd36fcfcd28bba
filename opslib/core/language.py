"""The language in which people are told things: English as the code says it, or a translation.

A message is written in English where it is said, with `{names}` for what is put in: figures, names,
paths and commands are put in after translating, so no language changes them. The translations are
one catalogue for each language, `opslib/locale/<language>/LC_MESSAGES/pillops.po`, which is read
when that language is asked for. What programs read (keys of records, states, verdicts) stays
English.
"""

import gettext
import io
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

from opslib.core.errors import InputError, ParameterError

Language = Literal["en", "ko"]
ENGLISH: Language = "en"
LOCALE = Path(__file__).resolve().parents[1] / "locale"
DOMAIN = "pillops"


class _InForce:
    """The language of this process, and its catalogue."""

    language: Language = ENGLISH
    catalogue = gettext.NullTranslations()


def use_language(language: Language) -> None:
    """Tell people everything in `language` from here on. Raises ParameterError: there is none."""
    if language not in get_args(Language):
        known = ", ".join(get_args(Language))
        raise ParameterError(f"language: got {language!r}, expected one of {known}")
    english = language == ENGLISH
    _InForce.catalogue = gettext.NullTranslations() if english else _read_catalogue(language)
    _InForce.language = language


def language_in_force() -> Language:
    """Return the language that people are told things in."""
    return _InForce.language


def tr(message: str, /, **values: Any) -> str:
    """Return a message in the language in force, `values` put into it as `str.format` does. Without
    values it stays as it is, braces too: a text that is no message may be given."""
    told = _InForce.catalogue.gettext(message) if message else ""
    return told.format(**values) if values else told


def tr_many(one: str, many: str, count: int, /, **values: Any) -> str:
    """Return the message for a number of things, put in as `{count}`."""
    return _InForce.catalogue.ngettext(one, many, count).format(count=count, **values)


def mark(message: str) -> str:
    """Return a message as it is: one that `tr` is given later, by name."""
    return message


def name_some(names: list[str], most: int = 3) -> str:
    """Return `A`, `A and B`, `A, B and C`, and of more than `most` how many are not named."""
    shown = names
    if len(names) > most:
        rest = len(names) - most + 1
        shown = [*names[: most - 1], tr_many("{count} more", "{count} more", rest)]
    if len(shown) < 2:
        return "".join(shown)
    return tr("{names} and {last}", names=", ".join(shown[:-1]), last=shown[-1])


@cache
def _read_catalogue(language: Language) -> gettext.GNUTranslations:
    from babel.messages.mofile import write_mo
    from babel.messages.pofile import PoFileError, read_po

    path, compiled = LOCALE / language / "LC_MESSAGES" / f"{DOMAIN}.po", io.BytesIO()
    try:
        with path.open("rb") as file:
            write_mo(compiled, read_po(file, language, abort_invalid=True))
    except (OSError, ValueError, PoFileError) as error:
        raise InputError(f"{path}: cannot be read: {error}; install the package again") from error
    compiled.seek(0)
    return gettext.GNUTranslations(compiled)
