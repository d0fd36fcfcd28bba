"""No secret leaves with a release: every text file is looked through before it is packed."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from detect_secrets.plugins import (
    aws,
    basic_auth,
    github_token,
    jwt,
    keyword,
    private_key,
    slack,
)
from detect_secrets.plugins.base import BasePlugin

from opslib.core.errors import SecretLeakError
from opslib.ops.release.opened import OpenedFile

TEXT_SUFFIXES = frozenset({".yaml", ".yml", ".json", ".txt", ".example", ".md", ".toml", ".ini"})
_CHUNK_BYTES = 1 << 20
_OVERLAP_BYTES = 4096
# What an example or a reference may say where a secret would stand.
_HARMLESS = re.compile(
    r"""(?ix) ^ (?: env:\w+ | null | none | true | false | \W* | =*\d{1,4}(?:\.\d+)*
      | \$\w+ | \$?\{.*\} ) $"""
)
# What stands for a secret says so in words: `<your key>`, CHANGE_ME_STRONG_RANDOM_KEY, xxxx.
_STANDS_FOR = re.compile(
    r"""(?ix) ^ (?: <.*> | (?: your | insert | enter | put | todo | fixme | dummy | fake | sample
      | example | placeholder | change[-_ ]?(?:me|this|it) | replace[-_ ]?(?:me|this|with|it)
      ) (?: [^a-z0-9].* )? | (?: .*[^a-z0-9] )? (?: here | placeholder | x{3,} ) ) $"""
)
# Rules that go by names and well-known forms; guesses by entropy would flag every digest.
_DETECTORS: tuple[tuple[BasePlugin, str], ...] = (
    (keyword.KeywordDetector(), "a key-like assignment"),
    (basic_auth.BasicAuthDetector(), "a password in an address"),
    (private_key.PrivateKeyDetector(), "a private key"),
    (aws.AWSKeyDetector(), "an AWS key"),
    (github_token.GitHubTokenDetector(), "a GitHub token"),
    (slack.SlackDetector(), "a Slack token"),
    (jwt.JwtTokenDetector(), "a JSON web token"),
)
_MENTIONS = re.compile("|".join(keyword.DENYLIST), re.IGNORECASE)
_PLAIN_WORD = re.compile(r"[a-z]{1,12}|[A-Z]{1,12}|[A-Z][a-z]{1,11}|\d{1,3}|[xX]+")


def scan_files(files: Iterable[OpenedFile], secrets: Iterable[str]) -> None:
    """Look through the text files for live secrets and for assignments that look like one.
    `secrets`: the values in use, from `.env` and the environment. Raises SecretLeakError: one was
    found; the message names file and line, never the value."""
    needles = tuple(secrets)
    for opened in files:
        if Path(opened.member).suffix not in TEXT_SUFFIXES:
            continue
        for number, line in _lines(opened):
            finding = find_secret(line, needles)
            if finding is not None:
                raise SecretLeakError(
                    f"{opened.source}:{number}: {finding}; nothing was released: "
                    "take it out of the file (secrets belong into .env)"
                )


def find_secret(line: str, secrets: Iterable[str] = ()) -> str | None:
    """Return what is wrong with a line, or None; the secret itself is not repeated."""
    if any(secret in line for secret in secrets):
        return "holds the value of a secret that is in use"
    for detector, kind in _DETECTORS:
        for value in _values(detector, line):
            if not _is_harmless(value.strip().strip("\"'`,")):
                return f"looks like a secret ({kind})"
    return None


def _is_harmless(value: str) -> bool:
    """Whether a value is a reference, or stands for a secret: then it is of words alone, since a
    secret may follow what says that it stands for one."""
    if _HARMLESS.match(value):
        return True
    words = re.findall(r"[A-Za-z0-9]+", value)
    plain = all(_PLAIN_WORD.fullmatch(word) for word in words)
    return plain and _STANDS_FOR.match(value) is not None


def _lines(opened: OpenedFile) -> Iterator[tuple[int, str]]:
    """Yield each line with its number; a very long one in pieces that overlap."""
    number, rest, offset = 1, b"", 0
    while chunk := opened.read_at(offset, _CHUNK_BYTES):
        offset += len(chunk)
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield number, line.decode("utf-8", "replace")
            number += 1
        if len(rest) > _CHUNK_BYTES:
            yield number, rest.decode("utf-8", "replace")
            rest = rest[-_OVERLAP_BYTES:]
    yield number, rest.decode("utf-8", "replace")


def _values(detector: BasePlugin, line: str) -> Iterator[str]:
    if not isinstance(detector, keyword.KeywordDetector):
        yield from map(str, detector.analyze_string(line))
    elif _MENTIONS.search(line):  # its own patterns are slow on a long line
        yield from detector.analyze_string(line, keyword.CONFIG_DENYLIST_REGEX_TO_GROUP)
