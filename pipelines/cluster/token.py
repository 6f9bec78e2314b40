"""The token of a Ray cluster: with it anyone may run code as the cluster's user, and without a
token everyone may.

Ray gives a cluster of our own a token by itself, but writes `~/.ray/auth_token` for all users of the machine to read. ssh refuses a key
that others can read; here the file is Ray's own doing and every Ray of this user has it, so it is closed, and said: what has been read
meanwhile stays known.
"""

import logging
import os
import secrets
import stat
from pathlib import Path

from pipelines.cluster.control_store import OK, answer_at, answers_without_certificate

logger = logging.getLogger(__name__)

AUTH_MODE = "RAY_AUTH_MODE"
TOKEN = "token"
_GIVEN_OTHERWISE = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
_FILE_MODE, _FOLDER_MODE = 0o600, 0o700
_OTHERS = 0o077
_ASK_S = 4.0


def token_file() -> Path:
    """Where Ray keeps the token of this user."""
    return Path.home() / ".ray" / "auth_token"


def secure_token_file(*, makes_one: bool) -> None:
    """Makes this user's token readable by this user alone; with `makes_one` it is made if there is
    none, unless the environment tells Ray to take another token or to use none. To be called
    before Ray looks for it."""
    file = token_file()
    is_wanted = os.environ.get(AUTH_MODE, TOKEN).lower() == TOKEN and not any(map(os.environ.get, _GIVEN_OTHERWISE))
    try:
        if is_wanted and makes_one and not file.exists():
            _make(file)
        for path, mode in ((file.parent, _FOLDER_MODE), (file, _FILE_MODE)):
            if file.exists():
                _close(path, mode)
    except OSError as error:
        logger.warning(
            "%s cannot be kept from other users (%s); see to it that only you can read it", file, error.strerror
        )


def _make(file: Path) -> None:
    """Writes a new token, whole or not at all; another process's that is there first stays."""
    file.parent.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
    draft = file.with_name(f"{file.name}.{os.getpid()}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _FILE_MODE), "w") as out:
        out.write(secrets.token_hex(32))
    try:
        os.link(draft, file)
    except FileExistsError:
        logger.debug("another process made %s", file)
    finally:
        draft.unlink()


def _close(path: Path, mode: int) -> None:
    """Takes from others what they may do with a file or folder."""
    found = stat.S_IMODE(path.stat().st_mode)
    if not found & _OTHERS:
        return
    path.chmod(mode)
    logger.warning(
        "%s could be opened by other users (mode %03o) and has mode %03o now; if others use this machine, end your Ray clusters and "
        "remove it: the next one makes a new token",
        path, found, mode,
    )  # fmt: skip


def warn_if_open(address: str) -> None:
    """Says in one line if the cluster whose control store is at `address` takes orders from everybody who reaches it."""
    if answers_without_certificate() and _takes_anybody(address):
        logger.warning(
            "the Ray cluster at %s asks for no token: anyone who reaches it can run code there and read what this job "
            "reads; start its nodes with RAY_AUTH_MODE=token and one token for all of them (docs/operations.md)",
            address,
        )


def _takes_anybody(address: str) -> bool:
    """Whether a question without a token is answered; that a cluster is gone is reported
    elsewhere."""
    return answer_at(address, timeout_s=_ASK_S) == OK
