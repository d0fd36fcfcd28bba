"""Reading multipart uploads: every byte is counted before it is kept, and nothing else is kept."""

import io
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from email.errors import MessageError
from email.header import decode_header, make_header
from email.message import Message
from pathlib import PurePosixPath

from multipart import (
    MultipartError,
    MultipartSegment,
    ParserLimitReached,
    PushMultipartParser,
    parse_options_header,
)
from starlette.requests import Request

from opslib.serving.failures import RefusalError

_OVERHEAD_BYTES = 64 * 1024  # part headers and boundaries beside the images themselves
_MAX_PARTS = 64
_MAX_HEADERS = 16  # of one part
_CHARSETS = ("utf-8", "iso-8859-1", "us-ascii")  # what RFC 8187 knows


@dataclass(frozen=True)
class UploadLimits:
    """How many files one request may bring and how large they may be."""

    files: int
    file_bytes: int
    total_bytes: int


@dataclass
class Upload:
    """One uploaded file: its declared name and type, and its bytes."""

    filename: str
    content_type: str
    data: io.BytesIO = field(default_factory=io.BytesIO, repr=False)

    @property
    def suffix(self) -> str:
        """The extension of the declared name, in lower case, such as `.jpg`."""
        return PurePosixPath(self.filename.replace("\\", "/")).suffix.lower()


async def read_uploads(request: Request, name: str, limits: UploadLimits) -> list[Upload]:
    """Return the files of the multipart field `name`, at least one, in order; refuse a body that is
    no such form, too large or too slow, or has too many files."""
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != "multipart/form-data":
        raise RefusalError(415, f"expected multipart/form-data with the file field {name!r}")
    if not options.get("boundary"):
        raise RefusalError(400, "the Content-Type header has no multipart boundary")
    form = _Form(name, limits)
    try:
        parser = PushMultipartParser(
            options["boundary"].encode("latin-1"),
            max_header_count=_MAX_HEADERS,
            max_segment_count=_MAX_PARTS,
            header_charset="latin-1",  # which decodes any byte
        )
        async for chunk in read_body(request, limits.total_bytes + _OVERHEAD_BYTES):
            for event in parser.parse(chunk):
                form.take(event)
        parser.close()
    except ParserLimitReached as error:
        raise RefusalError(413, f"the multipart body is too intricate: {error}") from error
    except MultipartError as error:
        raise RefusalError(400, f"the multipart body is malformed: {error}") from error
    if not form.uploads:
        raise RefusalError(422, f"the form has no file named {name!r}", code="file_missing")
    return form.uploads


async def read_body(request: Request, limit_bytes: int) -> AsyncIterator[bytes]:
    """Yield the body as it arrives, in the time that `protocol` gives it; refuse one longer than
    `limit_bytes`, or whose client went away."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit_bytes:
        raise _too_large(limit_bytes)
    count = 0
    more = True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            close = {"Connection": "close"}
            raise RefusalError(400, "the client went away", code="disconnected", headers=close)
        chunk: bytes = message.get("body", b"")
        more = message.get("more_body", False)
        count += len(chunk)
        if count > limit_bytes:
            raise _too_large(limit_bytes)
        if chunk:
            yield chunk


def _too_large(limit_bytes: int) -> RefusalError:
    limit_mib = limit_bytes / (1 << 20)
    return RefusalError(413, f"the body is larger than {limit_mib:.1f} MiB")


def _read_filename(part: MultipartSegment) -> str | None:
    """The declared name of a part, None where it is no file: `filename`, which .NET and PowerShell
    send as encoded words (RFC 2047) where it is not ASCII; else `filename*` (RFC 8187)."""
    if part.filename is None:
        header = Message()
        header["Content-Disposition"] = part.header("Content-Disposition")
        with suppress(MessageError, LookupError, TypeError, ValueError):
            found = header.get_param("filename", header="Content-Disposition")
            if not isinstance(found, tuple):
                return None
            charset, _, name = found
            if charset is None or charset.lower() not in _CHARSETS:
                return name
            return name.encode("latin-1").decode(charset, "replace")
        return None  # it has pieces that do not fit together
    text: str = part.filename.encode("latin-1").decode("utf-8", "replace")
    if text.startswith("=?"):
        with suppress(MessageError, LookupError, TypeError, ValueError):
            return str(make_header(decode_header(text))).encode("utf-8", "replace").decode()
    return text


class _Form:
    """Collects the wanted files from the parser's events; everything else is dropped."""

    def __init__(self, name: str, limits: UploadLimits) -> None:
        self._name = name.encode().decode("latin-1")
        self._limits = limits
        self._current: Upload | None = None
        self._total = 0
        self.uploads: list[Upload] = []

    def take(self, event: MultipartSegment | bytes | bytearray | None) -> None:
        """Take the head of a part, a piece of it, or its end (None)."""
        if isinstance(event, MultipartSegment):
            self._current = self._begin(event)
        elif self._current is None:
            return
        elif event is None:
            self._current.data.seek(0)
            self.uploads.append(self._current)
            self._current = None
        else:
            self._total += len(event)
            if self._current.data.tell() + len(event) > self._limits.file_bytes:
                raise _too_large(self._limits.file_bytes)
            if self._total > self._limits.total_bytes:
                raise _too_large(self._limits.total_bytes)
            self._current.data.write(event)

    def _begin(self, part: MultipartSegment) -> Upload | None:
        """The upload that a part brings, or None where it is not wanted."""
        if part.name != self._name or (filename := _read_filename(part)) is None:
            return None
        if len(self.uploads) >= self._limits.files:
            raise RefusalError(413, f"at most {self._limits.files} image(s) a request")
        return Upload(filename, part.content_type or "")
