"""Who runs an output folder: `lease.json`, taken by one run at a time.

    lease = Lease.take(store)            # raises LeaseError while another run holds it
    lease.token                          # goes to the workers: ensure_owned(store, token) before every commit
    lease.set_draining()                 # asks workers to start no new unit: read_lease(store).is_draining
    lease.check()                        # raises LeaseError once it has been lost
    lease.release()

The file holds {owner, epoch, heartbeat, draining, host, pid, ...}. A thread counts the heartbeat up every `heartbeat_s`; each change
replaces exactly the version that was written last, so a holder that has been replaced notices and writes nothing more, and one that stood
still, with its machine or alone, goes on if its last version is still in place. A newcomer watches the counter for `expiry_s` of its own
monotonic time: if it stands still the lease has expired, and the newcomer replaces exactly the version it watched, with the next epoch; of
several newcomers one succeeds. Clocks are never compared. A holder on this very machine needs no watching: its process is there, or is
gone. A released lease keeps its epoch, so epochs never repeat in a folder.
"""

import logging
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from types import TracebackType

import orjson

from pipelines.errors import LeaseError, OutputError
from pipelines.io.outputs import Store, Versioned, put
from pipelines.ledger.json_fields import Fields
from pipelines.ledger.part_names import MAX_EPOCH
from pipelines.ledger.process_identity import ProcessIdentity

logger = logging.getLogger(__name__)

LEASE = "lease.json"
HEARTBEAT_S = 2.0
EXPIRY_S = 15.0
_MAX_POLL_S = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class LeaseToken:
    """What proves that a worker belongs to the run that holds the lease."""

    owner: str
    epoch: int


@dataclass(frozen=True, kw_only=True, slots=True)
class LeaseState:
    """The content of `lease.json`. `owner` is None once released."""

    owner: str | None
    epoch: int
    heartbeat: int
    is_draining: bool
    process: ProcessIdentity

    def is_of(self, token: LeaseToken) -> bool:
        """Whether the run of `token` holds the lease."""
        return (self.owner, self.epoch) == (token.owner, token.epoch)

    def to_json(self) -> bytes:
        fields = {"owner": self.owner, "epoch": self.epoch, "heartbeat": self.heartbeat, "draining": self.is_draining}
        return orjson.dumps(fields | asdict(self.process), option=orjson.OPT_INDENT_2)

    @classmethod
    def from_json(cls, content: bytes) -> "LeaseState":
        """Raises:
        ValueError: the content is not a lease.
        """
        values = orjson.loads(content)
        if not isinstance(values, dict):
            raise ValueError("it is not a JSON object")
        fields = Fields(values)
        if (epoch := fields.count("epoch")) >= MAX_EPOCH:
            raise ValueError(f"its epoch is {epoch}, and the last one is {MAX_EPOCH}")
        return cls(
            owner=fields.optional_text("owner"),
            epoch=epoch,
            heartbeat=fields.count("heartbeat"),
            is_draining=fields.flag("draining"),
            process=ProcessIdentity(
                host=fields.text("host"),
                pid=fields.count("pid"),
                place=fields.optional_text("place"),
                start_time=fields.optional_text("start_time"),
            ),
        )


def read_lease(store: Store) -> LeaseState | None:
    """The lease as it is now, None if the folder never had one.

    Raises:
        LeaseError: the file is not a lease.
        OutputError: it cannot be read.
    """
    content = store.read(LEASE)
    return None if content is None else _parsed(content, store)


def ensure_owned(store: Store, token: LeaseToken) -> LeaseState:
    """Returns the lease if it is still the one of `token`.

    Raises:
        LeaseError: another run has taken the folder over, or the run has ended.
    """
    state = read_lease(store)
    if state is None or not state.is_of(token):
        now = "there is no lease any more" if state is None else f"it is now at epoch {state.epoch}, {_holder(state)}"
        raise LeaseError(f"this run has lost {store.location} (epoch {token.epoch}): {now}; nothing more is written")
    return state


def _parsed(content: bytes, store: Store) -> LeaseState:
    try:
        return LeaseState.from_json(content)
    except ValueError as error:
        place = f"{store.location}/{LEASE}"
        raise LeaseError(f"{place} is not a lease: {error}; if no run uses the folder, remove the file") from error


def _holder(state: LeaseState) -> str:
    if state.owner is None:
        return "not held by any run"
    return f"held by process {state.process.pid} on {state.process.host}"


