"""Where the other ranks come in: rank 0 takes in those that prove that they know its secret, and
lets no stranger delay it.

Each connection is greeted in a thread of its own, so a stranger that says nothing, or too little,
or the wrong thing delays no rank. It has `GREETING_S`; and if `MAX_PENDING` are being greeted
already, the one that has taken the longest is closed, so that strangers can fill neither memory
nor the table of open files. A rank whose connection was closed connects again.
"""

import contextlib
import itertools
import logging
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from models.errors import EngineError
from models.parallel.channel import Channel, hang_up, seconds_until
from models.parallel.handshake import SECRET_BYTES, WELCOME, Seat, greet, introduce

logger = logging.getLogger(__name__)

GREETING_S = 10.0
MAX_PENDING = 64
CHECK_S = 0.05
AGAIN_S = 0.1


@dataclass(frozen=True, slots=True)
class _Arrival:
    """A rank that has proved itself, and the number of the connection it came on."""

    number: int
    channel: Channel


class Entrance:
    """A listening socket of rank 0's, on the address that the others use and no other."""

    def __init__(self, host: str) -> None:
        """Listens on a free port of `host`. Processes that connect must know `secret`.

        Raises:
            OSError: `host` is not an address of this machine.
        """
        self.secret = secrets.token_bytes(SECRET_BYTES)
        self._listener = socket.create_server((host, 0), backlog=2 * MAX_PENDING)
        self._listener.settimeout(CHECK_S)
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._pending: list[socket.socket] = []  # being greeted, the longest first
        self._seats: dict[Seat, _Arrival | None] = {}  # those that are waited for, and who has come
        self._numbers = itertools.count()

    def admit(self, seats: Iterable[Seat], timeout_s: float, *, check: Callable[[], None]) -> dict[Seat, Channel]:
        """The channel of every one of `seats`, once all have come; none is taken in after them.
        `check` is called while they are waited for, and raises if one will never come.

        Raises:
            EngineError: one did not come in time.
        """
        end = time.monotonic() + timeout_s
        with self._lock:
            self._seats = dict.fromkeys(seats)
        try:
            while missing := self._missing():
                check()
                if time.monotonic() > end:
                    names = ", ".join(f"shard {rank}" for rank in sorted({seat.rank for seat in missing}))
                    raise EngineError(f"{names} did not come within {timeout_s:.0f} s")
                self._greet_next()
            with self._lock:
                come = {seat: arrival.channel for seat, arrival in self._seats.items() if arrival is not None}
                self._seats = {}
            return come
        finally:
            self.close()

    def close(self) -> None:
        """Takes in no more connections, and closes those that are waiting."""
        self._listener.close()
        with self._lock:
            waiting, self._pending = self._pending, []
            arrivals, self._seats = self._seats, {}
        for connection in waiting:
            hang_up(connection)
        for arrival in arrivals.values():
            if arrival is not None:
                arrival.channel.close()

    def _missing(self) -> list[Seat]:
        with self._lock:
            return [seat for seat, arrival in self._seats.items() if arrival is None]

    def _greet_next(self) -> None:
        try:
            connection, address = self._listener.accept()
        except TimeoutError:
            return
        except OSError as error:  # that one is gone already, or this process has too many files open
            if self._listener.fileno() < 0:
                raise EngineError("rank 0 was closed while it waited for its shards") from error
            logger.warning("a connection to rank 0 could not be taken: %s", error)
            time.sleep(CHECK_S)
            return
        with self._lock:
            oldest = self._pending.pop(0) if len(self._pending) >= MAX_PENDING else None
            self._pending.append(connection)
        if oldest is not None:
            hang_up(oldest)
        args = (connection, address, next(self._numbers))
        threading.Thread(target=self._greet, args=args, name="millrace-greeting", daemon=True).start()

    def _greet(self, connection: socket.socket, address: object, number: int) -> None:
        try:
            seat, channel = greet(connection, self.secret, end=time.monotonic() + GREETING_S)
            if not self._is_still_pending(connection):
                raise ConnectionError("too many others came after it")
            channel.send(WELCOME)
            self._give(seat, _Arrival(number, channel))
        except (OSError, EngineError) as error:
            logger.debug("a connection from %s was sent away: %s", address, error)
            self._is_still_pending(connection)
            connection.close()

    def _is_still_pending(self, connection: socket.socket) -> bool:
        """Ends its time among the pending, if that has not ended."""
        with self._lock:
            if is_pending := connection in self._pending:
                self._pending.remove(connection)
            return is_pending

    def _give(self, seat: Seat, arrival: "_Arrival") -> None:
        """A rank that comes again takes the place of the connection that it has given up, whichever of the two is greeted first."""
        arrival.channel.set_patient()
        with self._lock:
            before = self._seats.get(seat)
            is_taken = seat in self._seats and (before is None or before.number < arrival.number)
            if is_taken:
                self._seats[seat] = arrival
        refused = before if is_taken else arrival
        if refused is not None:
            refused.channel.close()


def enter(host: str, port: int, secret: bytes, seat: Seat, timeout_s: float) -> Channel:
    """Another rank's way in, to rank 0's `Entrance`. A connection that ends without an answer is tried again.

    Raises:
        EngineError: rank 0 is not there, who answers does not know the secret, or `timeout_s` went by.
    """
    end = time.monotonic() + timeout_s
    while True:
        try:
            connection = socket.create_connection((host, port), seconds_until(end))
        except OSError as error:
            raise EngineError(f"rank 0 does not answer at {host}:{port}: {error}") from error
        with contextlib.ExitStack() as stack:
            stack.callback(connection.close)
            try:
                channel = introduce(connection, secret, seat, end=end)
            except TimeoutError as error:
                raise EngineError(f"rank 0 does not answer at {host}:{port} within {timeout_s:.0f} s") from error
            except EngineError as error:
                raise EngineError(f"who answers at {host}:{port} is not rank 0: {error}") from error
            except OSError as error:
                logger.debug("the connection to rank 0 at %s:%s ended, and is tried again: %s", host, port, error)
            else:
                stack.pop_all()
                channel.set_patient()
                return channel
        time.sleep(AGAIN_S)
