"""Reading multipart uploads: every byte is counted before it is kept, and nothing else is kept."""

import io
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from email.message import Message
from pathlib import PurePosixPath

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from opslib.serving.failures import RefusalError

_OVERHEAD_BYTES = 64 * 1024  # part headers and boundaries beside the images themselves
_MAX_PARTS = 64
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
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data":
        raise RefusalError(415, f"expected multipart/form-data with the file field {name!r}")
    if not options.get(b"boundary"):
        raise RefusalError(400, "the Content-Type header has no multipart boundary")
    form = _Form(name, limits)
    try:
        parser = MultipartParser(options[b"boundary"], form.callbacks())  # type: ignore[arg-type]
        async for chunk in read_body(request, limits.total_bytes + _OVERHEAD_BYTES):
            parser.write(chunk)
        parser.finalize()
    except FormParserError as error:
        raise RefusalError(400, f"the multipart body is malformed: {error}") from error
    if not form.complete:
        raise RefusalError(400, "the multipart body ends before its last boundary")
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


def _read_filename(disposition: bytes, options: Mapping[bytes, bytes]) -> str | None:
    """The declared name of a part, None where it is no file: `filename`, which .NET and PowerShell
    send as encoded words (RFC 2047) where it is not ASCII; else `filename*` (RFC 8187)."""
    plain = options.get(b"filename")
    if plain is None:
        header = Message()
        header["Content-Disposition"] = disposition.decode("latin-1")
        found = header.get_param("filename", header="Content-Disposition")
        if not isinstance(found, tuple):
            return None
        charset, _, name = found
        if charset is None or charset.lower() not in _CHARSETS:
            return name
        return name.encode("latin-1").decode(charset, "replace")
    text = plain.decode("utf-8", "replace")
    if text.startswith("=?"):
        with suppress(HeaderParseError, LookupError, UnicodeError):
            return str(make_header(decode_header(text))).encode("utf-8", "replace").decode()
    return text


class _Form:
    """Collects the wanted files from the parser's callbacks; everything else is dropped."""

    def __init__(self, name: str, limits: UploadLimits) -> None:
        self._name = name.encode()
        self._limits = limits
        self._parts = 0
        self._header = b""
        self._value = b""
        self._fields: dict[bytes, bytes] = {}
        self._current: Upload | None = None
        self._total = 0
        self.uploads: list[Upload] = []
        self.complete = False

    def callbacks(self) -> dict[str, object]:
        return {name: getattr(self, name) for name in dir(self) if name.startswith("on_")}

    def on_part_begin(self) -> None:
        self._parts += 1
        if self._parts > _MAX_PARTS:
            raise RefusalError(413, f"the form has more than {_MAX_PARTS} parts")
        self._fields = {}

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def on_header_end(self) -> None:
        name = self._header.lower()
        if name in (b"content-disposition", b"content-type"):
            self._fields[name] = self._value
        self._header = self._value = b""

    def on_headers_finished(self) -> None:
        disposition = self._fields.get(b"content-disposition", b"")
        _, options = parse_options_header(disposition)
        filename = _read_filename(disposition, options)
        if options.get(b"name") != self._name or filename is None:
            self._current = None
            return
        if len(self.uploads) >= self._limits.files:
            raise RefusalError(413, f"at most {self._limits.files} image(s) a request")
        kind = (
            self._fields.get(b"content-type", b"")
            .partition(b";")[0]
            .strip()
            .lower()
            .decode("latin-1")
        )
        self._current = Upload(filename, kind)

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._current is None:
            return
        size = self._current.data.tell() + end - start
        self._total += end - start
        if size > self._limits.file_bytes:
            raise _too_large(self._limits.file_bytes)
        if self._total > self._limits.total_bytes:
            raise _too_large(self._limits.total_bytes)
        self._current.data.write(memoryview(data)[start:end])

    def on_part_end(self) -> None:
        if self._current is not None:
            self._current.data.seek(0)
            self.uploads.append(self._current)
            self._current = None

    def on_end(self) -> None:
        self.complete = True
