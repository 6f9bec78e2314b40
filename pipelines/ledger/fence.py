"""Writing under a lease so that a late write changes nothing: it lands on what was there while the lease was still held, or not at all.

A file's version is read first, then the lease, then exactly that version is replaced. Between the last two another run may take the
folder over and write the file; then the version is another, and the late write is refused by the store.
"""

from pipelines.io.outputs import Store, put
from pipelines.ledger.lease import LeaseToken, ensure_owned


def write_fenced(store: Store, token: LeaseToken, name: str, content: bytes) -> None:
    """Makes or replaces a file.

    Raises:
        LeaseError: another run has taken the folder over.
        OutputError: it cannot be written.
    """
    while True:
        found = store.read_versioned(name)
        ensure_owned(store, token)
        if put(store, name, found, content) is not None:
            return
