"""The packages that a requirements.txt asks for, each with version and licence.

A licence is what a package says of itself where it is installed here, in a version that the line
allows. Addresses and folders are read for the name alone: they may hold names of hosts and people.
"""

import codecs
import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import PureWindowsPath
from typing import Literal
from urllib.parse import unquote, urlsplit

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import (
    InvalidSdistFilename,
    InvalidWheelFilename,
    canonicalize_name,
    parse_sdist_filename,
    parse_wheel_filename,
)
from packaging.version import InvalidVersion, Version

MAX_LICENCE_CHARACTERS = 120
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_COMMENT = re.compile(r"(^|\s+)#.*$")
_OPTION = re.compile(r"(?P<name>-[a-zA-Z]|--[a-z-]+)[\s=]*(?P<value>.*)")
_INCLUDES, _EDITABLES = ("-r", "--requirement"), ("-e", "--editable")
_LINE_OPTIONS = re.compile(r"\s+--?[a-zA-Z].*$")
# One field of a package's METADATA with the lines that go on with it.
_FIELD = re.compile(
    r"^(Version|License-Expression|License|Classifier): (.*(?:\n[ \t].*)*)", re.MULTILINE
)
_SAYS_NOTHING = ("", "UNKNOWN")
_EXTRAS = re.compile(r"\[([^\]]*)\]$")
_NAME = re.compile(r"\w[\w.-]*")
_BEFORE_MARKER = re.compile(r"\s+;|;\s+")  # an address may hold a semicolon
Source = Literal["index", "address", "repository", "folder"]


@dataclass(frozen=True, order=True)
class Package:
    """One package as a line asks for it. `version` is empty where the line leaves it open, and so
    is `licence` where it is unknown. `source` is where it comes from: a package index, an address
    of its own, a repository, or a folder, whose name need not be the package's."""

    name: str
    version: str = ""
    licence: str = ""
    extras: tuple[str, ...] = ()
    marker: str = ""
    source: Source = "index"


@dataclass(frozen=True)
class Requirements:
    """What a requirements.txt says: its packages, the names of the other files that it takes in
    (`-r`), and the numbers of the lines that could not be read."""

    packages: tuple[Package, ...]
    elsewhere: tuple[str, ...] = ()
    unread: tuple[int, ...] = ()


def read_requirements(data: bytes) -> Requirements:
    """Return what a requirements.txt with these bytes asks for, sorted by name."""
    packages: set[Package] = set()
    elsewhere: set[str] = set()
    unread: list[int] = []
    for number, line in _lines(data):
        option = _OPTION.fullmatch(line)
        text = option["value"] if option else line
        try:
            if option and option["name"] in _INCLUDES:
                elsewhere.add(_last_part(urlsplit(text).path) or "an address")
            elif not option or option["name"] in _EDITABLES:
                packages.add(_read_line(_LINE_OPTIONS.sub("", text)))
        except (ValueError, RecursionError):  # of `packaging`, or of an address that is none
            unread.append(number)
    return Requirements(tuple(sorted(packages)), tuple(sorted(elsewhere)), tuple(unread))


def _lines(data: bytes) -> Iterator[tuple[int, str]]:
    """The lines that say something, each with the number of its first; continued ones as one."""
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    begun, first = "", 0
    for number, line in enumerate(data.decode(encoding, "replace").splitlines(), 1):
        first = first or number
        begun += line.removeprefix("\ufeff")
        if begun.endswith("\\"):
            begun = begun[:-1] + " "
            continue
        if text := _COMMENT.sub("", begun).strip():
            yield first, text
        begun, first = "", 0
    if text := _COMMENT.sub("", begun).strip():
        yield first, text


def _read_line(text: str) -> Package:
    try:
        wanted = Requirement(text)
    except InvalidRequirement:
        return _read_place(text)
    extras, marker = tuple(sorted(wanted.extras)), str(wanted.marker or "")
    if wanted.url is not None:
        found = _read_place(wanted.url, wanted.name)
        licence = _find_licence(wanted.name, _exactly(found.version))
        return Package(wanted.name, found.version, licence, extras, marker, found.source)
    pins = [one.version for one in wanted.specifier if one.operator in ("==", "===")]
    version = next((one for one in pins if _is_version(one)), "")
    licence = _find_licence(wanted.name, wanted.specifier)
    return Package(wanted.name, version, licence, extras, marker)


def _read_place(text: str, named: str = "") -> Package:
    """The package at an address or in a folder, as far as that tells. Raises InvalidRequirement:
    it is neither, or an address that names no package, where the line has not `named` it."""
    place, marker = (*_BEFORE_MARKER.split(text, maxsplit=1), "")[:2]
    address = urlsplit(place.strip())
    is_address = len(address.scheme) > 1  # a single letter is a drive
    source: Source = "repository" if "+" in address.scheme else "address"
    path = unquote(address.path) if is_address else place.strip()
    if not is_address:
        source = "folder"
        if not re.search(r"[/\\]|^\.|\.(whl|zip|gz)$", path):
            raise InvalidRequirement(text)
    bare = _EXTRAS.sub("", path)
    extras = [one.strip() for found in _EXTRAS.findall(path) for one in found.split(",")]
    found = _read_file_name(_last_part(bare))
    if egg := re.search(r"(?:^|&)egg=(\w[\w.-]*)(?:\[([^\]]*)\])?", address.fragment):
        named = egg[1]
        extras += [one.strip() for one in (egg[2] or "").split(",")]
    if source == "address" and not (named or found[1]):  # what a download is called may be secret
        raise InvalidRequirement(text)
    name, version = named or found[0], found[1]
    licence = _find_licence(name, _exactly(version))
    asked = tuple(sorted(filter(None, extras)))
    return Package(name, version, licence, asked, marker.strip(), source)


def _read_file_name(file_name: str) -> tuple[str, str]:
    """Name and version that a distribution's file name says; of anything else its stem."""
    try:
        if file_name.endswith(".whl"):
            name, version, _, _ = parse_wheel_filename(file_name)
        else:
            name, version = parse_sdist_filename(file_name)
    except (InvalidWheelFilename, InvalidSdistFilename):
        stem = re.sub(r"(\.git)?(@.*)?$", "", file_name)
        return stem if _NAME.fullmatch(stem) else ".", ""
    return str(name), str(version)


def _is_version(text: str) -> bool:
    """Whether it is a version, not a pattern or, after `===`, any text."""
    with suppress(InvalidVersion):
        return bool(Version(text))
    return False


def _last_part(path: str) -> str:
    return PureWindowsPath(path.strip().strip("\"'")).name


def _exactly(version: str) -> SpecifierSet:
    return SpecifierSet(f"=={version}" if version else "")


def _find_licence(name: str, allowed: SpecifierSet) -> str:
    """What the installed package says: an expression, else a short text, else its classifiers."""
    try:
        text = metadata.distribution(canonicalize_name(name)).read_text("METADATA") or ""
    except (metadata.PackageNotFoundError, ValueError):
        return ""
    about = defaultdict[str, list[str]](list)
    for name, value in _FIELD.findall(re.split(r"\r?\n\r?\n", text, maxsplit=1)[0]):
        about[name].append(value.strip())
    if not any(allowed.contains(one, prereleases=True) for one in about["Version"]):
        return ""
    for said in (*about["License-Expression"], *about["License"]):
        if "\n" not in said and len(said) <= MAX_LICENCE_CHARACTERS and said not in _SAYS_NOTHING:
            return said
    kinds = [one.split(" :: ") for one in about["Classifier"]]
    return ", ".join(one[-1] for one in kinds if one[0] == "License" and len(one) > 2)
