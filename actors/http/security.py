"""Who may ask: API keys in a file, and where a service without keys may listen.

Keys stand one per line; blank lines are skipped. The file is read again when it changes. It must
belong to this process's user and be readable by this user alone; a file of another owner, as
Kubernetes mounts secrets, may be readable by its group, never by all.
"""

import hashlib
import hmac
import ipaddress
import logging
import os
import stat
from pathlib import Path

from actors.errors import KeyFileError, ListenError

logger = logging.getLogger(__name__)

LOCALHOST = "localhost"


class ApiKeys:
    """The keys of one file."""

    def __init__(self, path: str | Path) -> None:
        """Reads the file.

        Raises:
            KeyFileError: it cannot be used; the text says why.
        """
        self._path = Path(path)
        self._version: tuple[int, ...] = ()
        self._digests: list[bytes] = []
        self._refresh()

    def allow(self, key: bytes) -> bool:
        """Whether this is one of the keys. Takes the same time whichever it is, and however much of it is right.

        Raises:
            KeyFileError: the file has changed and cannot be used any more.
        """
        self._refresh()
        given, is_known = _digest(key), False
        for digest in self._digests:
            is_known |= hmac.compare_digest(given, digest)
        return is_known

    def _refresh(self) -> None:
        try:
            if _version(self._path.stat()) != self._version:
                self._read()
        except OSError as error:
            raise KeyFileError(f"the key file {self._path} cannot be read: {error.strerror}") from error

    def _read(self) -> None:
        with self._path.open("rb") as file:
            status = os.fstat(file.fileno())
            _check_private(self._path, status)
            lines = [line.strip() for line in file.read().splitlines()]
        keys = [line for line in lines if line]
        if not keys:
            raise KeyFileError(f"the key file {self._path} holds no key; write at least one, one per line")
        self._digests, self._version = [_digest(key) for key in keys], _version(status)
        logger.info("%d API keys read", len(keys))


def check_listen(host: str, *, has_keys: bool) -> None:
    """Refuses to listen on a network without keys.

    Raises:
        ListenError: the host is not a loopback address, and there are no keys.
    """
    if not has_keys and not is_loopback(host):
        raise ListenError(
            f"http.host was {host!r} and there are no API keys: without keys only a loopback address may be listened on; "
            "name a file of keys in api_keys.file, or listen on 127.0.0.1"
        )


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own."""
    if host == LOCALHOST:
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _check_private(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise KeyFileError(f"the key file {path} is no file")
    others = 0o077 if status.st_uid == os.geteuid() else 0o007
    if status.st_mode & others:
        raise KeyFileError(
            f"the key file {path} has mode {stat.S_IMODE(status.st_mode):04o}, so that others can read or write it; "
            "make it 0600"
        )


def _version(status: os.stat_result) -> tuple[int, ...]:
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino


def _digest(key: bytes) -> bytes:
    """Digests are of one length: comparing them tells nothing about the key's."""
    return hashlib.sha256(key).digest()
