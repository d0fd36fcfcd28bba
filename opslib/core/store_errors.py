"""What a store's refusal means, in a few words: the errors of fsspec, of S3, of SSH and of the
system."""

from opslib.core.formatting import shorten
from opslib.core.secrets import live_secrets, mask

CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 20
_CODES = {
    "NoSuchBucket": "there is no such bucket",
    "NoSuchKey": "there is no such object",
    "AccessDenied": "these credentials may not do this",
    "InvalidAccessKeyId": "the credentials are wrong: no such access key",
    "SignatureDoesNotMatch": "the credentials are wrong: the secret does not fit the access key",
    "403": "these credentials may not do this",
    "ExpiredToken": "the credentials have expired",
}
_TYPES = {
    "NoCredentialsError": "no credentials; expected AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
    "or a profile in ~/.aws",
    "EndpointConnectionError": "cannot be reached",
    "ConnectTimeoutError": f"cannot be reached within {CONNECT_TIMEOUT_S} s",
    "ReadTimeoutError": f"gave no answer within {READ_TIMEOUT_S} s",
    "ConnectionClosedError": "the connection was cut",
    "ClientPayloadError": "the connection was cut",
    "FileNotFoundError": "there is no such object",
    "PermissionDenied": "it takes no key of this account, of ~/.ssh or an ssh agent",
    "ChannelOpenError": "it lets this account in, and offers no SFTP",
    "SFTPBadMessage": "what it sends is no SFTP; expected no text when a program logs in",
    "SFTPPermissionDenied": "Permission denied",
    "SFTPOpUnsupported": "its SFTP server cannot replace a file in one step",
    "SFTPConnectionLost": "the connection was cut",
    "SFTPNoConnection": "the connection was cut",
    "ConnectionLost": "the connection was cut",
}


def explain_refusal(error: BaseException) -> str:
    """Return why a store refused, in one line without a secret."""
    kinds = [type(one).__name__ for one in (error, error.__cause__, error.__context__) if one]
    if (code := error_code(error)) in _CODES:
        return _CODES[code]
    if isinstance(error, OSError) and error.errno and not code and error.strerror:
        return str(error.strerror)
    for kind in kinds:
        if kind in _TYPES:
            return _TYPES[kind]
    text = shorten(mask(str(error), live_secrets()))
    return f"{code or kinds[0]}: {text}" if text else code or kinds[0]


def error_code(error: BaseException) -> str:
    """Return what S3 calls an error, such as `NoSuchKey`, or an empty text."""
    answer = getattr(error.__cause__, "response", None)
    return str(answer.get("Error", {}).get("Code", "")) if isinstance(answer, dict) else ""
