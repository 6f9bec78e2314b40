"""Which errors of reading last: content that is not what it should be stays so, a network or a disk may recover."""

import errno
import zlib
from collections.abc import Mapping
from gzip import BadGzipFile
from typing import Any

import pyarrow as pa
import zstandard

_CONTENT = (
    pa.ArrowException,
    ValueError,
    ImportError,
    NotImplementedError,
    zlib.error,
    zstandard.ZstdError,
    BadGzipFile,
)
_EXPIRED = ("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired", "InvalidToken")
_ACCESS = (PermissionError, IsADirectoryError, NotADirectoryError)
_PASSING = {
    *(
        errno.EIO,
        errno.EAGAIN,
        errno.EINTR,
        errno.EBUSY,
        errno.ENOMEM,
        errno.EMFILE,
        errno.ENFILE,
        errno.ESTALE,
        errno.ENODEV,
    ),
    *(
        errno.ETIMEDOUT,
        errno.ECONNRESET,
        errno.ECONNREFUSED,
        errno.ECONNABORTED,
        errno.EPIPE,
        errno.ENOTCONN,
        errno.ENOBUFS,
    ),
    *(errno.ENETDOWN, errno.ENETUNREACH, errno.ENETRESET, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.EREMOTEIO),
    errno.ENOENT,  # a file server may show a name late
}


def is_lasting(error: BaseException, *, is_remote: bool) -> bool:
    """Whether reading the same file again would fail the same way.

    Of a remote file only what its bytes or its store say for certain: all else may come from the network, an end that comes too early
    included. Of a local one everything but what a device or a file server may recover from.
    """
    if isinstance(error, _CONTENT + _ACCESS) or is_expired(error):
        return True
    if is_remote:
        return False
    if isinstance(error, OSError):
        return _is_arrows(error) if error.errno is None else error.errno not in _PASSING
    return True


def is_expired(error: BaseException) -> bool:
    """Whether an object store no longer takes the credentials that it took before."""
    response: Mapping[str, Any] = getattr(error.__cause__, "response", None) or {}
    return response.get("Error", {}).get("Code") in _EXPIRED


def _is_arrows(error: OSError) -> bool:
    """Whether Arrow's decoders raised the error: they use OSError, without a number, for content that they cannot decode."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and "pyarrow" in trace.tb_frame.f_code.co_filename