class Lease:
    """The lease of this run, kept alive by a thread until it is released."""

    def __init__(
        self,
        store: Store,
        token: LeaseToken,
        state: LeaseState,
        version: str,
        *,
        heartbeat_s: float,
        expiry_s: float,
        clock: Callable[[], float],
    ) -> None:
        self.token = token
        self._store = store
        self._state = state
        self._version = version
        self._heartbeat_s = heartbeat_s
        self._expiry_s = expiry_s
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._clock = clock
        self._last_beat = clock()
        self._loss: str | None = None
        self._thread = threading.Thread(target=self._beat_on, name="millrace-lease", daemon=True)

    @classmethod
    def take(
        cls,
        store: Store,
        *,
        heartbeat_s: float = HEARTBEAT_S,
        expiry_s: float = EXPIRY_S,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> "Lease":
        """Takes the lease, waiting for at most about `expiry_s` until an earlier holder is known to be alive or dead.

        Raises:
            LeaseError: another run holds it.
        """
        owner = secrets.token_hex(16)
        while True:
            found = store.read_versioned(LEASE)
            earlier = None if found is None else _parsed(found.content, store)
            if earlier is not None and found is not None:
                _await_end(store, found, earlier, min(heartbeat_s / 2, _MAX_POLL_S), expiry_s, sleep)
            token = LeaseToken(owner=owner, epoch=earlier.epoch + 1 if earlier else 1)
            state = LeaseState(
                owner=token.owner,
                epoch=token.epoch,
                heartbeat=0,
                is_draining=False,
                process=ProcessIdentity.current(),
            )
            version = put(store, LEASE, found, state.to_json())
            if version is not None:
                lease = cls(store, token, state, version, heartbeat_s=heartbeat_s, expiry_s=expiry_s, clock=clock)
                lease._thread.start()
                return lease

    def set_draining(self) -> None:
        """Asks all workers to start no new unit."""
        self._write(lambda state: replace(state, is_draining=True))

    def check(self) -> None:
        """After a silence in which another run may have taken the lease, looks whether one has: this process may only have stood still,
        with its machine or by itself.

        Raises:
            LeaseError: the lease is lost, or could not be renewed for so long that another run may take it.
        """
        silence_s = self._clock() - self._last_beat
        if self._loss is None and silence_s > self._expiry_s:
            try:
                self._beat()
            except OutputError as error:
                self._loss = f"its heartbeat could not be written for {silence_s:.0f} s ({error})"
            if self._loss is None:
                logger.warning(
                    "no heartbeat was written for %.0f s, and no other run took the lease: going on", silence_s
                )
        if self._loss is not None:
            raise LeaseError(f"this run has lost {self._store.location}: {self._loss}; start it again to go on")

    def release(self) -> None:
        """Stops the heartbeat and leaves the folder to the next run. Does nothing to a lease that is lost or released."""
        self._stop.set()
        self._thread.join()
        if self._loss is None and self._state.owner is not None:
            self._write(lambda state: replace(state, owner=None))

    def __enter__(self) -> "Lease":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _beat_on(self) -> None:
        while self._loss is None and not self._stop.wait(self._heartbeat_s):
            try:
                self._beat()
            except OutputError as error:  # perhaps only for now; `check` knows for how long
                logger.warning("the lease's heartbeat could not be written: %s", error)

    def _beat(self) -> None:
        self._write(lambda state: replace(state, heartbeat=state.heartbeat + 1))

    def _write(self, change: Callable[[LeaseState], LeaseState]) -> None:
        with self._lock:
            while self._loss is None:
                state = change(self._state)
                version = self._store.replace(LEASE, self._version, state.to_json())
                if version is not None:
                    self._state, self._version, self._last_beat = state, version, self._clock()
                    return
                self._take_up()

    def _take_up(self) -> None:
        """Goes on from what the file holds: a write of this very run whose answer never came, unless another run has taken it over."""
        found = self._store.read_versioned(LEASE)
        try:
            state = None if found is None else LeaseState.from_json(found.content)
        except ValueError as error:
            self._loss = f"{LEASE} is not a lease any more: {error}"
            return
        if found is None or state is None or not state.is_of(self.token):
            self._loss = "another run has taken it over"
        else:
            self._state, self._version = state, found.version


def _await_end(
    store: Store,
    found: Versioned,
    state: LeaseState,
    poll_s: float,
    expiry_s: float,
    sleep: Callable[[float], None],
) -> None:
    """Returns when the lease is free or has expired.

    Raises:
        LeaseError: its holder is alive.
    """
    if state.owner is None:
        return
    is_alive = state.process.is_alive()
    if is_alive:
        raise _busy(store, state, "which is running")
    if is_alive is None:
        logger.info("%s is %s; watching its heartbeat for %.0f s", store.location, _holder(state), expiry_s)
    watched_from = time.monotonic()
    while is_alive is None and time.monotonic() - watched_from < expiry_s:
        sleep(poll_s)
        now = store.read_versioned(LEASE)
        if now is None:
            return
        if now.version != found.version:
            beat = _parsed(now.content, store)
            if (beat.owner, beat.epoch) != (state.owner, state.epoch):
                return  # released or taken over: look again
            raise _busy(store, beat, f"whose heartbeat is at {beat.heartbeat} and counting")
    logger.warning("%s was %s and has expired; taking it over", store.location, _holder(state))


def _busy(store: Store, state: LeaseState, sign: str) -> LeaseError:
    return LeaseError(
        f"another run holds {store.location}: process {state.process.pid} on {state.process.host}, {sign} "
        f"(epoch {state.epoch}, {state.heartbeat} heartbeats so far); wait for it to end, stop it, or choose another output.path"
    )
